"""Each coordinate's mean without its f lowest and f highest values (Yin et al. 2018, ICML)."""

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
from healthfm_core.federation.update_checks import UpdateSchema


class TrimmedMean:
    """One round's updates and what is left of each coordinate without its extremes.

    Args:
        schema: Names and shapes; updates have passed `check_update`.
        byzantine_fraction: Share of a group's sites that it is to bear.
    """

    def __init__(self, schema: UpdateSchema, byzantine_fraction: float) -> None:
        self._schema = schema
        self._updates = KeptUpdates(schema)
        self._fraction = byzantine_fraction

    def add(self, site: str, update: Arrays, weights: Mapping[str, float]) -> None:
        """Keep one update."""
        self._updates.add(site, update, weights)

    def has_enough_sites(self, group: str) -> bool:
        """Return whether something is left of each coordinate: n ≥ 2f + 1, and at least 3."""
        n = self._updates.count(group)
        return n >= max(LEAST_SITES, 2 * byzantine_sites(self._fraction, n) + 1)

    def result(self, group: str) -> Mapping[str, Float64]:
        """Return the group's trimmed mean per parameter, and free its updates."""
        rows = self._updates.take(group)
        trimmed = without_extremes(rows, byzantine_sites(self._fraction, len(rows)))
        return self._schema.shaped(group, trimmed)


def without_extremes(rows: list[Float32], trim: int) -> Float64:
    """Return each coordinate's mean without its `trim` lowest and `trim` highest values.

    With (n - 1) // 2 trimmed it is the median.
    """
    return np.concatenate(
        [
            np.sort(block, axis=0)[trim : len(rows) - trim].mean(axis=0, dtype=np.float64)
            for block in blocks(rows)
        ]
    )


METHODS: Final = (
    AggregationMethod(
        "trimmed_mean", lambda schema, config, _: TrimmedMean(schema, config.byzantine_fraction)
    ),
)
