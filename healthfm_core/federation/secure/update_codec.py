"""A round's reply as arrays of a ring, and the sum of such replies as means.

Every site fills the same two arrays. ``update`` holds w·Δ of every group in turn, zeros where the
site lacks the modality; ``counts``, in the ring of 64 bits, the weight of each group, whether its
update was shortened to the clip, and each metric with its weight. So the coordinator learns Σ w·Δ
and Σ w of each group, and not who has which modality.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from healthfm_core.arrays import Arrays, Float64
from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.federation.update_checks import Contract, update_norm
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


@dataclass(frozen=True)
class RoundLayout:
    """How a round's replies stand in the ring; the same at every site and at the coordinator.

    Attributes:
        contract: Names and shapes of the groups that are summed.
        metrics: Names of the declared metrics.
        capacity: Training subjects of all sites together: most weight of one group.
        sites: Most sites in the sum.
        config: Ring and clips.
    """

    contract: Contract
    metrics: Sequence[str]
    capacity: int
    sites: int
    config: SecureAggregationConfig

    def sizes(self) -> dict[str, tuple[int, str]]:
        """Return array → (length, type)."""
        counts = 2 * len(self.contract.groups) + 2 * len(self.metrics)
        update = sum(self._size(group) for group in self.contract.groups)
        return {COUNTS: (counts, "uint64"), UPDATE: (update, f"uint{self.config.ring_bits}")}

    def ring(self, group: str) -> FixedPoint:
        """Return the fixed point of a group's numbers."""
        clip = self.config.clips.get(group, self.config.clip)
        return FixedPoint(self.config.ring_bits, clip, self.capacity, self.sites)

    @cached_property
    def _metric_ring(self) -> FixedPoint:
        return FixedPoint(64, _LARGEST_METRIC, self.capacity, self.sites)

    def _size(self, group: str) -> int:
        return sum(math.prod(self.contract.shapes[n]) for n in self.contract.groups[group])

    def _parts(self, update: Ring) -> Iterator[tuple[str, Ring]]:
        start = 0
        for group in self.contract.groups:
            size = self._size(group)
            yield group, update[start : start + size]
            start += size

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
        arrays = {name: np.zeros(n, dtype) for name, (n, dtype) in self.sizes().items()}
        clipped = {
            group: self._encode_group(group, update, weights[group], part)
            for group, part in self._parts(arrays[UPDATE])
            if weights.get(group)
        }
        arrays[COUNTS][:] = [
            *(_whole(weights.get(group, 0.0), self.capacity) for group in self.contract.groups),
            *(int(clipped.get(group, False)) for group in self.contract.groups),
            *self._metric_units(metrics, _whole(metric_weight, self.capacity)),
        ]
        return arrays

    def _encode_group(self, group: str, update: Arrays, weight: float, out: Ring) -> bool:
        names, ring = self.contract.groups[group], self.ring(group)
        if any(update[name].shape != self.contract.shapes[name] for name in names):
            raise unfit_value(f"an update of group {group} of another shape than its parameters")
        norm = update_norm(update, names)
        if not math.isfinite(norm):
            raise unfit_value(f"an update of group {group} that is not finite")
        factor = min(1.0, ring.clip / norm) if norm else 1.0
        start = 0
        for name in names:
            flat = update[name].reshape(-1)
            if factor < 1:
                flat = np.clip(flat * np.float64(factor), -ring.clip, ring.clip)
            part = out[start : start + flat.size]
            ring.encode(flat, _whole(weight, self.capacity), part)
            start += flat.size
        return factor < 1

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
        counts, groups = sums[COUNTS], list(self.contract.groups)
        weights = {group: float(w) for group, w in zip(groups, counts, strict=False) if w}
        means = {
            group: self._mean(group, part, weights[group])
            for group, part in self._parts(sums[UPDATE])
            if group in weights
        }
        clipped = dict(zip(groups, map(int, counts[len(groups) :]), strict=False))
        return RoundSum(means, weights, clipped, self._means(counts[2 * len(groups) :]))

    def _mean(self, group: str, part: Ring, weight: float) -> dict[str, Float64]:
        flat = self.ring(group).decode(part)
        flat /= weight
        return self.contract.shaped(group, flat)

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
