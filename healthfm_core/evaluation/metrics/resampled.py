"""Predictions with their bootstrap draws, and the sums that the metrics are made of.

Scores are binned by rank, finely at the top, where average precision is decided; with at most
`BINS` different scores the bins are exact. The point estimate never is binned: what binning moves
is taken off every replicate.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np

from healthfm_core.arrays import Float64, Floats, Int64
from healthfm_core.evaluation.metrics.bootstrap import Draws, Estimate, mean_estimate
from healthfm_core.evaluation.metrics.calibration_error import HIGH_RISK
from healthfm_core.evaluation.metrics.ranking import RANK_METRICS, macro_targets
from healthfm_core.evaluation.predictions import Predictions

BINS: Final = 768
MACRO_BINS: Final = 64
TARGETS_AT_ONCE: Final = 32


def rank_bins(score: Floats, bins: int) -> Int64:
    """Return each score's bin [n], ascending, ties together, fine at the top and even below."""
    distinct, place = np.unique(score, return_inverse=True)
    if len(distinct) <= bins:
        return np.asarray(place, np.int64)
    n, half = len(score), bins // 2
    ranks = np.concatenate([np.geomspace(1, n, half), np.linspace(1, n, half)])
    edges = np.unique(np.sort(score)[n - np.unique(ranks.astype(np.int64))])
    return np.asarray(np.searchsorted(edges, score, side="right"), np.int64)


class Resampled:
    """Predictions and draws, with the sums that several metrics share.

    Args:
        predictions: At least one row, of subjects among those drawn from.
        draws: The draws; the same ones for arms that will be compared.
    """

    def __init__(self, predictions: Predictions, draws: Draws) -> None:
        self.predictions = predictions
        self.draws = draws
        self.index = draws.index(predictions.subject)

    @cached_property
    def counts(self) -> tuple[Float64, Float64, Float64, Float64]:
        """Positives and negatives per replicate [R, bins], and those of everybody [bins]."""
        return self._split(rank_bins(self.predictions.score, BINS), np.arange(len(self.index)))

    def _split(self, cell: Int64, rows: Int64) -> tuple[Float64, Float64, Float64, Float64]:
        outcome, cells = self.predictions.outcome[rows], int(cell.max()) + 1
        index = self.index[rows]
        positives = self.draws.sums(index[outcome], cell[outcome], cells)
        negatives = self.draws.sums(index[~outcome], cell[~outcome], cells)
        everybody = np.bincount(cell, minlength=cells).astype(np.float64)
        cases = np.bincount(cell[outcome], minlength=cells).astype(np.float64)
        return positives, negatives, cases, everybody - cases

    @cached_property
    def above(self) -> Resampled | None:
        """The rows predicted above `HIGH_RISK`, with the same draws; None if there are none."""
        high = self.predictions.where(self.predictions.score > HIGH_RISK)
        return Resampled(high, self.draws) if len(high) else None

    @cached_property
    def macro(self) -> dict[str, Estimate]:
        """Mean over the targets of both rank metrics."""
        by_name: dict[str, list[Estimate]] = {name: [] for name in RANK_METRICS}
        targets = macro_targets(self.predictions)
        for first in range(0, len(targets), TARGETS_AT_ONCE):
            for name, estimates in self._by_target(targets[first : first + TARGETS_AT_ONCE]):
                by_name[name] += estimates
        return {name: mean_estimate(estimates, self.draws) for name, estimates in by_name.items()}

    def _by_target(self, targets: Int64) -> list[tuple[str, list[Estimate]]]:
        """Estimates of both rank metrics for a few targets, from one matrix product."""
        of = self.predictions
        rows = [np.flatnonzero(of.target == target) for target in targets]
        bins = [rank_bins(of.score[row], MACRO_BINS) for row in rows]
        width = max(int(own.max()) for own in bins) + 1
        cell = np.concatenate([own + width * i for i, own in enumerate(bins)])
        counts = self._padded(cell, np.concatenate(rows), len(targets), width)
        result = []
        for name, metric in RANK_METRICS.items():
            replicates = metric.of_counts(counts[0], counts[1])
            binned = metric.of_counts(counts[2], counts[3])
            values = [metric.exact(of.score[row], of.outcome[row]) for row in rows]
            estimates = [
                Estimate(v, replicates[:, i] + v - binned[i]) for i, v in enumerate(values)
            ]
            result.append((name, estimates))
        return result

    def _padded(self, cell: Int64, rows: Int64, targets: int, width: int) -> tuple[Float64, ...]:
        """Counts with their last axis split into (targets, width)."""
        counts = self._split(cell, rows)
        room = targets * width - counts[2].shape[-1]
        return tuple(
            np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, room)]).reshape(
                *part.shape[:-1], targets, width
            )
            for part in counts
        )

    def undefined(self, value: float = float("nan")) -> Estimate:
        """An estimate without replicates."""
        return Estimate(value, np.full(len(self.draws.weight), np.nan))

    def columns(self, *values: Floats) -> list[Float64]:
        """Sum [R] of each column [n]."""
        n = len(self.index)
        cell = np.repeat(np.arange(len(values)), n)
        index = np.tile(self.index, len(values))
        value = np.concatenate(values).astype(np.float64)
        return list(self.draws.sums(index, cell, len(values), value).T)
