"""Rows that a run keeps beside its metrics, as rows a table can name by their subset."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from healthfm_core.evaluation import MetricRow

SMOOTHNESS: Final = "smoothness"
"""Task of the rows that say how far states move in a day."""


def secondary_rows(folder: Path, task: str) -> list[MetricRow]:
    """Return a run's rows of groups of people, corrupted wearing and smoothness, if it has any.

    A group's subset is ``ancestry G1`` or ``sex F``, that of wearing ``wearing removed 0.5`` or
    ``wearing noised 0.5``. Withheld groups have no rows. An arm's ``smoothness`` is a task with the
    metrics ``step``, of a day without an onset, and ``leap``, the same of one with, as a multiple.

    Args:
        folder: The run's.
        task: Its own task, which these rows are about.
    """
    groups = [
        _row(row, task, f"{row['attribute']} {row['group']}")
        for row in _table(folder / "subgroups.parquet")
        if not row["withheld"]
    ]
    corrupted = [
        _row(row, task, f"wearing {row['kind']} {row['share']:g}")
        for row in _table(folder / "corruption.parquet")
    ]
    smooth = [
        MetricRow(row["arm"], SMOOTHNESS, "overall", metric, *ends, row["n_subjects"])
        for row in _table(folder / "smoothness.parquet")
        for metric, ends in (
            ("step", (row["step"], row["step_low"], row["step_high"])),
            ("leap", (row["spike"], row["spike_low"], row["spike_high"])),
        )
    ]
    return groups + corrupted + smooth


def _table(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist()) if path.is_file() else []


def _row(row: dict[str, Any], task: str, subset: str) -> MetricRow:
    value, low, high = (
        float("nan") if row[name] is None else row[name] for name in ("value", "low", "high")
    )
    return MetricRow(row["arm"], task, subset, row["metric"], value, low, high, row["n_subjects"])
