"""The updates of one round in the clear: each counts for no more than one site may.

An update is added the moment it arrives and dropped, where it is known by then how long the group's
updates are and how many people the other sites have in it. In a group's first round, and in the
first after a restart, neither is: there each waits on disk until the last is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import ArrayDict, Arrays, Float64
from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.federation.aggregation.aggregator import Aggregator
from healthfm_core.federation.aggregation.weighted_mean import PartialSums, WeightedMean
from healthfm_core.federation.influence_bounds import (
    FEWEST_SITES,
    MEDIAN_NORM,
    shortened,
    weight_beside,
    weight_cap,
)
from healthfm_core.federation.update_checks import UpdateSchema, update_norm
from healthfm_server.transport.array_file import put_on_disk
from healthfm_server.transport.interface import GroupTally, OpenRound


@dataclass
class RoundInbox:
    """The updates of one round so far.

    Attributes:
        current: The round; is told who counts for less than it said.
        schema: Names each group's arrays.
        config: How much one site may move the model.
        aggregator: Has the updates.
        medians: Group → running median of its updates' norms; none of a group without a round.
        people: Group → site → people that it last said it has; is kept by the caller from round
            to round.
        weights: Site → group → the weight with which its update was added.
        norms: Group → site → the norm that its update had.
        waiting: Site → its update and what it said of its people, not added yet.
    """

    current: OpenRound
    schema: UpdateSchema
    config: AggregationConfig
    aggregator: Aggregator
    medians: Mapping[str, float]
    people: dict[str, dict[str, float]]
    weights: dict[str, Mapping[str, float]] = field(default_factory=dict)
    norms: dict[str, dict[str, float]] = field(default_factory=dict)
    waiting: dict[str, tuple[Arrays, Mapping[str, float]]] = field(default_factory=dict)

    def take(self, site: str, update: Arrays, weights: Mapping[str, float]) -> None:
        """Take an update that `check_update` has passed.

        Args:
            site: Whose.
            update: Its arrays.
            weights: Group → its training subjects, as the site says.
        """
        for group, weight in weights.items():
            names = [name for name in self.schema.groups[group] if "/" not in name]
            self.norms.setdefault(group, {})[site] = update_norm(update, names)
            self.people.setdefault(group, {})[site] = weight
        if all(map(self._is_known, weights)):
            self._add(site, update, weights)
        else:
            self.waiting[site] = put_on_disk(update, self.current.store.folder), weights

    def take_sums(
        self, region: str, sums: Arrays, weights: Mapping[str, float], n_subjects: int
    ) -> None:
        """Take what a regional coordinator's sites add up to; it has held each to its bounds.

        Args:
            region: Whose.
            sums: Parameter → Σ w·Δ.
            weights: Group → Σ w.
            n_subjects: The people of all its sites.

        Raises:
            ValueError: They are no sums of this round, or the algorithm cannot add sums.
        """
        if not isinstance(self.aggregator, WeightedMean):
            raise ValueError(
                "only federation.aggregation.method=weighted_mean adds sums of regions"
            )
        if not set(weights) <= self._groups_of(region):
            raise ValueError("it moves a group that it was not asked for")
        if max(weights.values(), default=0.0) > n_subjects:
            raise ValueError("a weight of more people than its sites have")
        held = {g: {n: _float64(n, sums[n]) for n in self.schema.groups[g]} for g in weights}
        if sum(map(len, held.values())) != len(sums):
            raise ValueError("parameters of no group that it moves")
        self.aggregator.add_sums(region, PartialSums(held, weights))
        self.weights[region] = dict(weights)

    def _groups_of(self, site: str) -> set[str]:
        return set(self.current.asked[site])

    def close(self) -> None:
        """Add those that wait: whoever answers in this round has."""
        for site, (update, weights) in sorted(self.waiting.items()):
            self._add(site, update, weights)
        self.waiting.clear()

    def tallies(self) -> dict[str, GroupTally]:
        """Return what stands behind each group's result."""
        moved: dict[str, list[float]] = {}
        for weights in self.weights.values():
            for group, weight in weights.items():
                moved.setdefault(group, []).append(weight)
        return {
            group: GroupTally(len(each), math.fsum(each), self._median_norm(group))
            for group, each in moved.items()
        }

    def _median_norm(self, group: str) -> dict[str, float]:
        norms = self.norms.get(group)  # none where regions alone moved it
        return {MEDIAN_NORM: median(norms.values())} if norms else {}

    def _is_known(self, group: str) -> bool:
        asked = self._asked(group)
        if len(asked) < FEWEST_SITES:
            return True
        return group in self.medians and len(asked & self.people[group].keys()) >= FEWEST_SITES

    def _asked(self, group: str) -> set[str]:
        return {site for site, groups in self.current.asked.items() if group in groups}

    def _longest(self, group: str) -> float:
        """Return the norm that an update of `group` may have at most."""
        usual = self.medians.get(group)
        if usual is None and len(self.norms[group]) >= FEWEST_SITES:
            usual = median(self.norms[group].values())
        return self.config.max_norm_ratio * usual if usual else math.inf

    def _most(self, group: str, site: str) -> float:
        """Return the weight that a site may have in `group` at most."""
        if site in self.current.others_weight:
            return weight_beside(self.current.others_weight[site], self.config.max_weight_share)
        asked = self._asked(group)
        sizes = [size for site, size in self.people[group].items() if site in asked]
        return weight_cap(sizes, self.config.max_weight_share)

    def _add(self, site: str, update: Arrays, weights: Mapping[str, float]) -> None:
        counted = {group: min(weight, self._most(group, site)) for group, weight in weights.items()}
        less = [group for group in weights if counted[group] < weights[group]]
        if less:
            share = self.config.max_weight_share
            self.current.bound(
                site, f"its size would be more than {share:.0%} of the round in {', '.join(less)}"
            )
        kept: ArrayDict = {}
        for group in counted:
            longest = self._longest(group)
            arrays, norm = shortened(update, group, self.schema, longest)
            if norm > longest:
                times = norm / longest
                self.current.bound(site, f"its update of {group} is {times:.1f} times too long")
            kept |= arrays
        self.aggregator.add(site, kept, counted)
        self.weights[site] = counted


def _float64(name: str, array: npt.NDArray[Any]) -> Float64:
    if array.dtype != np.float64:
        raise ValueError(f"the sum of {name} is of another type")
    return array
