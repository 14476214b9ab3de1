"""A round's reply as arrays of a ring, and the sum of such replies as means.

Every site fills the same two arrays. ``update`` holds w·Δ of every group in turn, zeros where the
site lacks the modality; ``counts``, in the ring of 64 bits, whether an update was shortened, the
metrics and their weights. Where the run asks for rings of 16 bits, ``update_16`` has the large
groups instead of ``update``. Where modalities are hidden there is one weight, of everyone, and no
group's: what a sum of weights falls by while a site is away would be what that site has. The
people of a modality are then those of round 0, whose sum is opened once and for one set of sites
(docs/decisions/0055-weights-that-tell-nothing.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np

from healthfm_core.arrays import Arrays, Float64
from healthfm_core.federation.metric_names import is_count
from healthfm_core.federation.parameter_groups import BACKBONE, modality_of
from healthfm_core.federation.secure.group_layout import GroupLayout, TurnedGroup
from healthfm_core.privacy.secure_aggregation.fixed_point import FixedPoint, unfit_value
from healthfm_core.privacy.secure_aggregation.masks import Ring

COUNTS: Final = "counts"
UPDATE: Final = "update"
COARSE: Final = "update_16"
"""Groups that stand in a ring of 16 bits, where there are any."""
_LARGEST_METRIC: Final = 2.0**20
"""Metrics beyond it are left out: half-lives of years are below, losses that matter too."""


@dataclass(frozen=True)
class RoundSum:
    """What the coordinator learns of a round.

    Attributes:
        means: group → parameter → Σ w·Δ / Σ w, float64; groups that somebody moved.
        weights: group → Σ w, likewise; where modalities are hidden, what was divided by.
        clipped: group → sites whose update was shortened; ``backbone`` alone where modalities are
            hidden: an update of another group is shortened at a site that holds it.
        metrics: name → mean over the sites that report it, by their weight; people are summed.
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

    def decode(self, sums: Mapping[str, Ring], present: float = 1.0) -> RoundSum:
        """Return what the opened sums say.

        Args:
            sums: Array → its sum.
            present: Of the training subjects of round 0, the share whose sites are in the sum.
        """


@dataclass(frozen=True)
class HiddenWeights:
    """What stands for the weights of groups where sites hide their modalities.

    Attributes:
        fewest: A site with fewer people of a modality brings nothing of it: round 0 did not count
            them either.
        people: Modality → training subjects of all sites in round 0; the coordinator's alone.
    """

    fewest: int
    people: Mapping[str, float] = field(default_factory=dict)

    def kept(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return the weights of the groups that a site brings."""
        return {
            group: weight
            for group, weight in weights.items()
            if modality_of(group) is None or weight >= self.fewest
        }

    def of_group(self, group: str, everyone: float, present: float) -> float:
        """Return what a group's sum is divided by.

        Args:
            group: Whose.
            everyone: Σ w of what every site has.
            present: See `UpdateCodec.decode`.
        """
        modality = modality_of(group)
        return everyone if modality is None else self.people.get(modality, 0.0) * present


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
        hidden: In place of the weights of groups and metrics; None: they are in the sum.
        turned: Group → how it stands in a ring of 16 bits instead.
    """

    layout: GroupLayout
    metrics: Sequence[str]
    capacity: int
    sites: int
    fixed_point: Callable[[str], FixedPoint]
    ring_bits: Literal[32, 64]
    hidden: HiddenWeights | None = None
    turned: Mapping[str, TurnedGroup] = field(default_factory=dict)

    @property
    def rho(self) -> None:
        """No noise, no bound."""
        return None

    def sizes(self) -> dict[str, tuple[int, str]]:
        """Return array → (length, type)."""
        counts = 2 * len(self.layout.schema.groups) + 2 * len(self.metrics)
        if self.hidden is not None:
            counts = 2 + len(self.metrics)
        coarse = sum(map(self.layout.size, self.turned))
        sizes = {
            COUNTS: (counts, "uint64"),
            UPDATE: (self.layout.length - coarse, f"uint{self.ring_bits}"),
        }
        return sizes | ({COARSE: (coarse, "uint16")} if coarse else {})

    def _parts(self, arrays: Mapping[str, Ring]) -> Iterator[tuple[str, Ring]]:
        """Yield each group with its part of the arrays, as a view."""
        at = dict.fromkeys((UPDATE, COARSE), 0)
        for group in self.layout.schema.groups:
            name, size = COARSE if group in self.turned else UPDATE, self.layout.size(group)
            yield group, arrays[name][at[name] : at[name] + size]
            at[name] += size

    def _encode(self, group: str, update: Arrays, weight: int, part: Ring) -> bool:
        if group in self.turned:
            return self.layout.encode_turned(group, update, weight, self.turned[group], part)
        return self.layout.encode(group, update, weight, self.fixed_point(group), part)

    def _mean(self, group: str, part: Ring, weight: float) -> Mapping[str, Float64]:
        if group in self.turned:
            return self.layout.mean_of_turned(group, part, self.turned[group], weight)
        return self.layout.mean(group, part, self.fixed_point(group), weight)

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
        held = weights if self.hidden is None else self.hidden.kept(weights)
        whole = {group: _whole(weight, self.capacity) for group, weight in held.items()}
        arrays = {name: np.zeros(n, dtype) for name, (n, dtype) in self.sizes().items()}
        clipped = {
            group: self._encode(group, update, whole[group], part)
            for group, part in self._parts(arrays)
            if whole.get(group)
        }
        units = list(self._metric_units(metrics, _whole(metric_weight, self.capacity)))
        if self.hidden is not None:
            everyone = _whole(metric_weight, self.capacity)
            shortened = int(clipped.get(BACKBONE, False))
            arrays[COUNTS][:] = [everyone, shortened, *(unit for unit, _ in units)]
            return arrays
        arrays[COUNTS][:] = [
            *(whole.get(group, 0) for group in groups),
            *(int(clipped.get(group, False)) for group in groups),
            *(number for unit_and_weight in units for number in unit_and_weight),
        ]
        return arrays

    def _metric_units(self, metrics: Mapping[str, float], weight: int) -> Iterator[tuple[int, int]]:
        """Yield (value times weight in the ring, weight) of each metric, zeros where it lacks.

        A number of people has weight 1 at every site, and is added up.
        """
        units = np.zeros(1, np.uint64)
        for name in self.metrics:
            value = metrics.get(name, math.nan)
            there = math.isfinite(value) and abs(value) <= _LARGEST_METRIC
            counted = 1 if is_count(name) else weight
            self._metric_ring.encode(np.array([value if there else 0.0]), counted, units)
            yield int(units[0]), counted if there else 0

    def decode(self, sums: Mapping[str, Ring], present: float = 1.0) -> RoundSum:
        """Return what the opened sums say, see `UpdateCodec`."""
        counts, groups = sums[COUNTS], list(self.layout.schema.groups)
        behind: list[float]
        if self.hidden is None:
            told = {group: float(w) for group, w in zip(groups, counts, strict=False)}
            clipped = dict(zip(groups, map(int, counts[len(groups) :]), strict=False))
            counts = counts[2 * len(groups) :]
            totals, behind = counts[::2], list(map(float, counts[1::2]))
        else:
            everyone = float(counts[0])
            told = {g: self.hidden.of_group(g, everyone, present) for g in groups}
            clipped, totals = {BACKBONE: int(counts[1])}, counts[2:]
            behind = [everyone * bool(total) for total in totals]  # zero: nobody has reported it
        means = {
            group: self._mean(group, part, told[group])
            for group, part in self._parts(sums)
            if told[group] and (modality_of(group) is None or part.any())
        }
        weights = {group: told[group] for group in means}
        return RoundSum(means, weights, clipped, self._means(totals, behind))

    def _means(self, totals: Ring, weights: Sequence[float]) -> dict[str, float]:
        values = self._metric_ring.decode(np.ascontiguousarray(totals))
        return {
            name: float(total) / (1 if is_count(name) else weight)
            for name, total, weight in zip(self.metrics, values, weights, strict=True)
            if weight
        }


def _whole(weight: float, capacity: int) -> int:
    if weight != int(weight) or not 0 <= weight <= capacity:
        raise unfit_value("a weight that is no whole number of the subjects registered")
    return int(weight)
