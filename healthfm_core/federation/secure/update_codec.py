"""A round's reply as arrays of a ring, and the sum of such replies as means.

Every site fills the same two arrays. ``update`` holds w·Δ of every group in turn, zeros where the
site lacks the modality; ``counts``, in the ring of 64 bits, the weight of each group, whether its
update was shortened to the clip, and each metric with its weight. So the coordinator learns Σ w·Δ
and Σ w of each group, and not who has which modality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np

from healthfm_core.arrays import Arrays, Float64
from healthfm_core.federation.secure.group_layout import GroupLayout
from healthfm_core.privacy.secure_aggregation.fixed_point import FixedPoint, unfit_value
from healthfm_core.privacy.secure_aggregation.masks import Ring

COUNTS: Final = "counts"
UPDATE: Final = "update"
_LARGEST_METRIC: Final = 2.0**20
"""Metrics beyond it are left out: half-lives of years are below, losses that matter too."""


@dataclass(frozen=True)
class RoundSum:
    """What the coordinator learns of a round.

    Attributes:
        means: group → parameter → Σ w·Δ / Σ w, float64; groups that somebody moved.
        weights: group → Σ w, likewise.
        clipped: group → sites whose update was shortened.
        metrics: name → mean over the sites that report it, by their weight.
    """

    means: Mapping[str, Mapping[str, Float64]]
    weights: Mapping[str, float]
    clipped: Mapping[str, int]
    metrics: Mapping[str, float]


@runtime_checkable
class UpdateCodec(Protocol):
    """How a round's updates stand in the ring; the same at every site and at the coordinator."""

    @property
    def rho(self) -> float | None:
        """What one round costs in concentrated differential privacy; None without noise."""

    def sizes(self) -> dict[str, tuple[int, str]]:
        """Return array → (length, type)."""

    def encode(
        self,
        update: Arrays,
        weights: Mapping[str, float],
        metrics: Mapping[str, float],
        metric_weight: float,
    ) -> dict[str, Ring]:
        """Return the arrays of one site, not masked yet.

        Args:
            update: Parameter → change, of the groups in `weights` at least.
            weights: group → training subjects.
            metrics: Name → value.
            metric_weight: Training subjects that the metrics speak for.

        Raises:
            PrivacyError: A value is not what the ring can hold (HF-613).
        """

    def decode(self, sums: Mapping[str, Ring]) -> RoundSum:
        """Return what the opened sums say."""


@dataclass(frozen=True)
class SumCodec:
    """Sums of w·Δ, of w, and of metrics, without noise.

    Attributes:
        layout: Where each group stands.
        metrics: Names of the declared metrics.
        capacity: Training subjects of all sites together: most weight of one group.
        sites: Most sites in the sum.
        fixed_point: group → how its numbers stand in the ring.
        ring_bits: The ring of the updates is the integers modulo 2^ring_bits.
    """

    layout: GroupLayout
    metrics: Sequence[str]
    capacity: int
    sites: int
    fixed_point: Callable[[str], FixedPoint]
    ring_bits: Literal[32, 64]

    @property
    def rho(self) -> None:
        """No noise, no bound."""
        return None

    def sizes(self) -> dict[str, tuple[int, str]]:
        """Return array → (length, type)."""
        counts = 2 * len(self.layout.schema.groups) + 2 * len(self.metrics)
        return {
            COUNTS: (counts, "uint64"),
            UPDATE: (self.layout.length, f"uint{self.ring_bits}"),
        }

    @cached_property
    def _metric_ring(self) -> FixedPoint:
        return FixedPoint(64, _LARGEST_METRIC, self.capacity, self.sites)

    def encode(
        self,
        update: Arrays,
        weights: Mapping[str, float],
        metrics: Mapping[str, float],
        metric_weight: float,
    ) -> dict[str, Ring]:
        """Return the arrays of one site, not masked yet.

        Args:
            update: Parameter → change, of the groups in `weights` at least.
            weights: group → training subjects, whole numbers.
            metrics: Those that are not declared, not finite or over 2^20 are left out.
            metric_weight: Training subjects that the metrics speak for.

        Raises:
            PrivacyError: A value is not finite, or a weight is no whole number within the
                capacity (HF-613).
        """
        groups = self.layout.schema.groups
        whole = {group: _whole(weight, self.capacity) for group, weight in weights.items()}
        arrays = {name: np.zeros(n, dtype) for name, (n, dtype) in self.sizes().items()}
        clipped = {
            group: self.layout.encode(group, update, whole[group], self.fixed_point(group), part)
            for group, part in self.layout.parts(arrays[UPDATE])
            if whole.get(group)
        }
        arrays[COUNTS][:] = [
            *(whole.get(group, 0) for group in groups),
            *(int(clipped.get(group, False)) for group in groups),
            *self._metric_units(metrics, _whole(metric_weight, self.capacity)),
        ]
        return arrays

    def _metric_units(self, metrics: Mapping[str, float], weight: int) -> Iterator[int]:
        units = np.zeros(1, np.uint64)
        for name in self.metrics:
            value = metrics.get(name, math.nan)
            there = math.isfinite(value) and abs(value) <= _LARGEST_METRIC
            self._metric_ring.encode(np.array([value if there else 0.0]), weight, units)
            yield int(units[0])
            yield weight if there else 0

    def decode(self, sums: Mapping[str, Ring]) -> RoundSum:
        """Return what the opened sums say."""
        counts, groups = sums[COUNTS], list(self.layout.schema.groups)
        weights = {group: float(w) for group, w in zip(groups, counts, strict=False) if w}
        means = {
            group: self.layout.mean(group, part, self.fixed_point(group), weights[group])
            for group, part in self.layout.parts(sums[UPDATE])
            if group in weights
        }
        clipped = dict(zip(groups, map(int, counts[len(groups) :]), strict=False))
        return RoundSum(means, weights, clipped, self._means(counts[2 * len(groups) :]))

    def _means(self, counts: Ring) -> dict[str, float]:
        totals = self._metric_ring.decode(np.ascontiguousarray(counts[::2]))
        weights = counts[1::2]
        return {
            name: float(total) / int(weight)
            for name, total, weight in zip(self.metrics, totals, weights, strict=True)
            if weight
        }


def _whole(weight: float, capacity: int) -> int:
    if weight != int(weight) or not 0 <= weight <= capacity:
        raise unfit_value("a weight that is no whole number of the subjects registered")
    return int(weight)
