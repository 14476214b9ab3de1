"""The streaming fold of a round: weighted means per group that no order of arrival can change.

Floating-point sums depend on their order, and replies arrive in any. So each term w·Δ is first
rounded to a multiple of one unit u, chosen so that every partial sum of such multiples fits a
float64 exactly: ``(x + M) - M`` with M = 1.5·2^k rounds x to a multiple of u = 2^(k-52) (the
extraction of Rump, Ogita and Oishi 2008; Demmel and Nguyen 2013). Exact sums are associative:
a reply is folded the moment it arrives and dropped, the memory is one float64 accumulator per
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
from healthfm_core.federation.update_checks import Contract

_BLOCK: Final = 1 << 14
"""Elements rounded at once: 128 KiB of float64, so that the passes over a block stay in cache."""


class Fold:
    """One round's accumulators; a group takes memory from its first reply on.

    Args:
        contract: Names, shapes and the norm bound; replies have passed `check_update`.
        max_weight: Most weight that one group can get in this round: the registered subjects of
            the sites asked.
    """

    def __init__(self, contract: Contract, max_weight: float) -> None:
        self._contract = contract
        bound = 2.0 * max(contract.max_norm, 1e-30) * max(max_weight, 1.0)
        self._shift = 1.5 * 2.0 ** math.ceil(math.log2(bound))
        self._sums: dict[str, dict[str, Float64]] = {}
        self._weights: dict[str, dict[str, float]] = {}
        self._block = np.empty(_BLOCK, np.float64)

    def add(self, site: str, update: Arrays, weights: Mapping[str, float]) -> None:
        """Fold one checked reply of `site`; its arrays are read once and not kept.

        Raises:
            ValueError: The site is in the fold already.
        """
        for group in weights:
            if site in self._weights.get(group, {}):
                raise ValueError("a site is folded once a round")
        for group, weight in weights.items():
            names = self._contract.groups[group]
            self._weights.setdefault(group, {})[site] = float(weight)
            if group not in self._sums:
                shapes = self._contract.shapes
                self._sums[group] = {name: np.zeros(shapes[name]) for name in names}
            for name in names:
                total = self._sums[group][name].reshape(-1)
                self._add(total, update[name].reshape(-1), float(weight))

    def _add(self, total: Float64, values: npt.NDArray[Any], weight: float) -> None:
        for start in range(0, values.size, _BLOCK):
            part = values[start : start + _BLOCK]
            block = self._block[: part.size]
            np.multiply(part, weight, out=block, dtype=np.float64)
            block += self._shift
            block -= self._shift
            total[start : start + _BLOCK] += block

    def sites(self, group: str) -> tuple[str, ...]:
        """Return the sites folded into `group`, sorted."""
        return tuple(sorted(self._weights.get(group, ())))

    def weight(self, group: str) -> float:
        """Return Σ w of `group`, exact in any order; 0 where nobody answered."""
        return math.fsum(self._weights.get(group, {}).values())

    def weight_of(self, site: str, group: str) -> float:
        """Return the weight `site` brought to `group`; 0 where it brought none."""
        return self._weights.get(group, {}).get(site, 0.0)

    def mean(self, group: str) -> dict[str, Float64]:
        """Return Σ w·Δ / Σ w per parameter of `group`, and free its accumulator.

        Raises:
            KeyError: Nobody answered for the group, or its mean was taken already.
        """
        means, weight = self._sums.pop(group), self.weight(group)
        for total in means.values():
            total /= weight
        return means

    def can_tell(self, group: str) -> bool:
        """Return whether the sites that moved `group` are enough for this kind of mean."""
        return bool(self._weights.get(group))


def mean_metrics(
    metrics: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> dict[str, float]:
    """Return each metric's mean over the sites that report it, weighted, in the sites' order.

    Args:
        metrics: Site → metric → value; values that are not finite are left out.
        weights: Site → training subjects.
    """
    terms: dict[str, list[tuple[float, float]]] = {}
    for site in sorted(metrics):
        for name, value in metrics[site].items():
            if math.isfinite(value):
                terms.setdefault(name, []).append((weights.get(site, 0.0), value))
    means = {}
    for name in sorted(terms):
        total = math.fsum(w for w, _ in terms[name])
        if total > 0:
            means[name] = math.fsum(w * v for w, v in terms[name]) / total
    return means
