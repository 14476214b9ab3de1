"""Predicted against observed risk at one site, in bins that speak of enough people to be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Int64
from healthfm_core.evaluation.metrics.calibration_error import Reliability, quantile_bin
from healthfm_core.evaluation.predictions import Predictions

BINS: Final = 10


@dataclass(frozen=True)
class RiskBin:
    """Predictions of like risk.

    Attributes:
        predicted: Their mean.
        observed: The share of them that happened.
        rows: How many they are.
    """

    predicted: float
    observed: float
    rows: int


def risk_bins(predictions: Predictions, k: int) -> tuple[RiskBin, ...]:
    """Return the deciles of predicted risk, the lowest first, of at least `k` people each.

    A decile in which fewer than `k` people have the outcome, or fewer than `k` have it not, is put
    together with the next higher ones until both are that many; what is left of the highest goes
    to the bin before. None where all rows together are too few: an observed share would else tell
    a count of people below `k`.
    """
    if not len(predictions):
        return ()
    index = quantile_bin(predictions.score, BINS)
    found: list[Bool] = []
    open_ = np.zeros(len(index), np.bool_)
    for number in range(int(index.max()) + 1):
        open_ = open_ | (index == number)
        if is_enough(predictions, open_, k):
            found.append(open_)
            open_ = np.zeros(len(index), np.bool_)
    if found and open_.any():
        found[-1] = found[-1] | open_
    return tuple(_bin(predictions, rows) for rows in found)


def reliability_of(bins: tuple[RiskBin, ...]) -> Reliability:
    """Return bins as the reliability diagram reads them."""
    return Reliability(
        count=np.array([one.rows for one in bins], np.int64),
        predicted=np.array([one.predicted for one in bins], np.float64),
        observed=np.array([one.observed for one in bins], np.float64),
    )


def is_enough(predictions: Predictions, rows: Bool, k: int) -> bool:
    """Whether `k` people or more have the outcome in these rows [n], and as many have it not."""
    with_it, without = rows & predictions.outcome, rows & ~predictions.outcome
    return min(_people(predictions.subject[with_it]), _people(predictions.subject[without])) >= k


def _people(subject: Int64) -> int:
    return len(np.unique(subject))


def _bin(predictions: Predictions, rows: Bool) -> RiskBin:
    predicted = float(predictions.score[rows].mean(dtype=np.float64))
    return RiskBin(predicted, float(predictions.outcome[rows].mean()), int(rows.sum()))
