"""The median of each coordinate over the sites that hold it (Yin et al. 2018, ICML)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from healthfm_core.arrays import Arrays, Float64
from healthfm_core.federation.aggregation.aggregator import AggregationMethod
from healthfm_core.federation.aggregation.kept_updates import (
    LEAST_SITES,
    KeptUpdates,
    byzantine_sites,
)
from healthfm_core.federation.aggregation.trimmed_mean import without_extremes
from healthfm_core.federation.update_checks import UpdateSchema


class CoordinateMedian:
    """One round's updates and their median, coordinate by coordinate.

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
        """Return whether most sites are honest: n ≥ 2f + 1, and at least 3."""
        n = self._updates.count(group)
        return n >= max(LEAST_SITES, 2 * byzantine_sites(self._fraction, n) + 1)

    def result(self, group: str) -> Mapping[str, Float64]:
        """Return the group's median per parameter, and free its updates."""
        rows = self._updates.take(group)
        return self._schema.shaped(group, without_extremes(rows, (len(rows) - 1) // 2))


METHODS: Final = (
    AggregationMethod(
        "coordinate_median",
        lambda schema, config, _: CoordinateMedian(schema, config.byzantine_fraction),
    ),
)
