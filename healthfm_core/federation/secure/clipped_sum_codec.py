"""Rounds that sum every person's clipped gradient, with noise for all people of all sites together.

A round is one step of the server's optimiser. No person moves the whole sum, all groups side by
side, by more than the norm, so the noise that hides one person is that of one person, not of a
site (`noisy_update_codec`), and it is shared by all sites: h honest ones add 1/h of its variance
each. With local noise each of n sites would add all of it.

The sum is divided by the number of training people that the sites registered with, which is
public. Which groups a site holds plays no part: who lacks a modality has no gradient of it. Only
what is trained is summed, and noise goes to nothing else.

Not covered by ε: the statistics of round 0, each site's number of subjects, who took part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Arrays
from healthfm_core.federation.secure.group_layout import GroupLayout
from healthfm_core.federation.secure.update_codec import UPDATE, RoundSum
from healthfm_core.privacy.discrete_gaussian import discrete_gaussian
from healthfm_core.privacy.distributed import check_share, concentrated, room
from healthfm_core.privacy.secure_aggregation import FixedPoint
from healthfm_core.privacy.secure_aggregation.fixed_point import unfit_value
from healthfm_core.privacy.secure_aggregation.masks import Ring


@dataclass(frozen=True)
class ClippedSumCodec:
    """Sums of clipped gradients with noise; there are no weights and no metrics.

    Attributes:
        layout: Where each group stands, of the parameters that are trained.
        capacity: Training people of all sites.
        sites: Most sites in the sum.
        ring_bits: The ring is the integers modulo 2^ring_bits.
        norm: What a person's gradient was clipped to.
        multiplier: Noise of a round's sum over the norm.
        honest: Sites whose shares of noise are counted on.
    """

    layout: GroupLayout
    capacity: int
    sites: int
    ring_bits: Literal[32, 64]
    norm: float = 1.0
    multiplier: float = 1.0
    honest: int = 1

    def sizes(self) -> dict[str, tuple[int, str]]:
        """Return array → (length, type)."""
        return {UPDATE: (self.layout.length, f"uint{self.ring_bits}")}

    @property
    def _share(self) -> float:
        """Standard deviation of one site's noise, in norms."""
        return self.multiplier / math.sqrt(self.honest)

    @cached_property
    def fixed_point(self) -> FixedPoint:
        """How all numbers stand in the ring; its clip is what the noised sum can come to."""
        most = room(float(self.capacity), self._share, self.sites, self.ring_bits)
        return FixedPoint(self.ring_bits, self.norm * most, 1, self.sites)

    @cached_property
    def _sensitivity(self) -> float:
        """What one person moves the sum by, in units of the ring; rounding adds up to √length."""
        return self.norm * self.fixed_point.scale + math.sqrt(self.layout.length)

    @property
    def _variance(self) -> int:
        return max(1, math.ceil((self._share * self._sensitivity) ** 2))

    @property
    def rho(self) -> float:
        """What one round costs a person, in concentrated differential privacy."""
        return concentrated(
            self._sensitivity, math.sqrt(self._variance), self.honest, self.layout.length
        )

    def encode(
        self,
        update: Arrays,
        weights: Mapping[str, float],
        metrics: Mapping[str, float],
        metric_weight: float,
    ) -> dict[str, Ring]:
        """Return a site's sum with its share of the noise, not masked yet.

        Args:
            update: Parameter → minus the sum of the clipped gradients.
            weights: Groups that may leave the site; how many people hold them is not used.
            metrics: Not used.
            metric_weight: Not used.

        Raises:
            PrivacyError: A value is not finite, or over what clipped gradients add up to (HF-613).
        """
        total, start = np.zeros(self.layout.length, self.fixed_point.dtype), 0
        for group, names in self.layout.schema.groups.items():
            for name in names:
                size = math.prod(self.layout.schema.shapes[name])
                if weights.get(group) and name in update:
                    self._encode(update[name], name, total[start : start + size])
                start += size
        check_share(self._variance)
        total += discrete_gaussian(self._variance, total.size).astype(total.dtype)
        return {UPDATE: total}

    def _encode(self, values: npt.NDArray[Any], name: str, out: Ring) -> None:
        if values.shape != self.layout.schema.shapes[name]:
            raise unfit_value("a sum of gradients of another shape than its parameter")
        if not float(np.linalg.norm(values.astype(np.float64))) <= self.norm * self.capacity:
            raise unfit_value("a sum of gradients over what all people's norms come to")
        self.fixed_point.encode(values.reshape(-1), 1, out)

    def decode(self, sums: Mapping[str, Ring], present: float = 1.0) -> RoundSum:
        """Return minus the noised mean gradient over everyone, by group."""
        groups = self.layout.schema.groups
        means = {
            group: self.layout.mean(group, part, self.fixed_point, float(self.capacity))
            for group, part in self.layout.parts(sums[UPDATE])
        }
        return RoundSum(means, dict.fromkeys(groups, float(self.capacity)), {}, {})
