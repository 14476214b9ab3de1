"""Whether a predicted 10 % happens in one of ten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float64, Floats, Int64

QUANTILE_BINS: Final = 15
UNIFORM_BINS: Final = 10
EDGE: Final = 1e-6
"""Probabilities are clipped to [EDGE, 1 - EDGE] before their logit is taken."""
HIGH_RISK: Final = 0.2
"""Predictions above it are judged once more by themselves: those that a clinic would act on."""


def quantile_bin(score: Floats, bins: int) -> Int64:
    """Return each score's bin [n]: equal counts but for ties, which stay together."""
    if len(score) == 0:
        return np.zeros(0, np.int64)
    edges = np.quantile(score, np.arange(1, bins) / bins)
    return np.searchsorted(edges, score, side="left").astype(np.int64)


def uniform_bin(score: Floats, bins: int) -> Int64:
    """Return each score's bin [n] among `bins` equal stretches of [0, 1]."""
    return np.clip((score * bins).astype(np.int64), 0, bins - 1)


def ece(score: Floats, outcome: Bool) -> float:
    """Expected calibration error: |observed − predicted| over 15 quantile bins, by their counts."""
    return float(weighted_error(*bin_sums(quantile_bin(score, QUANTILE_BINS), score, outcome)))


def ece_uniform(score: Floats, outcome: Bool) -> float:
    """Plain mean of |observed − predicted| over the non-empty of 10 uniform bins.

    What the meds-evaluation package calls ``calibration_error``. Bins with a handful of rows count
    as much as the one with nearly all, so it is large for rare outcomes however good the model.
    """
    return float(unweighted_error(*bin_sums(uniform_bin(score, UNIFORM_BINS), score, outcome)))


def bin_sums(index: Int64, score: Floats, outcome: Bool) -> tuple[Float64, Float64, Float64]:
    """Return count, summed score and summed outcome per bin."""
    size = int(index.max(initial=-1)) + 1
    return (
        np.bincount(index, minlength=size).astype(np.float64),
        np.bincount(index, weights=score, minlength=size).astype(np.float64),
        np.bincount(index, weights=outcome, minlength=size).astype(np.float64),
    )


def weighted_error(count: Float64, score: Float64, outcome: Float64) -> Float64:
    """ECE [...] from sums [..., bins], bins weighted by their counts; NaN without rows."""
    total = count.sum(-1)
    gap = np.abs(score - outcome).sum(-1)
    return np.asarray(np.divide(gap, total, out=np.full_like(gap, np.nan), where=total > 0))


def unweighted_error(count: Float64, score: Float64, outcome: Float64) -> Float64:
    """Mean over non-empty bins [..., bins] of |observed − predicted|; NaN without rows."""
    filled = count > 0
    gap = np.divide(np.abs(score - outcome), count, out=np.zeros_like(score), where=filled).sum(-1)
    bins = filled.sum(-1)
    return np.asarray(np.divide(gap, bins, out=np.full_like(gap, np.nan), where=bins > 0))


def logit(score: Floats) -> Float64:
    """Log odds of the clipped probability."""
    clipped = np.clip(score.astype(np.float64), EDGE, 1.0 - EDGE)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def recalibrate(score: Floats, outcome: Bool) -> tuple[float, float]:
    """Fit logit P(outcome) = intercept + slope · logit(score) by Newton's method.

    Returns:
        (intercept, slope): (0, 1) when calibrated; slope < 1 for an overconfident model. NaN where
        a class is missing, or the score is constant, or separates the classes.
    """
    return fit_logistic(logit(score), outcome)


def fit_logistic(x: Float64, outcome: Bool) -> tuple[float, float]:
    """Fit logit P(outcome) = intercept + slope · x, without a penalty.

    Returns:
        (intercept, slope): NaN where a class is missing, or x is constant, or separates them.
    """
    return _newton(x, outcome, free_slope=True)


def calibration_in_the_large(score: Floats, outcome: Bool) -> float:
    """Shift of the log odds that makes the mean prediction right; 0 when it is already."""
    return _newton(logit(score), outcome, free_slope=False)[0]


def _newton(x: Float64, outcome: Bool, *, free_slope: bool) -> tuple[float, float]:
    nothing = (float("nan"), float("nan"))
    flat = free_slope and np.ptp(x) < 1e-9 if len(x) else True
    if flat or outcome.all() or not outcome.any():
        return nothing
    intercept, slope = 0.0, 1.0
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(intercept + slope * x, -40, 40)))
        error, weight = outcome - p, p * (1.0 - p)
        a, b, c = weight.sum(), (weight * x).sum(), (weight * x * x).sum()
        g, h = error.sum(), (error * x).sum()
        determinant = a * c - b * b if free_slope else a
        if not determinant > 1e-12:
            return nothing
        up = (c * g - b * h) / determinant if free_slope else g / a
        tilt = (a * h - b * g) / determinant if free_slope else 0.0
        scale = min(1.0, 2.0 / max(abs(up), abs(tilt), 1e-12))
        intercept, slope = intercept + scale * up, slope + scale * tilt
        if max(abs(up), abs(tilt)) < 1e-9:
            return float(intercept), float(slope)
    return nothing


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed in bins of predicted risk.

    Attributes:
        count: [bins] rows.
        predicted: [bins] mean score.
        observed: [bins] share of outcomes.
    """

    count: Int64
    predicted: Float64
    observed: Float64

    @property
    def observed_over_expected(self) -> Float64:
        """O/E [bins]: 1 when calibrated, 2 when it happens twice as often as predicted."""
        return np.asarray(self.observed / np.maximum(self.predicted, 1e-12))


def reliability(score: Floats, outcome: Bool, bins: int = 10) -> Reliability:
    """Return the non-empty quantile bins (deciles by default) in ascending order of risk."""
    count, predicted, observed = bin_sums(quantile_bin(score, bins), score, outcome)
    filled = count > 0
    n = count[filled]
    return Reliability(n.astype(np.int64), predicted[filled] / n, observed[filled] / n)
