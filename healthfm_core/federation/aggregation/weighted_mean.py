"""Means weighted by training subjects (FedAvg), which no order of arrival can change.

Floating-point sums depend on their order, and replies arrive in any. So each term w·Δ is first
rounded to a multiple of one unit u, chosen so that every partial sum of such multiples fits a
float64 exactly: ``(x + M) - M`` with M = 1.5·2^k rounds x to a multiple of u = 2^(k-52) (the
extraction of Rump, Ogita and Oishi 2008; Demmel and Nguyen 2013). Exact sums are associative: a
reply is added the moment it arrives and dropped, the memory is one float64 accumulator per
parameter, and the result is the same bit for bit for every order. With 2^k ≥ 2·C·W (C the norm
bound, W the most weight a round can carry) the mean of n replies is off by at most n·C·2^-50.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Arrays, Float64
from healthfm_core.federation.aggregation.aggregator import AggregationMethod
from healthfm_core.federation.update_checks import UpdateSchema

_BLOCK: Final = 1 << 14
"""Elements rounded at once: 128 KiB of float64, so that the passes over a block stay in cache."""


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

    def _add(self, total: Float64, values: npt.NDArray[Any], weight: float, bound: float) -> None:
        """Add weight·values, each term rounded by M to what every partial sum can hold."""
        most = 2.0 * max(bound, 1e-30) * max(self._max_weight, 1.0)
        shift = 1.5 * 2.0 ** math.ceil(math.log2(most))
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
