"""The updates nearest to their neighbours (Blanchard et al. 2017, NeurIPS).

Krum takes the one update whose n - f - 2 nearest others are nearest, multi-Krum the mean of the
n - f updates with the smallest such sums of squared distances.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from healthfm_core.arrays import Arrays, Float32, Float64
from healthfm_core.federation.aggregation.aggregator import AggregationMethod
from healthfm_core.federation.aggregation.kept_updates import (
    LEAST_SITES,
    KeptUpdates,
    blocks,
    byzantine_sites,
)
from healthfm_core.federation.aggregation.trimmed_mean import without_extremes
from healthfm_core.federation.update_checks import UpdateSchema


class Krum:
    """One round's updates and the mean of those nearest to their neighbours.

    Args:
        schema: Names and shapes; updates have passed `check_update`.
        byzantine_fraction: Share of a group's sites that it is to bear.
        multi: Whether all but f updates are averaged, instead of the nearest one taken.
    """

    def __init__(self, schema: UpdateSchema, byzantine_fraction: float, *, multi: bool) -> None:
        self._schema = schema
        self._updates = KeptUpdates(schema)
        self._fraction = byzantine_fraction
        self._multi = multi

    def add(self, site: str, update: Arrays, weights: Mapping[str, float]) -> None:
        """Keep one update."""
        self._updates.add(site, update, weights)

    def has_enough_sites(self, group: str) -> bool:
        """Return whether a Byzantine update stands out: n ≥ 2f + 3."""
        n = self._updates.count(group)
        return n >= max(LEAST_SITES, 2 * byzantine_sites(self._fraction, n) + 3)

    def result(self, group: str) -> Mapping[str, Float64]:
        """Return the chosen updates' mean per parameter of `group`, and free all of them."""
        rows = self._updates.take(group)
        f = byzantine_sites(self._fraction, len(rows))
        count = len(rows) - f if self._multi else 1
        chosen = [rows[i] for i in sorted(nearest(rows, f)[:count])]
        return self._schema.shaped(group, without_extremes(chosen, 0))


def nearest(rows: list[Float32], byzantine: int) -> list[int]:
    """Return the rows' places by their summed squared distance to their nearest others."""
    n = len(rows)
    squares = np.zeros((n, n))
    for block in blocks(rows):
        wide = block.astype(np.float64)
        for i in range(n):
            squares[i] += np.square(wide - wide[i]).sum(axis=1)
    others = np.sort(squares, axis=1)[:, 1 : max(2, n - byzantine - 1)]
    return [int(i) for i in np.argsort(others.sum(axis=1), kind="stable")]


METHODS: Final = (
    AggregationMethod(
        "krum", lambda schema, config, _: Krum(schema, config.byzantine_fraction, multi=False)
    ),
    AggregationMethod(
        "multi_krum", lambda schema, config, _: Krum(schema, config.byzantine_fraction, multi=True)
    ),
)
