"""MEDS labels from an ACES task definition, the dead among them.

ACES (es-aces, an extra) finds where a definition's windows fit. A definition that wants some event
after its label window, to be sure that a person was still followed, drops whoever dies inside it:
nothing comes after a death. Such a wish is waived for those who are known to be dead by then.
Everything else is as ACES says.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from meds import death_code

from healthfm_core.arrays import Bool, Int64
from healthfm_core.data.store.compacted_store import compacted
from healthfm_core.data.store.events import STATIC_TIME, coded, ids, repeated, times_us
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import DATA, in_order, read_parquet
from healthfm_core.errors import ConfigError, IngestError

ALIVE: Final = np.iinfo(np.int64).max
"""Stands for the time of a death that is not on record."""


@dataclass
class Extracted:
    """Labels, and what became of the rest.

    Attributes:
        labels: MEDS's table, by subject and time.
        waived: Labels of people who had died before anything could come after the window.
        after_death: Fits of the definition whose prediction would be at or after a death.
        unfollowed: Labels "no" of people whose record ends, alive, inside the label window.
        occurrences: Predicate of a code → events that it fits.
    """

    labels: pa.Table
    waived: int = 0
    after_death: int = 0
    unfollowed: int = 0
    occurrences: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Fits:
    """Where the definition fits, the wishes for a later event left out, one entry each."""

    subject: Int64
    prediction_us: Int64
    value: Bool
    window_end_us: Int64
    followed: Bool
    later_from_us: Int64


class Definition:
    """A task as ACES's YAML defines it.

    Args:
        file: The definition.
        predicates: File of the predicates, where they lie apart.

    Raises:
        ConfigError: HF-106.
        IngestError: HF-312 where es-aces is not installed.
    """

    def __init__(self, file: Path, predicates: Path | None = None) -> None:
        _want_aces()
        from aces.config import TaskExtractorConfig

        self._file = file
        try:
            with _quiet():
                self._config = TaskExtractorConfig.load(file, predicates)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise self._refused(str(error).strip("'\"").split("\n")[0][:200]) from error
        except Exception as error:
            if type(error).__module__.startswith("ruamel"):
                raise self._refused("it is no YAML") from error
            raise
        if self._config.label_window is None or self._config.index_timestamp_window is None:
            raise self._refused("a window with `label`, or one with `index_timestamp`, is missing")
        self._later = [name for name in self._config.windows if self._asks_for_later(name)]

    def labels(self, store: SiteStore) -> Extracted:
        """Return the labels of a store's people.

        Raises:
            ConfigError: HF-106 where the definition cannot be asked of the store, gives nobody a
                label, or gives one person two answers at one time.
        """
        result = Extracted(label_table(*(np.zeros(0, np.int64),) * 2, np.zeros(0, np.bool_)))
        with compacted(store.path) as whole:
            files = in_order(whole / DATA)
            tables = [result.labels, *(self._of_file(file, result) for file in files)]
            result.labels = self._once(pa.concat_tables(tables))
        if not result.labels.num_rows:
            trigger = self._config.trigger.predicate
            times = result.occurrences.get(trigger)
            seen = f', and "{trigger}" fits no event' if times == 0 else ""
            raise self._refused(f"it gives nobody of {store.name} a label{seen}")
        return result

    def _of_file(self, file: Path, result: Extracted) -> pa.Table:
        from aces.predicates import get_predicates_df
        from omegaconf import DictConfig
        from polars.exceptions import PolarsError

        source = DictConfig({"path": str(file), "standard": "meds"})
        try:
            with _quiet():
                frame = get_predicates_df(self._config, source)
                for name in self._config.plain_predicates:
                    result.occurrences[name] += int(frame[name].sum())
                fits = self._fits(frame)
        except (ValueError, KeyError, TypeError, PolarsError) as error:
            raise self._refused(f"ACES stops at it ({type(error).__name__})") from error
        table = read_parquet(file, file.name, ["subject_id", "time", "code"], ("code",))
        return _judged(fits, table, result)

    def _fits(self, frame: Any) -> _Fits | None:
        from aces.query import query

        rows = query(self._asked(later=False), frame)
        if not len(rows):
            return None
        starts = [self._bound(rows, name, "start") for name in self._later]
        return _Fits(
            subject=rows["subject_id"].to_numpy().astype(np.int64),
            prediction_us=_us(rows["index_timestamp"]),
            value=np.asarray(rows["label"].to_numpy() > 0),
            window_end_us=self._bound(rows, self._config.label_window, "end"),
            followed=self._followed(rows, frame),
            later_from_us=np.min(starts, axis=0) if starts else np.zeros(len(rows), np.int64),
        )

    def _followed(self, rows: Any, frame: Any) -> Bool:
        """Return where the definition fits with all its wishes."""
        from aces.query import query

        keys = ["subject_id", "trigger"]
        strict = query(self._asked(later=True), frame) if self._later else rows
        if not len(strict):
            return np.zeros(len(rows), np.bool_)
        fits = strict.select(keys).with_columns(followed=True)
        joined = rows.select(keys).join(fits, on=keys, how="left", maintain_order="left")
        return np.asarray(joined["followed"].fill_null(False).to_numpy(), np.bool_)

    def _bound(self, rows: Any, window: str, side: str) -> Int64:
        other = "end" if self._config.windows[window].root_node == "start" else "start"
        return _us(rows[f"{window}.{other}_summary"].struct.field(f"timestamp_at_{side}"))

    def _asks_for_later(self, name: str) -> bool:
        """Whether a window only wants that something happens, and nothing hangs on it."""
        window = self._config.windows[name]
        others = [w for n, w in self._config.windows.items() if n != name]
        bounds = [str(bound) for w in others for bound in (w.start, w.end)]
        used = any(bound.startswith(f"{name}.") for bound in bounds)
        wants = bool(window.has) and all(
            least and most is None for least, most in window.has.values()
        )
        return wants and not used and not window.label and not window.index_timestamp

    def _asked(self, *, later: bool) -> Any:
        """Return the definition, made anew: a query of es-aces 0.7.3 changes its windows' offsets.

        Args:
            later: With the wishes for a later event.
        """
        from aces.config import TaskExtractorConfig

        windows = dict(self._config.windows)
        for name in () if later else self._later:
            # An end that is an event, or the record's own, is none for the dead.
            open_ended = windows[name].root_node == "start"
            end = "start + 1s" if open_ended else windows[name].end
            windows[name] = replace(windows[name], has={}, end=end)
        return TaskExtractorConfig(
            predicates=self._config.predicates, trigger=self._config.trigger, windows=windows
        )

    def _once(self, labels: pa.Table) -> pa.Table:
        """Return the labels, one where two triggers ask the same; refuse two answers."""
        subject, time = ids(labels), times_us(labels, "prediction_time")
        answer = np.asarray(labels["boolean_value"].to_numpy(), np.int64)
        rows = labels.filter(pa.array(~repeated([subject, time, answer])))
        twice = int(repeated([ids(rows), times_us(rows, "prediction_time")]).sum())
        if twice:
            raise self._refused(f"it gives two answers for one person at one time, {twice}×")
        return rows.sort_by([("subject_id", "ascending"), ("prediction_time", "ascending")])

    def _refused(self, seen: str) -> ConfigError:
        return ConfigError(
            106,
            where=self._file.name,
            seen=seen,
            wanted=(
                "an ACES definition of codes that the store has, with a label and a time of "
                "prediction, is wanted"
            ),
        )


def _judged(fits: _Fits | None, events: pa.Table, result: Extracted) -> pa.Table:
    """Return the labels that hold, and count the others."""
    if fits is None:
        return result.labels.slice(0, 0)
    died, last = _ends(events, fits.subject)
    waived = ~fits.followed & (fits.later_from_us >= fits.window_end_us)
    waived &= (died > fits.prediction_us) & (died <= fits.later_from_us)
    kept = fits.followed | waived
    late = kept & (died <= fits.prediction_us)
    kept &= ~late
    result.after_death += int(late.sum())
    result.waived += int(waived.sum())
    ends_inside = kept & ~fits.value & (died == ALIVE) & (last < fits.window_end_us)
    result.unfollowed += int(ends_inside.sum())
    return label_table(fits.subject[kept], fits.prediction_us[kept], fits.value[kept])


def _ends(events: pa.Table, wanted: Int64) -> tuple[Int64, Int64]:
    """Return (time of death or `ALIVE`, time of the last event) of each subject wanted, in µs."""
    subject, time = ids(events), times_us(events)
    code, names = coded(events["code"])
    dead = np.isin(code, [i for i, name in enumerate(names) if name == death_code])
    dead &= time != STATIC_TIME
    known, index = np.unique(subject, return_inverse=True)
    died = np.full(len(known), ALIVE, np.int64)
    np.minimum.at(died, index[dead], time[dead])
    last = np.full(len(known), STATIC_TIME, np.int64)
    np.maximum.at(last, index, time)
    at = np.searchsorted(known, wanted)
    return died[at], last[at]


def _us(column: Any) -> Int64:
    return np.asarray(column.dt.epoch("us").fill_null(STATIC_TIME).to_numpy(), np.int64)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ACES's log to errors; it warns of every file by itself."""
    log = logging.getLogger("aces")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _want_aces() -> None:
    try:
        import aces
        import polars
    except ImportError as error:
        raise IngestError(
            312,
            where="labels",
            seen=f"the package {error.name} is not installed",
            wanted="es-aces, which reads task definitions, is wanted",
            do="Install HealthFM with its extra: pip install 'healthfm[labels]'",
        ) from error
    del aces, polars
