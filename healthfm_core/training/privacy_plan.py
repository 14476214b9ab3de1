"""How a site's rounds of a study are private: their noise, sampling rate and steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

from healthfm_core.config import PrivacyConfig
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.errors import PrivacyError
from healthfm_core.federation.protocol import Study
from healthfm_core.privacy.accounting import Mechanism, epsilon, noise_multiplier_for
from healthfm_core.privacy.distributed import noise_for


@dataclass(frozen=True)
class PrivacyPlan:
    """How a site's rounds of a study are private.

    Attributes:
        config: Clipping norms, and how per-person gradients are found.
        mechanism: Noise, sampling rate and steps of one round.
        rounds: How many the study has.
    """

    config: PrivacyConfig
    mechanism: Mechanism
    rounds: int

    @classmethod
    def shared(cls, config: PrivacyConfig, rounds: int) -> Self:
        """Return what it takes where the sites share the noise: a round is one noised sum."""
        noise = noise_for(config.epsilon or 0.0, config.delta, rounds)
        return cls(config, Mechanism(noise, 1.0, 1, discrete=True), rounds)

    @property
    def whole(self) -> Mechanism:
        """What all rounds of the study cost."""
        return replace(self.mechanism, steps=self.mechanism.steps * self.rounds)

    def epsilon(self) -> float:
        """Return ε of the whole study."""
        return epsilon([self.whole], self.config.delta)


def plan_privacy(sequences: Sequences, study: Study, config: PrivacyConfig) -> PrivacyPlan:
    """Return what a round of the study takes at a site: the noise that makes all its rounds fit.

    Args:
        sequences: The people the site trains on.
        study: Contract of the run.
        config: What holds at this site.

    Raises:
        PrivacyError: δ is not under 1 in the site's people, no noise reaches ε, or the study has
            rounds of regression, whose gradients are exact (HF-604).
    """
    train, people = study.config.train, sequences.n_subjects
    rounds = study.config.federation.rounds
    if train.regression_rounds:
        seen = f"the study asks for exact gradients in its last {train.regression_rounds} rounds"
        raise _unmet(seen, "Take part in a study with train.regression_rounds=0")
    if people * config.delta >= 1:
        raise _unmet("δ is 1 in the site's training people or more", "Set privacy.delta lower")
    if config.mechanism.noise_in_sum:
        return PrivacyPlan.shared(config, rounds)
    if people == 0:
        return PrivacyPlan(config, Mechanism(1.0, 1.0, 0), rounds)
    steps = math.ceil(people * train.local_epochs / train.batch_size)
    steps = steps if train.max_steps is None else min(steps, train.max_steps)
    rate = min(1.0, train.batch_size / people)
    noise = config.noise_multiplier
    if noise is None:
        noise = _noise(config.epsilon or 0.0, config.delta, rate, steps * rounds)
    return PrivacyPlan(config, Mechanism(noise, rate, steps), rounds)


def _noise(target: float, delta: float, rate: float, steps: int) -> float:
    try:
        return noise_multiplier_for(target, delta, rate, steps)
    except ValueError as error:
        raise _unmet("no noise reaches that ε in so many steps", "Ask for fewer rounds") from error


def _unmet(seen: str, do: str) -> PrivacyError:
    return PrivacyError(604, where="privacy", seen=seen, do=do)
