"""Rounds whose sums carry differential privacy: each site adds its share of the noise itself.

Every group, and the vector of weights, is a query of its own with the same share of the budget:
noise of √(groups + 1) times the multiplier times the query's sensitivity makes a round as costly as
one query with the multiplier alone. A site counts once in every group it holds, for a weight in
people would multiply what one site can do. Metrics are not sent: no ε covers them.

The sensitivity is the clip, plus what rounding to whole numbers can add (½ √length). With the site
as unit a site takes part or not; with the subject as unit one person's record turns the site's
clipped update into any other, twice the clip. Shares are counted of the fewest sites that a sum is
opened of, less those that may collude; more sites only mean more noise than was promised.

Not covered by ε: the statistics of round 0, each site's number of subjects, who took part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from healthfm_core.arrays import Arrays
from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.federation.secure.group_layout import GroupLayout
from healthfm_core.federation.secure.update_codec import COUNTS, UPDATE, RoundSum, SumCodec
from healthfm_core.privacy.discrete_gaussian import discrete_gaussian
from healthfm_core.privacy.distributed import check_share, concentrated, room
from healthfm_core.privacy.secure_aggregation import FixedPoint
from healthfm_core.privacy.secure_aggregation.masks import Ring

_COUNT_UNITS: Final = 1 << 16
"""Units of a weight, so that noise on it is drawn as finely as on an update."""


@dataclass(frozen=True)
class NoisySumCodec:
    """Sums of updates with noise; every site counts once, and there are no metrics.

    Attributes:
        layout: Where each group stands.
        sites: Most sites in the sum.
        config: Ring, clips and the unit of privacy.
        multiplier: Noise of a round's sum over its sensitivity, as if it were one query.
        honest: Sites whose shares of noise are counted on.
    """

    layout: GroupLayout
    sites: int
    config: SecureAggregationConfig
    multiplier: float = 1.0
    honest: int = 1

    @property
    def _times(self) -> float:
        """Standard deviation of one site's share, over the sensitivity of a query."""
        queries = len(self.layout.schema.groups) + 1
        return self.multiplier * math.sqrt(queries / self.honest)

    @property
    def _unit(self) -> float:
        return 2.0 if self.config.unit == "subject" else 1.0

    def fixed_point(self, group: str) -> FixedPoint:
        """Return how a group's numbers stand in the ring, with room for the noise."""
        clip = self.config.clips.get(group, self.config.clip)
        noise = self._unit * self._times
        most = room(float(self.sites), noise, self.sites, self.config.fine_bits)
        return FixedPoint(self.config.fine_bits, clip, math.ceil(most), self.sites)

    @cached_property
    def _queries(self) -> dict[str, tuple[float, int]]:
        """Return query → (sensitivity in units of the ring, length); "" is the weights."""
        groups = self.layout.schema.groups
        queries = {}
        for group in groups:
            ring, length = self.fixed_point(group), self.layout.size(group)
            whole = ring.clip * ring.scale + math.sqrt(length) / 2
            queries[group] = (self._unit * whole, length)
        queries[""] = (self._unit * math.sqrt(len(groups)) * _COUNT_UNITS, len(groups))
        return queries

    def _variance(self, query: str) -> int:
        return max(1, math.ceil((self._times * self._queries[query][0]) ** 2))

    @property
    def rho(self) -> float:
        """What one round costs, in concentrated differential privacy."""
        return math.fsum(
            concentrated(sensitivity, math.sqrt(self._variance(query)), self.honest, length)
            for query, (sensitivity, length) in self._queries.items()
        )

    @cached_property
    def _sums(self) -> SumCodec:
        """The same without noise, every site counted once, no metrics."""
        bits = self.config.fine_bits
        return SumCodec(self.layout, (), self.sites, self.sites, self.fixed_point, bits)

    def sizes(self) -> dict[str, tuple[int, str]]:
        """Return array → (length, type)."""
        return self._sums.sizes()

    def encode(
        self,
        update: Arrays,
        weights: Mapping[str, float],
        metrics: Mapping[str, float],
        metric_weight: float,
    ) -> dict[str, Ring]:
        """Return the arrays of one site with its share of the noise, not masked yet.

        Args:
            update: Parameter → change, of the groups in `weights` at least.
            weights: Groups that the site holds; how many people stand behind them is not used.
            metrics: Not used.
            metric_weight: Not used.

        Raises:
            PrivacyError: A value is not finite (HF-613).
        """
        held = {group: 1.0 for group, weight in weights.items() if weight}
        arrays = self._sums.encode(update, held, {}, 0.0)
        for group, part in self.layout.parts(arrays[UPDATE]):
            check_share(self._variance(group))
            part += discrete_gaussian(self._variance(group), part.size).astype(part.dtype)
        counts, groups = arrays[COUNTS], list(self.layout.schema.groups)
        counts[:] = 0
        counts[: len(groups)] = [_COUNT_UNITS * (group in held) for group in groups]
        share = discrete_gaussian(self._variance(""), len(groups))
        counts[: len(groups)] += share.astype(np.uint64)
        return arrays

    def decode(self, sums: Mapping[str, Ring], present: float = 1.0) -> RoundSum:
        """Return what the opened sums say; a group under one site, after noise, has not moved."""
        groups = list(self.layout.schema.groups)
        noisy = sums[COUNTS][: len(groups)].view(np.int64) / _COUNT_UNITS
        weights = {g: float(w) for g, w in zip(groups, noisy, strict=True) if w >= 1}
        means = {
            group: self.layout.mean(group, part, self.fixed_point(group), weights[group])
            for group, part in self.layout.parts(sums[UPDATE])
            if group in weights
        }
        return RoundSum(means, weights, {}, {})
