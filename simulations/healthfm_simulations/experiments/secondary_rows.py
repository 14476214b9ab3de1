"""Rows that a run keeps beside its metrics, as rows a table can name by their subset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from healthfm_core.evaluation import MetricRow


def secondary_rows(folder: Path, task: str) -> list[MetricRow]:
    """Return a run's rows of groups of people and of corrupted wearing, where it has any.

    A group's subset is ``ancestry G1`` or ``sex F``, that of wearing ``wearing removed 0.5`` or
    ``wearing noised 0.5``. Withheld groups have no rows.

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
    return groups + corrupted


def _table(path: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(path).to_pylist()) if path.is_file() else []


def _row(row: dict[str, Any], task: str, subset: str) -> MetricRow:
    value, low, high = (
        float("nan") if row[name] is None else row[name] for name in ("value", "low", "high")
    )
    return MetricRow(row["arm"], task, subset, row["metric"], value, low, high, row["n_subjects"])
