"""Discrimination and accuracy of risk scores, exact, ties counted as ties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float64, Floats, Int64
from healthfm_core.evaluation.predictions import Predictions

MIN_POSITIVES_MACRO = 10
"""A target with fewer positives is left out of a macro average."""


def thresholds(score: Floats, outcome: Bool) -> tuple[Float64, Float64]:
    """Return positives and negatives at each distinct score, ascending."""
    order = np.argsort(score, kind="stable")
    sorted_score, sorted_outcome = score[order], outcome[order]
    begin = np.flatnonzero(np.r_[True, sorted_score[1:] != sorted_score[:-1]][: len(score)])
    if len(begin) == 0:
        return np.zeros(0), np.zeros(0)
    positives = np.add.reduceat(sorted_outcome.astype(np.float64), begin)
    counts = np.diff(np.r_[begin, len(score)])
    return positives, counts - positives


def auroc_of_counts(positives: Float64, negatives: Float64) -> Float64:
    """AUROC [...] from counts [..., bins] at ascending scores; NaN where a class is missing."""
    below = np.cumsum(negatives, axis=-1) - 0.5 * negatives
    pairs = positives.sum(-1) * negatives.sum(-1)
    won = (positives * below).sum(-1)
    return np.asarray(np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0))


def average_precision_of_counts(positives: Float64, negatives: Float64) -> Float64:
    """Average precision [...] from counts [..., bins] at ascending scores; NaN without positives.

    The sum over thresholds of precision times the recall gained there, without interpolation.
    """
    hits = np.cumsum(positives[..., ::-1], axis=-1)
    flagged = hits + np.cumsum(negatives[..., ::-1], axis=-1)
    precision = np.divide(hits, flagged, out=np.zeros_like(hits), where=flagged > 0)
    total = hits[..., -1] if hits.shape[-1] else np.zeros(hits.shape[:-1])
    summed = (precision * positives[..., ::-1]).sum(-1)
    return np.asarray(np.divide(summed, total, out=np.full_like(summed, np.nan), where=total > 0))


def auroc(score: Floats, outcome: Bool) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN without both."""
    return float(auroc_of_counts(*thresholds(score, outcome)))


def average_precision(score: Floats, outcome: Bool) -> float:
    """Area under the precision-recall steps; NaN without a positive."""
    return float(average_precision_of_counts(*thresholds(score, outcome)))


def brier(score: Floats, outcome: Bool) -> float:
    """Mean squared error of the probabilities; NaN without rows."""
    if len(score) == 0:
        return float("nan")
    return float(np.mean((score.astype(np.float64) - outcome) ** 2))


@dataclass(frozen=True)
class RankMetric:
    """A metric of ranks, exactly from scores and from counts at ascending scores."""

    exact: Callable[[Floats, Bool], float]
    of_counts: Callable[[Float64, Float64], Float64]


RANK_METRICS: Final = MappingProxyType(
    {
        "auroc": RankMetric(auroc, auroc_of_counts),
        "average_precision": RankMetric(average_precision, average_precision_of_counts),
    }
)


def macro_targets(predictions: Predictions) -> Int64:
    """Targets with at least `MIN_POSITIVES_MACRO` positives and a negative."""
    rows = np.bincount(predictions.target)
    positives = np.bincount(predictions.target, weights=predictions.outcome, minlength=len(rows))
    return np.flatnonzero((positives >= MIN_POSITIVES_MACRO) & (positives < rows))


def macro(predictions: Predictions, metric: str) -> float:
    """Mean over targets of ``auroc`` or ``average_precision``; NaN where no target qualifies."""
    parts = [predictions.where(predictions.target == t) for t in macro_targets(predictions)]
    values = [RANK_METRICS[metric].exact(part.score, part.outcome) for part in parts]
    return float(np.mean(values)) if values else float("nan")
