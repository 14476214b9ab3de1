"""The federated training that is attacked: people of all sites, half of them drawn by coins.

The attacker has the model that leaves, as anybody may in the end, and knows all but the coins. What
it is trained on is mixed by the weighted mean of the sites' updates, round after round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from healthfm_core.arrays import Bool, Float32Arrays, Float64
from healthfm_core.config import PrivacyConfig
from healthfm_core.federation.aggregation.weighted_mean import WeightedMean
from healthfm_core.federation.protocol import RoundResult
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.seeding import numpy_generator
from healthfm_core.training import initial_parameters
from healthfm_simulations.privacy_audit.audited_site import AuditedSite


@dataclass(frozen=True)
class AuditedFederation:
    """Sites that train one model together, all of whose people are attacked.

    Attributes:
        sites: The sites, of one study.
    """

    sites: tuple[AuditedSite, ...]

    @property
    def privacy(self) -> PrivacyConfig:
        """Noise of every site, or none."""
        return self.sites[0].privacy

    @property
    def first(self) -> AuditedSite:
        """The site whose updates are read for codes."""
        return self.sites[0]

    def trained_with(self, privacy: PrivacyConfig) -> Self:
        """Return the same federation with other noise."""
        return replace(self, sites=tuple(site.trained_with(privacy) for site in self.sites))

    def promised(self) -> float | None:
        """Return the largest ε of a site's people, None without noise."""
        found = [site.promised() for site in self.sites]
        return max((each for each in found if each is not None), default=None)

    def coins(self, seed: int, name: str) -> Bool:
        """Return whom a model called `name` is trained on: every person by a fair coin."""
        return numpy_generator(seed, "coins", name).random(self._ends[-1]) < 0.5

    def train(self, member: Bool, seed: int) -> Float32Arrays:
        """Return the model that the members of all sites make in all rounds of the study."""
        study, own = self.first.study, np.split(member, self._ends[:-1])
        chosen = [site.of(keep) for site, keep in zip(self.sites, own, strict=True)]
        parameters = dict(initial_parameters(study))
        for round_ in range(1, study.config.federation.rounds + 1):
            results = [site.round(parameters, round_, seed) for site in chosen]
            for name, change in self._mean(parameters, results).items():
                parameters[name] = parameters[name] + change
        return parameters

    def losses(self, parameters: Float32Arrays) -> Float64:
        """Return the loss of each person of all sites, in the order of the sites."""
        return np.concatenate([site.losses(parameters) for site in self.sites])

    def sum_with_one(self, person: int, seed: int) -> Float32Arrays:
        """Return what a secure sum opens of a step: one person's of the first site, others' whole.

        Weighted as the mean weighs sites: the first one has a single person in it.
        """
        start = initial_parameters(self.first.study)
        alone = self.first.step_of_one(person, seed)
        others = [site.one_step().round(start, 1, seed) for site in self.sites[1:]]
        return self._mean(start, [alone, *others])

    @property
    def _ends(self) -> list[int]:
        sizes = [site.data.train.n_subjects for site in self.sites]
        return [int(end) for end in np.cumsum(sizes)]

    def _mean(self, parameters: Float32Arrays, results: list[RoundResult]) -> Float32Arrays:
        aggregation = self.first.study.config.federation.aggregation
        schema = UpdateSchema.of(parameters, aggregation.max_update_norm)
        mean = WeightedMean(schema, float(self._ends[-1]))
        for number, result in enumerate(results):
            held = {group: weight for group, weight in result.weights.items() if weight > 0}
            mean.add(str(number), result.update, held)
        return {
            name: change.astype(np.float32)
            for group in schema.groups
            if mean.has_enough_sites(group)
            for name, change in mean.result(group).items()
        }
