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
from healthfm_core.federation.declared_metrics import declared_metrics
from healthfm_core.federation.parameter_groups import is_trainable
from healthfm_core.federation.protocol import Study
from healthfm_core.federation.secure.clipped_sum_codec import GradientLayout
from healthfm_core.federation.secure.update_codec import COUNTS, UPDATE, RoundLayout, RoundSum
from healthfm_core.federation.update_checks import Contract
from healthfm_core.privacy.discrete_gaussian import discrete_gaussian
from healthfm_core.privacy.distributed import concentrated, noise_for, room
from healthfm_core.privacy.secure_aggregation import FixedPoint, KeyBook
from healthfm_core.privacy.secure_aggregation.masks import Ring

_COUNT_UNITS: Final = 1 << 16
"""Units of a weight, so that noise on it is drawn as finely as on an update."""


@dataclass(frozen=True)
class NoisyLayout(RoundLayout):
    """A round's layout with noise; `capacity` is the number of sites and there are no metrics.

    Attributes:
        multiplier: Noise of a round's sum over its sensitivity, as if it were one query.
        honest: Sites whose shares of noise are counted on.
    """

    multiplier: float = 1.0
    honest: int = 1

    @property
    def _times(self) -> float:
        """Standard deviation of one site's share, over the sensitivity of a query."""
        queries = len(self.contract.groups) + 1
        return self.multiplier * math.sqrt(queries / self.honest)

    @property
    def _unit(self) -> float:
        return 2.0 if self.config.unit == "subject" else 1.0

    def ring(self, group: str) -> FixedPoint:
        """Return the fixed point of a group's numbers, with room for the noise."""
        clip = self.config.clips.get(group, self.config.clip)
        noise = self._unit * self._times
        most = room(float(self.sites), noise, self.sites, self.config.ring_bits)
        return FixedPoint(self.config.ring_bits, clip, math.ceil(most), self.sites)

    @cached_property
    def _queries(self) -> dict[str, tuple[float, int]]:
        """Return query → (sensitivity in units of the ring, length); "" is the weights."""
        groups = self.contract.groups
        found = {}
        for group in groups:
            ring, length = self.ring(group), self._size(group)
            whole = ring.clip * ring.scale + math.sqrt(length) / 2
            found[group] = (self._unit * whole, length)
        found[""] = (self._unit * math.sqrt(len(groups)) * _COUNT_UNITS, len(groups))
        return found

    def _variance(self, query: str) -> int:
        return max(1, math.ceil((self._times * self._queries[query][0]) ** 2))

    @property
    def rho(self) -> float:
        """What one round costs, in concentrated differential privacy."""
        return math.fsum(
            concentrated(sensitivity, math.sqrt(self._variance(query)), self.honest, length)
            for query, (sensitivity, length) in self._queries.items()
        )

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
        arrays = super().encode(update, held, {}, 0.0)
        for group, part in self._parts(arrays[UPDATE]):
            part += discrete_gaussian(self._variance(group), part.size).astype(part.dtype)
        counts, groups = arrays[COUNTS], list(self.contract.groups)
        counts[:] = 0
        counts[: len(groups)] = [_COUNT_UNITS * (group in held) for group in groups]
        share = discrete_gaussian(self._variance(""), len(groups))
        counts[: len(groups)] += share.astype(np.uint64)
        return arrays

    def decode(self, sums: Mapping[str, Ring]) -> RoundSum:
        """Return what the opened sums say; a group under one site, after noise, has not moved."""
        groups = list(self.contract.groups)
        noisy = sums[COUNTS][: len(groups)].view(np.int64) / _COUNT_UNITS
        weights = {g: float(w) for g, w in zip(groups, noisy, strict=True) if w >= 1}
        means = {
            group: self._mean(group, part, weights[group])
            for group, part in self._parts(sums[UPDATE])
            if group in weights
        }
        return RoundSum(means, weights, {}, {})


def round_layout(study: Study, contract: Contract, book: KeyBook, capacity: int) -> RoundLayout:
    """Return how a round's replies stand in the ring, the same at every site and the coordinator.

    With gradients (`privacy.mode=distributed`) it holds the trained parameters, and no others.

    Args:
        study: Whose configuration says clips, ring and noise.
        contract: Names and shapes of what is summed.
        book: The session's keys, from which the number of sites follows.
        capacity: Training subjects of all its sites together.
    """
    config, privacy = study.config.federation.aggregation.secure, study.config.privacy
    sites, rounds = len(book.adverts), study.config.federation.rounds
    honest = max(1, book.least - math.ceil(config.colluding_fraction * sites))
    if privacy.mechanism.noise_in_sum:
        trained = [n for n in contract.shapes if is_trainable(n, study.config.train.trainable)]
        multiplier = noise_for(privacy.epsilon or 0.0, privacy.delta, rounds)
        summed, norm = contract.only(trained), privacy.max_grad_norm
        return GradientLayout(summed, (), capacity, sites, config, norm, multiplier, honest)
    if config.epsilon is None:
        return RoundLayout(contract, declared_metrics(study), capacity, sites, config)
    multiplier = noise_for(config.epsilon, config.delta, rounds)
    return NoisyLayout(contract, (), sites, sites, config, multiplier, honest)
