"""Means over seeds with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from healthfm_core.evaluation import MetricRow


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, lower and upper end of the 95 % t interval; a single value has no interval."""
    from scipy.stats import t

    array = np.asarray(values, np.float64)
    mean, n = float(array.mean()), len(array)
    if n < 2:
        return mean, float("nan"), float("nan")
    half = float(t.ppf(0.975, n - 1) * array.std(ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def over_seeds(tables: Sequence[Sequence[MetricRow]]) -> list[MetricRow]:
    """Return the mean over replicates with a 95 % t interval over the seeds.

    `n_subjects` is the mean too: of a seed, whose people may be another's again.
    """
    if len(tables) == 1:
        return list(tables[0])
    wanted = {(row.arm, row.task, row.subset, row.metric) for row in tables[0]}
    grouped: dict[tuple[str, str, str, str], list[MetricRow]] = {}
    for table in tables:
        for row in table:
            grouped.setdefault((row.arm, row.task, row.subset, row.metric), []).append(row)
    return [
        MetricRow(*key, *t_interval([r.value for r in same]), _mean_size(same))
        for key, same in grouped.items()
        if key in wanted and len(same) == len(tables)
    ]


def _mean_size(rows: Sequence[MetricRow]) -> int:
    return round(sum(row.n_subjects for row in rows) / len(rows))
