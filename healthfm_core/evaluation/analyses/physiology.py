"""How much of a measured quantity a frozen state holds: a ridge probe, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from healthfm_core.arrays import Float64, Integers
from healthfm_core.evaluation.analyses.probes import standardise
from healthfm_core.evaluation.metrics.bootstrap import Draws, Estimate, draw_subjects
from healthfm_core.evaluation.metrics.metric_rows import MetricRow, rows_of_estimates

PENALTIES: Final = tuple(10.0**power for power in range(-3, 7))
"""Weights of the L2 penalty that are tried, on standardised states."""


@dataclass(frozen=True)
class QuantityData:
    """n frozen states and a quantity measured then: resting heart rate, sleep efficiency, …

    Attributes:
        x: [n, d] states.
        value: [n]; a row where it is not a finite number is left out.
        subject: [n] int64, whom to resample together.
    """

    x: Float[np.ndarray, "n d"]
    value: Float[np.ndarray, " n"]
    subject: Int[np.ndarray, " n"]

    def known(self) -> QuantityData:
        """Return the rows that were measured."""
        keep = np.isfinite(self.value)
        return QuantityData(self.x[keep], self.value[keep], self.subject[keep])


def ridge_probe(
    train: QuantityData,
    tuning: QuantityData,
    test: QuantityData,
    *,
    arm: str,
    target: str,
    bootstraps: int,
    rng: np.random.Generator,
    penalties: Sequence[float] = PENALTIES,
) -> list[MetricRow]:
    """Return two rows, ``rmse`` on the standardised target and ``r2``.

    The target is standardised by its training mean and spread, so an RMSE of 1 is what saying the
    training mean gives. R² is 1 − squared error / squared distance to the test rows' own mean.

    Args:
        train: Rows the regression is fitted to; at least two values that differ, else no rows.
        tuning: Rows the penalty is chosen on, by squared error.
        test: Rows it is scored on.
        arm: Named in the rows.
        target: The quantity; the rows' task.
        bootstraps: Number of replicates over the test subjects.
        rng: Where the draws come from; the same for arms that are to be compared.
        penalties: Weights to try.
    """
    train, tuning, test = train.known(), tuning.known(), test.known()
    if not (len(train.value) and len(tuning.value) and len(test.value) and np.ptp(train.value) > 0):
        return []
    centre, spread = train.value.mean(), train.value.std()
    y, seen, asked = ((p.value - centre) / spread for p in (train, tuning, test))
    fits = _fits([part.x.astype(np.float64) for part in (train, tuning, test)], y, penalties)
    said = fits[int(np.argmin([np.mean((of - seen) ** 2) for of, _ in fits]))][1]
    draws = draw_subjects(test.subject, bootstraps, rng)
    scores = _scores(asked.astype(np.float64), said, test.subject, draws)
    people = dict.fromkeys(scores, len(draws.subjects))
    return rows_of_estimates(arm, target, "overall", scores, people)


def _fits(
    parts: Sequence[Float64], y: Float64, penalties: Sequence[float]
) -> list[tuple[Float64, Float64]]:
    """Predictions of (tuning, test) under each penalty, the strongest first: one decomposition."""
    train, tuning, test = standardise(*parts)
    left, size, right = np.linalg.svd(train, full_matrices=False)
    along = left.T @ y
    slopes = [right.T @ (along * size / (size**2 + p)) for p in sorted(penalties, reverse=True)]
    return [(tuning @ slope, test @ slope) for slope in slopes]


def _scores(y: Float64, said: Float64, subject: Integers, draws: Draws) -> dict[str, Estimate]:
    """RMSE and R² with their replicates, from sums over subjects."""
    index = draws.index(subject.astype(np.int64))
    columns = (np.ones_like(y), y, y**2, (y - said) ** 2)
    cell = np.repeat(np.arange(len(columns)), len(y))
    tiled = np.tile(index, len(columns))
    drawn = draws.sums(tiled, cell, len(columns), np.concatenate(columns)).T
    everybody = np.array([[column.sum()] for column in columns])
    (rmse, r2), (rmses, r2s) = _of_sums(everybody), _of_sums(drawn)
    return {"rmse": Estimate(rmse.item(), rmses), "r2": Estimate(r2.item(), r2s)}


def _of_sums(sums: Float64) -> tuple[Float64, Float64]:
    """RMSE and R² [R] from count, Σy, Σy² and Σ error² [4, R]; NaN where they are not defined."""
    rows, total, square, error = sums
    rows = np.where(rows > 0, rows, np.nan)
    around = square - total**2 / rows
    return np.sqrt(error / rows), 1.0 - error / np.where(around > 1e-12 * rows, around, np.nan)
