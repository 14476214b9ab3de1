"""``predictions.parquet``: what every arm said of every test person, beside what happened.

The file is about people. It is made on the machine where the stores are, by a simulation alone, and
nothing reads it to send it on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.data.batch.sequences import UNKNOWN_TIME
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.evaluation import Predictions
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.arm_metrics import CollectedPredictions
from healthfm_simulations.sites import SimulatedSite

PREDICTIONS_FILE: Final = "predictions.parquet"
NAMES: Final = pa.dictionary(pa.int32(), pa.string())
COLUMNS: Final = pa.schema(
    [
        pa.field("site", NAMES, nullable=False),
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("prediction_time", pa.timestamp("us")),
        pa.field("fold", NAMES, nullable=False),
        pa.field("arm", NAMES, nullable=False),
        pa.field("inputs", NAMES, nullable=False),
        pa.field("target", NAMES),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("outcome", pa.bool_(), nullable=False),
    ]
)
"""`target` is null where a label is asked about; `inputs` is ``all``, or what an arm was shown."""
_DICTIONARIES: Final = [field.name for field in COLUMNS if field.name != "score"]


class PredictionsFile:
    """The file of one replicate, whole or not there.

    Args:
        folder: The replicate's.
        sites: All sites of the run, whose positions are the sites' indices.
    """

    def __init__(self, folder: Path, sites: Sequence[SimulatedSite]) -> None:
        self._file = folder / PREDICTIONS_FILE
        self._draft = folder / f".{PREDICTIONS_FILE}"
        self._sites = tuple(sites)
        self._written: dict[tuple[str, str], int] = {}

    def __enter__(self) -> Self:
        self._writer = pq.ParquetWriter(
            self._draft,
            COLUMNS,
            compression="zstd",
            use_dictionary=_DICTIONARIES,
            column_encoding={"score": "BYTE_STREAM_SPLIT"},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
        if kind is None:
            self._draft.replace(self._file)
        else:
            self._draft.unlink(missing_ok=True)

    def add(self, collected: CollectedPredictions, fold: CrossValidationFold) -> None:
        """Write what was collected since the last fold.

        Args:
            collected: The predictions of all folds so far.
            fold: Whose people the new ones are about.
        """
        everyone = {
            at: SiteStore.open(site.path).subjects(fold.split)
            for at, site in enumerate(self._sites)
            if site.name in {tested.name for tested in fold.test}
        }
        for inputs, arm, parts in _arms(collected):
            before = self._written.get((inputs, arm), 0)
            for part in parts[before:]:
                said = _Said(part, everyone, self._sites, collected.targets)
                self._writer.write_table(said.table(fold.name, arm, inputs))
            self._written[inputs, arm] = len(parts)


class _Said:
    """What one arm said in one fold.

    Args:
        predictions: A row per prediction; `subject` is site << 32 | place among `everyone` of it.
        everyone: Site's index → subject_ids of the people who may be tested there.
        sites: All sites of the run.
        targets: Names of the targets' columns.
    """

    def __init__(
        self,
        predictions: Predictions,
        everyone: dict[int, np.ndarray],
        sites: Sequence[SimulatedSite],
        targets: Sequence[str],
    ) -> None:
        self._of, self._everyone = predictions, everyone
        self._sites, self._targets = sites, targets

    def table(self, fold: str, arm: str, inputs: str) -> pa.Table:
        """Return the rows in the columns of `COLUMNS`."""
        of, n = self._of, len(self._of)
        unknown = of.time_us == UNKNOWN_TIME
        time_us = pa.array(np.where(unknown, 0, of.time_us), mask=unknown)
        columns = {
            "site": _named([site.name for site in self._sites], of.site),
            "subject_id": pa.array(self._subjects()),
            "prediction_time": time_us.cast(pa.timestamp("us")),
            "fold": _named([fold], np.zeros(n, np.int32)),
            "arm": _named([arm], np.zeros(n, np.int32)),
            "inputs": _named([inputs], np.zeros(n, np.int32)),
            "target": _named([name or None for name in self._targets], of.target),
            "score": pa.array(of.score),
            "outcome": pa.array(of.outcome),
        }
        return pa.table(columns, schema=COLUMNS)

    def _subjects(self) -> np.ndarray:
        place = self._of.subject & 0xFFFFFFFF
        subject = np.zeros(len(place), np.int64)
        for at in np.unique(self._of.site):
            rows = self._of.site == at
            subject[rows] = self._everyone[int(at)][place[rows]]
        return subject


def _arms(collected: CollectedPredictions) -> Iterator[tuple[str, str, list[Predictions]]]:
    for (inputs, arm), parts in collected.parts.items():
        yield inputs, arm, parts
    for inputs, by_site in collected.single.items():
        for site, parts in by_site.items():
            yield inputs, f"local, {site}'s model", parts


def _named(names: Sequence[str | None], index: np.ndarray) -> pa.Array:
    """Return names by their place in `names`, null where that has None."""
    known = [name or "" for name in names]
    absent = np.array([name is None for name in names], np.bool_)[index]
    indices = pa.array(index.astype(np.int32), mask=absent)
    return pa.DictionaryArray.from_arrays(indices, pa.array(known, pa.string()))
