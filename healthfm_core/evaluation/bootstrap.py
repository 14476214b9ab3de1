"""Intervals by drawing subjects again, a thousand times, in one matrix product.

A bootstrap draws whole subjects with replacement, so each replicate is a vector of how often every
subject was drawn. Every metric here is a function of sums over subjects: of positives and negatives
per bin of the score (AUROC, average precision), of squared errors, of calibration bins, of the
gradient and curvature of the recalibration. All replicates are then ``draws @ sums``.

Scores are binned by rank, finely at the top, where average precision is decided; with at most
`BINS` different scores the bins are exact. The point estimate never is binned: what binning moves
is taken off every replicate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from healthfm_core.evaluation import calibration, metrics
from healthfm_core.evaluation.predictions import Predictions

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

BINS: Final = 768
MACRO_BINS: Final = 64
CHUNK: Final = 1 << 24
"""Cells of a (subjects × bins) table held at once."""


@dataclass(frozen=True)
class Draws:
    """R draws of S subjects with replacement.

    Attributes:
        subjects: [S] int64, ascending.
        weight: [R, S] float32, how often each was drawn; a row adds up to S.
    """

    subjects: Int64
    weight: Float32

    def index(self, subject: Int64) -> Int64:
        """Return the position of each subject [n] among those drawn from.

        Raises:
            ValueError: if one of them was not drawn from.
        """
        position = np.searchsorted(self.subjects, subject)
        position = np.minimum(position, len(self.subjects) - 1)
        if not np.array_equal(self.subjects[position], subject):
            raise ValueError("predictions hold a subject the bootstrap did not draw from")
        return np.asarray(position, np.int64)


def draw_subjects(subject: Int64, replicates: int, rng: np.random.Generator) -> Draws:
    """Draw the different subjects in `subject` again, `replicates` times."""
    subjects = np.unique(subject)
    size = len(subjects)
    weight = np.zeros((replicates, size), np.float32)
    for row in weight:
        row += np.bincount(rng.integers(0, size, size), minlength=size) if size else 0.0
    return Draws(subjects, weight)


@dataclass(frozen=True)
class Estimate:
    """A value and its bootstrap replicates [R]."""

    value: float
    replicates: Float64

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Percentile interval; NaN where no replicate is defined."""
        known = self.replicates[np.isfinite(self.replicates)]
        if not np.isfinite(self.value) or len(known) == 0:
            return float("nan"), float("nan")
        tail = 50.0 * (1.0 - level)
        low, high = np.percentile(known, [tail, 100.0 - tail])
        return float(low), float(high)

    def __sub__(self, other: Estimate) -> Estimate:
        """Paired difference: both must come from the same draws."""
        return Estimate(self.value - other.value, self.replicates - other.replicates)


def estimate(metric: str, predictions: Predictions, draws: Draws) -> Estimate:
    """Return `metric` of the predictions with its replicates.

    Args:
        metric: A key of `METRICS`.
        predictions: Rows of subjects among those drawn from.
        draws: The draws; the same ones for arms that will be compared.
    """
    if len(predictions) == 0:
        return Estimate(float("nan"), np.full(len(draws.weight), np.nan))
    return METRICS[metric](predictions, draws)


def rank_bins(score: npt.NDArray[np.floating], bins: int) -> Int64:
    """Return each score's bin [n], ascending, ties together, fine at the top and even below."""
    distinct, place = np.unique(score, return_inverse=True)
    if len(distinct) <= bins:
        return np.asarray(place, np.int64)
    n, half = len(score), bins // 2
    ranks = np.concatenate([np.geomspace(1, n, half), np.linspace(1, n, half)])
    edges = np.unique(np.sort(score)[n - np.unique(ranks.astype(np.int64))])
    return np.asarray(np.searchsorted(edges, score, side="right"), np.int64)


def _per_draw(index: Int64, cell: Int64, cells: int, value: Float64, draws: Draws) -> Float64:
    """Sum `value` [n] per replicate and cell [R, cells], a slice of subjects at a time."""
    result = np.zeros((len(draws.weight), cells))
    step = max(1, CHUNK // max(cells, 1))
    order = np.argsort(index, kind="stable")
    index, cell, value = index[order], cell[order], value[order]
    for first in range(0, len(draws.subjects), step):
        last = min(first + step, len(draws.subjects))
        a, b = np.searchsorted(index, [first, last])
        flat = (index[a:b] - first) * cells + cell[a:b]
        table = np.bincount(flat, weights=value[a:b], minlength=(last - first) * cells)
        sums = table.reshape(last - first, cells).astype(np.float32)
        result += draws.weight[:, first:last] @ sums
    return result


def _ranked(
    exact: Callable[[npt.NDArray[np.floating], npt.NDArray[np.bool_]], float],
    of_counts: Callable[[Float64, Float64], Float64],
    bins: int = BINS,
) -> Callable[[Predictions, Draws], Estimate]:
    def run(predictions: Predictions, draws: Draws) -> Estimate:
        cell = rank_bins(predictions.score, bins)
        cells = int(cell.max()) + 1
        index, outcome = draws.index(predictions.subject), predictions.outcome
        positives = _per_draw(index[outcome], cell[outcome], cells, np.ones(outcome.sum()), draws)
        rest = ~outcome
        negatives = _per_draw(index[rest], cell[rest], cells, np.ones(rest.sum()), draws)
        value = exact(predictions.score, outcome)
        binned = of_counts(
            np.bincount(cell[outcome], minlength=cells).astype(np.float64),
            np.bincount(cell[rest], minlength=cells).astype(np.float64),
        )
        return Estimate(value, of_counts(positives, negatives) + (value - float(binned)))

    return run


def _macro(metric: str) -> Callable[[Predictions, Draws], Estimate]:
    of_counts = {
        "auroc": metrics.auroc_of_counts,
        "average_precision": metrics.average_precision_of_counts,
    }[metric]
    exact = {"auroc": metrics.auroc, "average_precision": metrics.average_precision}[metric]
    one = _ranked(exact, of_counts, MACRO_BINS)

    def run(predictions: Predictions, draws: Draws) -> Estimate:
        targets = metrics.macro_targets(predictions)
        parts = [one(predictions.where(predictions.target == t), draws) for t in targets]
        if not parts:
            return Estimate(float("nan"), np.full(len(draws.weight), np.nan))
        stacked = np.stack([part.replicates for part in parts])
        known = np.isfinite(stacked)
        total = np.where(known, stacked, 0.0).sum(0)
        mean = np.divide(total, known.sum(0), out=np.full_like(total, np.nan), where=known.any(0))
        return Estimate(float(np.mean([part.value for part in parts])), mean)

    return run


def _brier(predictions: Predictions, draws: Draws) -> Estimate:
    error = (predictions.score.astype(np.float64) - predictions.outcome) ** 2
    index, zero = draws.index(predictions.subject), np.zeros(len(error), np.int64)
    rows = _per_draw(index, zero, 1, np.ones(len(error)), draws)[:, 0]
    total = _per_draw(index, zero, 1, error, draws)[:, 0]
    mean = np.divide(total, rows, out=np.full_like(total, np.nan), where=rows > 0)
    return Estimate(metrics.brier(predictions.score, predictions.outcome), mean)


def _calibration_error(
    exact: Callable[[npt.NDArray[np.floating], npt.NDArray[np.bool_]], float],
    bin_of: Callable[[npt.NDArray[np.floating]], Int64],
    error: Callable[[Float64, Float64, Float64], Float64],
) -> Callable[[Predictions, Draws], Estimate]:
    """Replicates of a calibration error are shifted to have the point estimate as their mean.

    The mean of |noise| is positive: unshifted, they would lie above a good model's own value.
    """

    def run(predictions: Predictions, draws: Draws) -> Estimate:
        cell = bin_of(predictions.score)
        cells = int(cell.max()) + 1
        index = draws.index(predictions.subject)
        sums = [
            _per_draw(index, cell, cells, value.astype(np.float64), draws)
            for value in (np.ones(len(cell)), predictions.score, predictions.outcome)
        ]
        replicates = error(sums[0], sums[1], sums[2])
        value = exact(predictions.score, predictions.outcome)
        return Estimate(value, np.maximum(replicates - replicates.mean() + value, 0.0))

    return run


def _recalibration(which: str) -> Callable[[Predictions, Draws], Estimate]:
    """One Newton step per replicate from the fit to everybody."""

    def run(predictions: Predictions, draws: Draws) -> Estimate:
        score, outcome = predictions.score, predictions.outcome
        free = which == "slope"
        intercept, slope = (
            calibration.recalibrate(score, outcome)
            if free
            else (calibration.calibration_in_the_large(score, outcome), 1.0)
        )
        value = slope if free else intercept
        if not np.isfinite(value):
            return Estimate(value, np.full(len(draws.weight), np.nan))
        x = calibration.logit(score)
        p = 1.0 / (1.0 + np.exp(-(intercept + slope * x)))
        index, zero = draws.index(predictions.subject), np.zeros(len(x), np.int64)
        weight, error = p * (1.0 - p), outcome - p
        columns = (weight, weight * x, weight * x * x, error, error * x)
        a, b, c, g, h = (_per_draw(index, zero, 1, column, draws)[:, 0] for column in columns)
        step = (
            (a * h - b * g) / np.maximum(a * c - b * b, 1e-12) if free else g / np.maximum(a, 1e-12)
        )
        return Estimate(value, value + step)

    return run


METRICS: Final[Mapping[str, Callable[[Predictions, Draws], Estimate]]] = MappingProxyType(
    {
        "auroc": _ranked(metrics.auroc, metrics.auroc_of_counts),
        "average_precision": _ranked(
            metrics.average_precision, metrics.average_precision_of_counts
        ),
        "macro_auroc": _macro("auroc"),
        "macro_average_precision": _macro("average_precision"),
        "brier": _brier,
        "ece": _calibration_error(
            calibration.ece,
            lambda score: calibration.quantile_bin(score, calibration.QUANTILE_BINS),
            calibration.weighted_error,
        ),
        "ece_uniform": _calibration_error(
            calibration.ece_uniform,
            lambda score: calibration.uniform_bin(score, calibration.UNIFORM_BINS),
            calibration.unweighted_error,
        ),
        "slope": _recalibration("slope"),
        "intercept": _recalibration("intercept"),
    }
)
"""Every metric of the tables: its exact value and its replicates."""
