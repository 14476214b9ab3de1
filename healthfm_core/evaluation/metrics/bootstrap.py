"""Drawing subjects again, a thousand times, in one matrix product.

A bootstrap draws whole subjects with replacement, so each replicate is a vector of how often every
subject was drawn. Every metric here is a function of sums over subjects, and the sums of all
replicates are ``draws @ sums of each subject``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Float32, Float64, Int64

CHUNK: Final = 1 << 24
"""Cells of a (subjects × cells) table held at once."""


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

    def sums(self, index: Int64, cell: Int64, cells: int, value: Float64 | None = None) -> Float64:
        """Add up `value` [n] (None: count) per replicate and cell [R, cells].

        Args:
            index: [n] position of each row's subject.
            cell: [n] which sum the row belongs to, 0 … cells - 1.
            cells: How many sums there are.
            value: [n] what is added.
        """
        result = np.zeros((len(self.weight), cells))
        order = np.argsort(index, kind="stable")
        index, cell = index[order], cell[order]
        value = None if value is None else value[order]
        step = max(1, CHUNK // max(cells, 1))
        for first in range(0, len(self.subjects), step):
            last = min(first + step, len(self.subjects))
            a, b = np.searchsorted(index, [first, last])
            flat = (index[a:b] - first) * cells + cell[a:b]
            part = None if value is None else value[a:b]
            table = np.bincount(flat, weights=part, minlength=(last - first) * cells)
            block = table.reshape(last - first, cells).astype(np.float32)
            result += self.weight[:, first:last] @ block
        return result


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


def mean_estimate(estimates: Sequence[Estimate], draws: Draws) -> Estimate:
    """Mean of several estimates from the same draws, each replicate over those defined in it."""
    if not estimates:
        return Estimate(float("nan"), np.full(len(draws.weight), np.nan))
    stacked = np.stack([estimate.replicates for estimate in estimates])
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0.0).sum(0)
    mean = np.divide(total, known.sum(0), out=np.full_like(total, np.nan), where=known.any(0))
    values = np.array([estimate.value for estimate in estimates])
    values = values[np.isfinite(values)]
    return Estimate(float(values.mean()) if len(values) else float("nan"), mean)
