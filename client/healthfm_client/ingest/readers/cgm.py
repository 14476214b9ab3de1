"""Continuous glucose monitors: exports of Dexcom Clarity, LibreView and Tidepool.

All become one channel, GLUCOSE in mg/dL, of minutes, so that sensors of several makers and other
devices of minutes train together. A reading stands for the minutes until the next one is due (5,
or 15, as the day's readings tell), so that hours worn are hours. An export is one person's: of a
folder, the folder below it that a file lies in says whose, or the file's own name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.readers.glucose_exports import is_export, readings_of
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.ingest.tables.local_time import times_of_utc
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.tables.wearable_minutes import MINUTE_US, MINUTES, by_day, possible
from healthfm_core.arrays import Float64, Int64

DEVICE: Final = "cgm"
CHANNEL: Final = "GLUCOSE"
PACES: Final = (1, 5, 15)
"""Minutes from one reading to the next of the sensors there are."""
_USUAL: Final = 5
_FEWEST: Final = 4
"""Readings of a day by which its pace is told."""


class CgmOptions(ReaderOptions):
    """Options of ``cgm``."""

    person: str | None = Field(
        None, min_length=1, description="whose exports all of these are [folder or file name]"
    )
    date_order: Literal["day", "month"] | None = Field(
        None, description="day or month: what is first in LibreView's dates [what they tell]"
    )


@dataclass
class Exports:
    """What the exports of people hold.

    Attributes:
        tables: Days of readings.
        impossible: Readings that cannot be true.
        not_read: Kind of row → how many.
        beyond: Readings beyond their sensor's range.
        of_utc: Files with times of which only UTC is known.
    """

    tables: list[pa.Table] = field(default_factory=list)
    impossible: list[pa.Table] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)
    beyond: int = 0
    of_utc: list[str] = field(default_factory=list)

    def add(self, subject: int, files: list[Path], options: CgmOptions) -> None:
        """Add the exports of one person."""
        exports = [readings_of(file, options.date_order, options.time_zone) for file in files]
        for file, export in zip(files, exports, strict=True):
            self.not_read += export.not_read
            self.beyond += export.beyond
            self.of_utc += [f"{file.name}, time"] if export.of_utc else []
        time = np.concatenate([export.time_us for export in exports])
        value = np.concatenate([export.mg_per_dl for export in exports])
        good = possible(value, time, CHANNEL, options.now_us)
        self.impossible.append(_set_aside(subject, time[~good], value[~good]))
        self.tables += _days(subject, time[good], value[good])


def read(path: Path, options: CgmOptions) -> Iterator[Site]:
    """Yield everyone's exports as one site."""
    files = _files(path)
    refuse_empty(pa.table({"file": [file.name for file in files]}), path.name)
    people: dict[str, list[Path]] = {}
    for file in files:
        people.setdefault(options.person or _person(file, path), []).append(file)
    exports = Exports()
    subjects = numbers(list(people), options, path.name).tolist()
    for subject, its in zip(subjects, people.values(), strict=True):
        exports.add(subject, its, options)
    if not exports.tables:
        refuse_empty(pa.table({}), path.name)
    impossible = pa.concat_tables(exports.impossible)
    yield Site(
        None,
        wearables={DEVICE: pa.concat_tables(exports.tables)},
        rejected={"impossible_glucose": impossible} if impossible.num_rows else {},
        not_read=dict(sorted(exports.not_read.items())),
        notices=(
            *times_of_utc(exports.of_utc, options.time_zone),
            *_of_names(files, path, options.person),
            *_of_range(exports.beyond),
        ),
    )


def _person(file: Path, path: Path) -> str:
    """Return whose export a file is: the folder below `path` that it is in, or its own name."""
    inside = file.relative_to(path).parts if path.is_dir() else (file.name,)
    return inside[0] if len(inside) > 1 else file.stem


def _days(subject: int, time: Int64, value: Float64) -> Iterator[pa.Table]:
    """Yield a person's days: each reading in its minute and those until the next is due."""
    if not len(time):
        return
    minutes, at = np.unique(time // MINUTE_US, return_inverse=True)
    mean = np.bincount(at, weights=value) / np.bincount(at)
    last = np.append(np.diff(minutes), PACES[-1])
    lasts = np.minimum(_paces(minutes), last)
    within = np.arange(lasts.sum()) - np.repeat(np.cumsum(lasts) - lasts, lasts)
    each = (np.repeat(minutes, lasts) + within) * MINUTE_US
    who = np.full(len(each), subject, np.int64)
    yield by_day(who, each, np.repeat(mean, lasts), CHANNEL)


def _paces(minute: Int64) -> Int64:
    """Return [N] the minutes from one reading to the next on the day of each.

    Args:
        minute: [N] when there are readings, in minutes since 1970, ascending and distinct.
    """
    usual = _nearest(np.diff(minute)) if len(minute) >= _FEWEST else _USUAL
    _, starts, counts = np.unique(minute // MINUTES, return_index=True, return_counts=True)
    per_day = [
        _nearest(np.diff(its)) if len(its) >= _FEWEST else usual
        for its in np.split(minute, starts[1:])
    ]
    return np.repeat(np.array(per_day, np.int64), counts)


def _nearest(gaps: Int64) -> int:
    """Return the pace that the middle one of some gaps, in minutes, is nearest to."""
    middle = np.log(np.median(gaps))
    return min(PACES, key=lambda pace: abs(middle - np.log(pace)))


def _set_aside(subject: int, time: Int64, value: Float64) -> pa.Table:
    who = pa.array(np.full(len(time), subject, np.int64))
    stamp = pa.array(time).cast(pa.timestamp("us"))
    return pa.table({"subject_id": who, "time": stamp, "mg_per_dl": value})


def _of_names(files: list[Path], path: Path, person: str | None) -> tuple[str, ...]:
    """Return what is said where files that lie side by side were taken for one person each."""
    beside = sum(file.parent == path for file in files) if person is None else 0
    if beside < 2:
        return ()
    return (
        f"Each of the {beside} exports that lie side by side was taken for another person, by its "
        "name. Put those of one person into a folder of their own.",
    )


def _of_range(beyond: int) -> tuple[str, ...]:
    if not beyond:
        return ()
    return (
        f"{beyond:,} readings beyond the sensor's range (Low, High) were read as the end of the "
        "range.",
    )


def _files(path: Path) -> list[Path]:
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [f for f in inside if f.is_file() and not f.name.startswith(".") and is_export(f)]


def sniff(path: Path) -> bool:
    """Whether there is an export of glucose here."""
    return bool(_files(path))


READER = Reader(
    name="cgm",
    summary="Continuous glucose monitors: Dexcom Clarity, LibreView, Tidepool; one site",
    reads=(
        "the sensor's readings by the minute, in mg/dL, of Clarity's and LibreView's CSV in any "
        "language and Tidepool's JSON; readings beyond the sensor's range as its end"
    ),
    not_read=(
        "LibreView's scans, strips and calibrations, insulin, food, exercise, notes, settings: "
        "counted. Tidepool's Excel form, the apps' reports (PDF)"
    ),
    tried_on="exports that the tests write in the vendors' columns; none of a real person",
    sniff=sniff,
    read=read,
    options=CgmOptions,
    links=True,
)
