"""The mechanisms of differential privacy, one spec each: ``privacy.mode`` is one of their names.

Everybody who has to know how a run is private asks the spec, never the name. A new mechanism is a
spec here and what its local step does, in `healthfm_core.training.gradients`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from healthfm_core.config.secure_aggregation import COARSE_BITS
from healthfm_core.config.train import ObjectivesConfig

if TYPE_CHECKING:
    from healthfm_core.config.privacy import PrivacyConfig
    from healthfm_core.config.run import RunConfig


@dataclass(frozen=True)
class PrivacyMechanism:
    """What a run's parts have to know of a mechanism.

    Attributes:
        name: The value of ``privacy.mode``.
        per_site_noise: Every site adds all the noise that hides its people before its update
            leaves, whoever reads it.
        noise_in_sum: The sites add the noise together, once a round, to a masked sum of clipped
            gradients: the site's update is that sum, and secure aggregation has to be on.
        missing: Says what the ``privacy`` group lacks for it; None where it is whole.
        conflict: Says what in the rest of the run's configuration is against it; None where
            nothing is.
    """

    name: str
    per_site_noise: bool = False
    noise_in_sum: bool = False
    missing: Callable[[PrivacyConfig], str | None] | None = None
    conflict: Callable[[RunConfig], str | None] | None = None

    @property
    def is_private(self) -> bool:
        """Whether anybody is hidden by noise."""
        return self.per_site_noise or self.noise_in_sum


def _dp_takes_one_of_two(config: PrivacyConfig) -> str | None:
    if (config.epsilon is None) == (config.noise_multiplier is None):
        return "privacy.mode=dp takes either epsilon or noise_multiplier"
    return None


def _distributed_takes_epsilon(config: PrivacyConfig) -> str | None:
    if config.epsilon is None or config.noise_multiplier or config.group_norms:
        return "privacy.mode=distributed takes epsilon, not noise_multiplier nor group_norms"
    return None


def _distributed_is_one_sum_a_round(config: RunConfig) -> str | None:
    secure, train = config.federation.aggregation.secure, config.train
    if not secure.enabled or secure.epsilon is not None:
        return (
            "privacy.mode=distributed needs federation.aggregation.secure.enabled, and its own "
            "epsilon instead of federation.aggregation.secure.epsilon"
        )
    if secure.ring_bits == COARSE_BITS:
        return (
            "privacy.mode=distributed adds up everybody's clipped gradients and their noise, for "
            "which federation.aggregation.secure.ring_bits=16 has no room: leave it at 32"
        )
    weights = train.objectives.model_dump()
    asking = ObjectivesConfig.asking()
    if sum(weights[name] > 0 for name in asking) > 1 or train.curriculum != "none":
        return (
            "privacy.mode=distributed trains one question in every round: leave one of "
            f"train.objectives {', '.join(asking)} above 0, and train.curriculum=none"
        )
    return None


MECHANISMS: Final[Mapping[str, PrivacyMechanism]] = {
    spec.name: spec
    for spec in (
        PrivacyMechanism("off"),
        PrivacyMechanism("dp", per_site_noise=True, missing=_dp_takes_one_of_two),
        PrivacyMechanism(
            "distributed",
            noise_in_sum=True,
            missing=_distributed_takes_epsilon,
            conflict=_distributed_is_one_sum_a_round,
        ),
    )
}
"""Name → mechanism."""


def hides_each_person(privacy: Mapping[str, object]) -> bool:
    """Return whether every site adds noise for each person, by a ``privacy`` group as JSON."""
    spec = MECHANISMS.get(str(privacy.get("mode", "off")))
    return spec is not None and spec.per_site_noise
