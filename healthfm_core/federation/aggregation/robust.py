"""Means of a round that a few hostile sites cannot carry away, per parameter group.

Each group is judged over the sites that moved it, so that a hostile site among three with
wearables is one of three there, however many others there are. Every site counts once, whatever
its size: a weight is a claim of the site's own. All updates of the round are held until it closes.

- ``median``: of each coordinate. ``trimmed_mean``: of what is left of each coordinate without the
  f lowest and the f highest (Yin et al. 2018, ICML).
- ``krum``: the one update nearest to its n - f - 2 nearest others; ``multi_krum``: the mean of the
  n - f updates with the smallest such sums (Blanchard et al. 2017, NeurIPS).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from healthfm_core.arrays import Arrays, Float32, Float32Arrays, Float64
from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.federation.aggregation.weighted_mean import Fold
from healthfm_core.federation.update_checks import Contract

LEAST_SITES: Final = 3
"""Of two updates none can be told to be the hostile one."""

_BLOCK: Final = 1 << 14


class RobustFold(Fold):
    """One round's updates, kept site by site, and their robust centre per group.

    Args:
        contract: Names and shapes; replies have passed `check_update`.
        config: Which centre, and the share of hostile sites it is to bear.
    """

    def __init__(self, contract: Contract, config: AggregationConfig) -> None:
        super().__init__(contract, 1.0)
        self._robust = config
        self._updates: dict[str, Float32Arrays] = {}

    def add(self, site: str, update: Arrays, weights: Mapping[str, float]) -> None:
        """Keep one checked reply of `site`.

        Raises:
            ValueError: The site is in the fold already.
        """
        for group, weight in weights.items():
            if site in self._weights.get(group, {}):
                raise ValueError("a site is folded once a round")
            self._weights.setdefault(group, {})[site] = float(weight)
            names = self._contract.groups[group]
            flat = np.concatenate([update[name].reshape(-1) for name in names])
            self._updates.setdefault(group, {})[site] = flat

    def can_tell(self, group: str) -> bool:
        """Return whether enough sites moved `group` for a hostile one to stand out."""
        n = len(self._updates.get(group, {}))
        krum = self._robust.method in ("krum", "multi_krum")
        return n >= max(LEAST_SITES, 2 * self._hostile(n) + (3 if krum else 1))

    def mean(self, group: str) -> dict[str, Float64]:
        """Return the group's robust centre per parameter, and free its updates.

        Raises:
            KeyError: Nobody answered for the group, or its centre was taken already.
        """
        updates = self._updates.pop(group)
        rows = [updates[site] for site in sorted(updates)]
        f = self._hostile(len(rows))
        if self._robust.method in ("krum", "multi_krum"):
            count = 1 if self._robust.method == "krum" else len(rows) - f
            rows = [rows[i] for i in sorted(nearest(rows, f)[:count])]
        trim = {"coordinate_median": (len(rows) - 1) // 2, "trimmed_mean": f}.get(
            self._robust.method, 0
        )
        return self._contract.shaped(group, centre(rows, trim))

    def _hostile(self, sites: int) -> int:
        return math.floor(self._robust.byzantine_fraction * sites + 1e-9)


def centre(rows: list[Float32], trim: int) -> Float64:
    """Return each coordinate's mean without its `trim` lowest and `trim` highest values.

    With (n - 1) // 2 trimmed it is the median.
    """
    return np.concatenate(
        [
            np.sort(block, axis=0)[trim : len(rows) - trim].mean(axis=0, dtype=np.float64)
            for block in _blocks(rows)
        ]
    )


def nearest(rows: list[Float32], hostile: int) -> list[int]:
    """Return the rows' places by their summed squared distance to their nearest others."""
    n = len(rows)
    squares = np.zeros((n, n))
    for block in _blocks(rows):
        wide = block.astype(np.float64)
        for i in range(n):
            squares[i] += np.square(wide - wide[i]).sum(axis=1)
    others = np.sort(squares, axis=1)[:, 1 : max(2, n - hostile - 1)]
    return [int(i) for i in np.argsort(others.sum(axis=1), kind="stable")]


def _blocks(rows: list[Float32]) -> Iterator[Float32]:
    for start in range(0, max(1, rows[0].size), _BLOCK):
        yield np.stack([row[start : start + _BLOCK] for row in rows])
