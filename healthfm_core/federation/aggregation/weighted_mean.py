"""Means weighted by training subjects (FedAvg), which no order of arrival can change.

Floating-point sums depend on their order, and replies arrive in any. So each term w·Δ is first
rounded to a multiple of one unit u, chosen so that every partial sum of such multiples fits a
float64 exactly: ``(x + M) - M`` with M = 1.5·2^k rounds x to a multiple of u = 2^(k-52) (the
extraction of Rump, Ogita and Oishi 2008; Demmel and Nguyen 2013). Exact sums are associative: a
reply is added the moment it arrives and dropped, the memory is one float64 accumulator per
parameter, and the result is the same bit for bit for every order. With 2^k ≥ 2·C·W (C the norm
bound, W the most weight a round can carry) the mean of n replies is off by at most n·C·2^-50.

So sums of sums are the sum: a regional coordinator that knows W adds its sites up (`PartialSums`),
and who adds the regions up has the bits that adding up all sites would give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Arrays, Float64
from healthfm_core.federation.aggregation.aggregator import AggregationMethod
from healthfm_core.federation.update_checks import UpdateSchema

_BLOCK: Final = 1 << 14
"""Elements rounded at once: 128 KiB of float64, so that the passes over a block stay in cache."""

_SLACK: Final = 1 + 1e-6
"""On a norm, for rounding."""


@dataclass(frozen=True)
class PartialSums:
    """What some of a round's sites add up to.

    Attributes:
        sums: Group → parameter → Σ w·Δ, float64.
        weights: Group → Σ w.
    """

    sums: Mapping[str, Mapping[str, Float64]]
    weights: Mapping[str, float]


class WeightedMean:
    """One round's accumulators; a group takes memory from its first reply on.

    Args:
        schema: Names, shapes and norm bounds; updates have passed `check_update`.
        max_weight: Most weight that one group can get in this round: the registered subjects of
            the sites asked.
    """

    def __init__(self, schema: UpdateSchema, max_weight: float) -> None:
        self._schema = schema
        self._max_weight = max_weight
        self._sums: dict[str, dict[str, Float64]] = {}
        self._weights: dict[str, dict[str, float]] = {}
        self._block = np.empty(_BLOCK, np.float64)

    def add(self, site: str, update: Arrays, weights: Mapping[str, float]) -> None:
        """Add one update; its arrays are read once and not kept.

        Raises:
            ValueError: The site was added already.
        """
        if any(site in self._weights.get(group, {}) for group in weights):
            raise ValueError("a site is added once a round")
        for group, weight in weights.items():
            names = self._schema.groups[group]
            self._weights.setdefault(group, {})[site] = float(weight)
            if group not in self._sums:
                shapes = self._schema.shapes
                self._sums[group] = {name: np.zeros(shapes[name]) for name in names}
            for name in names:
                total = self._sums[group][name].reshape(-1)
                bound = self._schema.norm_bound(name)
                self._add(total, update[name].reshape(-1), float(weight), bound)

    def add_sums(self, region: str, partial: PartialSums) -> None:
        """Add what some sites add up to, as if each of them had been added here.

        Raises:
            ValueError: The region was added already; an array is no sum of this round's: of another
                shape, longer than its weight allows, or with numbers that this round's unit does
                not divide. Nothing of it was added then.
        """
        if any(region in self._weights.get(group, {}) for group in partial.weights):
            raise ValueError("a region is added once a round")
        if set(partial.sums) != set(partial.weights):
            raise ValueError("its sums and its weights are of other groups")
        for group, weight in partial.weights.items():
            self._check_sums(group, partial.sums[group], weight)
        for group, weight in partial.weights.items():
            self._weights.setdefault(group, {})[region] = float(weight)
            shapes, sums = self._schema.shapes, partial.sums[group]
            mine = self._sums.setdefault(group, {n: np.zeros(shapes[n]) for n in sums})
            for name, total in mine.items():
                total += sums[name]

    def _check_sums(self, group: str, sums: Mapping[str, Float64], weight: float) -> None:
        if group not in self._schema.groups or set(sums) != set(self._schema.groups[group]):
            raise ValueError("its sums are not of the model's parameters")
        if not 0 < weight <= self._max_weight:
            raise ValueError(f"the weight of group {group} is not one of this round's")
        for name, array in sums.items():
            bound = self._schema.norm_bound(name)
            if array.shape != self._schema.shapes[name]:
                raise ValueError(f"the sum of {name} has another shape")
            if not float(np.linalg.norm(array)) <= bound * weight * _SLACK:
                raise ValueError(f"the sum of {name} is longer than its weight allows")
            flat, shift = array.reshape(-1), self._shift(bound)
            for start in range(0, flat.size, _BLOCK):
                part = flat[start : start + _BLOCK]
                if not ((part + shift) - shift == part).all():
                    raise ValueError(f"the sum of {name} is not in this round's unit")

    def partial(self) -> PartialSums:
        """Return what was added so far, for who adds several such sums up; it is used up."""
        sums, self._sums = self._sums, {}
        weights = {group: math.fsum(self._weights[group].values()) for group in sums}
        return PartialSums(sums, weights)

    def _shift(self, bound: float) -> float:
        """Return M, whose addition and subtraction round to the round's unit."""
        most = 2.0 * max(bound, 1e-30) * max(self._max_weight, 1.0)
        return 1.5 * 2.0 ** math.ceil(math.log2(most))

    def _add(self, total: Float64, values: npt.NDArray[Any], weight: float, bound: float) -> None:
        """Add weight·values, each term rounded by M to what every partial sum can hold."""
        shift = self._shift(bound)
        for start in range(0, values.size, _BLOCK):
            part = values[start : start + _BLOCK]
            block = self._block[: part.size]
            np.multiply(part, weight, out=block, dtype=np.float64)
            block += shift
            block -= shift
            total[start : start + _BLOCK] += block

    def has_enough_sites(self, group: str) -> bool:
        """Return whether any site moved `group`."""
        return bool(self._weights.get(group))

    def result(self, group: str) -> dict[str, Float64]:
        """Return Σ w·Δ / Σ w per parameter of `group`, and free its accumulator.

        Raises:
            KeyError: No site moved the group, or its mean was taken already.
        """
        means = self._sums.pop(group)
        weight = math.fsum(self._weights[group].values())
        for total in means.values():
            total /= weight
        return means


METHODS: Final = (
    AggregationMethod("weighted_mean", lambda schema, _, most: WeightedMean(schema, most)),
)
