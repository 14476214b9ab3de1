"""Rows of results: one per arm, subset and metric, with a 95 % interval over subjects."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.evaluation.metrics.bootstrap import Estimate, draw_subjects
from healthfm_core.evaluation.metrics.report_metrics import METRICS, NEXT_VISIT, metrics_of_task
from healthfm_core.evaluation.metrics.report_metrics import estimates as estimates_of
from healthfm_core.evaluation.predictions import SUBSETS, Predictions, Subset

MINUS: Final = " - "
"""Joins two arms' (or two subsets') names in a row of their paired difference."""


@dataclass(frozen=True)
class MetricRow:
    """One number.

    Attributes:
        arm: ``federated``, ``local``, …, or ``federated - local`` for a paired difference.
        task: ``next_visit`` or the label table's name.
        subset: ``overall``, ``repeat`` or ``new_onset``; or a further one, ``ehr/new_onset`` for
            models shown only some inputs, ``ehr+wearable - ehr`` for what the others add.
        metric: A key of `report_metrics.METRICS`.
        value: Point estimate; NaN where it is not defined.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n_subjects: Subjects with a row in the subset.
    """

    arm: str
    task: str
    subset: str
    metric: str
    value: float
    low: float
    high: float
    n_subjects: int

    @property
    def is_difference(self) -> bool:
        """Whether it is a paired difference between two arms or two subsets."""
        return MINUS in self.arm or MINUS in self.subset


def subsets_of(task: str) -> tuple[Subset, ...]:
    """All three columns for next-visit tasks, only overall for a label."""
    return SUBSETS if task == NEXT_VISIT else ("overall",)


def metric_rows(
    predictions: Mapping[str, Predictions],
    *,
    task: str,
    bootstraps: int,
    rng: np.random.Generator,
    reference: str = "federated",
    metrics: Sequence[str] | None = None,
    subsets: Sequence[Subset] | None = None,
) -> list[MetricRow]:
    """Return every arm's rows, then the paired differences `reference` minus each other arm.

    All arms are resampled with the same draws over the union of their subjects; a difference is
    given for arms that scored the very same rows as the reference.

    Args:
        predictions: Arm → predictions.
        task: ``next_visit`` or a label table's name.
        bootstraps: Number of replicates.
        rng: Where the draws come from.
        reference: The arm the others are held against.
        metrics: Keys of `report_metrics.METRICS`; None is all that make sense for the task.
        subsets: The columns; None is `subsets_of` the task.
    """
    if metrics is None:
        metrics = metrics_of_task(task)
    everybody = np.unique(np.concatenate([np.unique(p.subject) for p in predictions.values()]))
    draws = draw_subjects(everybody, bootstraps, rng)
    rows: list[MetricRow] = []
    differences: list[MetricRow] = []
    for subset in subsets_of(task) if subsets is None else subsets:
        parts = {arm: p.subset(subset) for arm, p in predictions.items()}
        estimates = {arm: estimates_of(metrics, part, draws) for arm, part in parts.items()}
        for arm, part in parts.items():
            people = dict.fromkeys(metrics, part.n_subjects)
            rows += rows_of_estimates(arm, task, subset, estimates[arm], people)
            if arm != reference and reference in parts and same_rows(parts[reference], part):
                paired = {
                    metric: estimates[reference][metric] - estimates[arm][metric]
                    for metric in metrics
                    if METRICS[metric].is_paired
                }
                name = f"{reference}{MINUS}{arm}"
                differences += rows_of_estimates(name, task, subset, paired, people)
    return rows + differences


def same_rows(a: Predictions, b: Predictions) -> bool:
    """Whether two arms predicted the same targets of the same subjects, in the same order."""
    return (
        np.array_equal(a.subject, b.subject)
        and np.array_equal(a.target, b.target)
        and np.array_equal(a.outcome, b.outcome)
    )


def rows_of_estimates(
    arm: str,
    task: str,
    subset: str,
    estimates: Mapping[str, Estimate],
    n_subjects: Mapping[str, int],
) -> list[MetricRow]:
    """Return a row per metric, given its estimate and of how many subjects it speaks."""
    return [
        MetricRow(
            arm, task, subset, metric, estimate.value, *estimate.interval(), n_subjects[metric]
        )
        for metric, estimate in estimates.items()
    ]


def write_rows(path: Path, rows: Sequence[MetricRow]) -> None:
    """Write rows as a JSON list of objects; an undefined number is null."""
    plain = [{key: _plain(v) for key, v in row.items()} for row in map(asdict, rows)]
    path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[Any]) -> None:
    """Write rows of one dataclass as Parquet, a column per field; an undefined number is null.

    Args:
        path: The file.
        rows: At least one, with fields that are text, numbers, yes/no or None.
    """
    plain = [asdict(row) for row in rows]
    columns = {name: [_plain(row[name]) for row in plain] for name in plain[0]}
    pq.write_table(pa.table(columns), path)


def _plain(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_rows(path: Path) -> list[MetricRow]:
    """Read what `write_rows` wrote."""
    return [
        MetricRow(**{**row, **{k: _number(row[k]) for k in ("value", "low", "high")}})
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
