"""Every metric of the tables with its bootstrap replicates.

Scores are binned by rank, finely at the top, where average precision is decided; with at most
`BINS` different scores the bins are exact. The point estimate never is binned: what binning moves
is taken off every replicate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float64, Floats, Int64
from healthfm_core.evaluation.metrics import calibration_error, ranking
from healthfm_core.evaluation.metrics.bootstrap import Draws, Estimate, mean_estimate
from healthfm_core.evaluation.predictions import Predictions

OfCounts = Callable[[Float64, Float64], Float64]

BINS: Final = 768
MACRO_BINS: Final = 64
TARGETS_AT_ONCE: Final = 32
_EXACT: Final = MappingProxyType(
    {"auroc": ranking.auroc, "average_precision": ranking.average_precision}
)
_OF_COUNTS: Final[Mapping[str, OfCounts]] = MappingProxyType(
    {
        "auroc": ranking.auroc_of_counts,
        "average_precision": ranking.average_precision_of_counts,
    }
)


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
        found = self.predictions.where(self.predictions.score > calibration_error.HIGH_RISK)
        return Resampled(found, self.draws) if len(found) else None

    @cached_property
    def macro(self) -> dict[str, Estimate]:
        """Mean over the targets of both rank metrics."""
        found: dict[str, list[Estimate]] = {name: [] for name in _OF_COUNTS}
        targets = ranking.macro_targets(self.predictions)
        for first in range(0, len(targets), TARGETS_AT_ONCE):
            for name, estimates in self._by_target(targets[first : first + TARGETS_AT_ONCE]):
                found[name] += estimates
        return {name: mean_estimate(estimates, self.draws) for name, estimates in found.items()}

    def _by_target(self, targets: Int64) -> list[tuple[str, list[Estimate]]]:
        """Estimates of both rank metrics for a few targets, from one matrix product."""
        of = self.predictions
        rows = [np.flatnonzero(of.target == target) for target in targets]
        bins = [rank_bins(of.score[row], MACRO_BINS) for row in rows]
        width = max(int(found.max()) for found in bins) + 1
        cell = np.concatenate([found + width * i for i, found in enumerate(bins)])
        everything = self._padded(cell, np.concatenate(rows), len(targets), width)
        result = []
        for name, of_counts in _OF_COUNTS.items():
            exact = _EXACT[name]
            replicates = of_counts(everything[0], everything[1])
            binned = of_counts(everything[2], everything[3])
            values = [exact(of.score[row], of.outcome[row]) for row in rows]
            result.append(
                (
                    name,
                    [Estimate(v, replicates[:, i] + v - binned[i]) for i, v in enumerate(values)],
                )
            )
        return result

    def _padded(self, cell: Int64, rows: Int64, targets: int, width: int) -> tuple[Float64, ...]:
        """Counts with their last axis split into (targets, width)."""
        found = self._split(cell, rows)
        room = targets * width - found[2].shape[-1]
        return tuple(
            np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, room)]).reshape(
                *part.shape[:-1], targets, width
            )
            for part in found
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


def _ranked(name: str) -> Callable[[Resampled], Estimate]:
    def run(data: Resampled) -> Estimate:
        positives, negatives, cases, others = data.counts
        value = _EXACT[name](data.predictions.score, data.predictions.outcome)
        of_counts = _OF_COUNTS[name]
        shift = value - float(of_counts(cases, others))
        return Estimate(value, of_counts(positives, negatives) + shift)

    return run


def _brier(data: Resampled) -> Estimate:
    score, outcome = data.predictions.score, data.predictions.outcome
    error = (score.astype(np.float64) - outcome) ** 2
    total, rows = data.columns(error, np.ones(len(error)))
    mean = np.divide(total, rows, out=np.full_like(total, np.nan), where=rows > 0)
    return Estimate(ranking.brier(score, outcome), mean)


def _calibration_error(
    exact: Callable[[Floats, Bool], float],
    bin_of: Callable[[Floats], Int64],
    error: Callable[[Float64, Float64, Float64], Float64],
) -> Callable[[Resampled], Estimate]:
    """Replicates of a calibration error are shifted to have the point estimate as their mean.

    The mean of |noise| is positive: unshifted, they would lie above a good model's own value.
    """

    def run(data: Resampled) -> Estimate:
        score, outcome = data.predictions.score, data.predictions.outcome
        cell = bin_of(score)
        cells = int(cell.max()) + 1
        rows = data.draws.sums(data.index, cell, cells)
        predicted = data.draws.sums(data.index, cell, cells, score.astype(np.float64))
        observed = data.draws.sums(data.index, cell, cells, outcome.astype(np.float64))
        replicates = error(rows, predicted, observed)
        value, known = exact(score, outcome), np.isfinite(replicates)
        centre = replicates[known].mean() if known.any() else value
        return Estimate(value, np.maximum(replicates - centre + value, 0.0))

    return run


def _slope(data: Resampled) -> Estimate:
    """One Newton step per replicate from the fit to everybody."""
    score, outcome = data.predictions.score, data.predictions.outcome
    intercept, slope = calibration_error.recalibrate(score, outcome)
    if not np.isfinite(slope):
        return data.undefined(slope)
    x = calibration_error.logit(score)
    p = 1.0 / (1.0 + np.exp(-(intercept + slope * x)))
    w, error = p * (1.0 - p), outcome - p
    a, b, c, g, h = data.columns(w, w * x, w * x * x, error, error * x)
    return Estimate(slope, slope + (a * h - b * g) / np.maximum(a * c - b * b, 1e-12))


def _intercept(data: Resampled) -> Estimate:
    """One Newton step per replicate from the fit to everybody."""
    score, outcome = data.predictions.score, data.predictions.outcome
    intercept = calibration_error.calibration_in_the_large(score, outcome)
    if not np.isfinite(intercept):
        return data.undefined(intercept)
    p = 1.0 / (1.0 + np.exp(-(intercept + calibration_error.logit(score))))
    w, error = data.columns(p * (1.0 - p), outcome - p)
    return Estimate(intercept, intercept + error / np.maximum(w, 1e-12))


def _rows_above(data: Resampled) -> Estimate:
    """How many rows are predicted above `calibration_error.HIGH_RISK`."""
    if data.above is None:
        return Estimate(0.0, np.zeros(len(data.draws.weight)))
    (rows,) = data.above.columns(np.ones(len(data.above.index)))
    return Estimate(float(len(data.above.index)), rows)


def _people_above(data: Resampled) -> Estimate:
    """How many subjects have such a row."""
    if data.above is None:
        return Estimate(0.0, np.zeros(len(data.draws.weight)))
    found = np.unique(data.above.index)
    return Estimate(float(len(found)), data.draws.weight[:, found].sum(1).astype(np.float64))


def _above(of: Callable[[Resampled], Estimate]) -> Callable[[Resampled], Estimate]:
    """The same metric among rows predicted above `calibration_error.HIGH_RISK`."""
    return lambda data: data.undefined() if data.above is None else of(data.above)


_ece: Final = _calibration_error(
    calibration_error.ece,
    lambda score: calibration_error.quantile_bin(score, calibration_error.QUANTILE_BINS),
    calibration_error.weighted_error,
)

METRICS: Final[Mapping[str, Callable[[Resampled], Estimate]]] = MappingProxyType(
    {
        "auroc": _ranked("auroc"),
        "average_precision": _ranked("average_precision"),
        "macro_auroc": lambda data: data.macro["auroc"],
        "macro_average_precision": lambda data: data.macro["average_precision"],
        "brier": _brier,
        "ece": _ece,
        "ece_uniform": _calibration_error(
            calibration_error.ece_uniform,
            lambda score: calibration_error.uniform_bin(score, calibration_error.UNIFORM_BINS),
            calibration_error.unweighted_error,
        ),
        "slope": _slope,
        "intercept": _intercept,
        "rows_above_20": _rows_above,
        "people_above_20": _people_above,
        "ece_above_20": _above(_ece),
        "slope_above_20": _above(_slope),
        "intercept_above_20": _above(_intercept),
    }
)
"""Every metric of the tables: its exact value and its replicates."""


def estimate(metric: str, predictions: Predictions, draws: Draws) -> Estimate:
    """Return one metric of the predictions with its replicates."""
    return estimates([metric], predictions, draws)[metric]


def estimates(
    names: list[str] | tuple[str, ...], predictions: Predictions, draws: Draws
) -> dict[str, Estimate]:
    """Return metrics of the predictions with their replicates.

    Args:
        names: Keys of `METRICS`.
        predictions: Rows of subjects among those drawn from; none gives NaN.
        draws: The draws; the same ones for arms that will be compared.
    """
    if len(predictions) == 0:
        nothing = Estimate(float("nan"), np.full(len(draws.weight), np.nan))
        return dict.fromkeys(names, nothing)
    data = Resampled(predictions, draws)
    return {name: METRICS[name](data) for name in names}
