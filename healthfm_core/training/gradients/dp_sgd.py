"""Local training with patient-level differential privacy (DP-SGD, Abadi et al. 2016).

In each step every person of the site is drawn by itself with one probability; the loss of each one
drawn is a sum over the whole of their row; each one's gradient is clipped to a norm; to the sum of
what is left Gaussian noise is added; and only then does the optimiser see it. The unit is the
person, neighbours differ by one person, and the guarantee is for the update that leaves, whoever
reads it. Which objective a step trains is drawn too, without a look at the data, so that a step
reads one row of a person at most: the sampling rate of a step is the same whichever it is.

Everything that is drawn here comes from the operating system, masks and dropout too: the
coordinator knows the seed it sent, and a mask of one person must not follow from who else was
there. So no two private rounds are alike.

Not covered by ε: how many people the site has and how many hold each modality; the counts and
sketches of the vocabulary; tuning metrics, where the configuration lets them leave; anything that
was chosen by looking at results of this site.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from healthfm_core.config import PrivacyConfig
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.errors import PrivacyError
from healthfm_core.federation.protocol import RoundOrder, Study
from healthfm_core.models import HealthFM
from healthfm_core.models.decay import clamp_half_lives
from healthfm_core.privacy.accounting import Mechanism, epsilon, noise_multiplier_for
from healthfm_core.privacy.distributed import noise_for
from healthfm_core.privacy.entropy import Entropy, noised
from healthfm_core.seeding import numpy_generator
from healthfm_core.training.curriculum import in_round
from healthfm_core.training.gradients.clipped import ClippedGradients, Kind, kinds_of
from healthfm_core.training.gradients.corrections import GradientCorrection
from healthfm_core.training.schedule import learning_rate
from healthfm_core.training.site import loader_for
from healthfm_core.training.step import (
    freeze,
    optimizer_for,
    set_learning_rate,
)


@dataclass(frozen=True)
class PrivacyPlan:
    """How a site's rounds of a study are private.

    Attributes:
        config: Norms, and how gradients are told apart.
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
        return cls(config, Mechanism(noise, 1.0, 1), rounds)

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
        PrivacyError: δ is not under 1 in the site's people, or no noise reaches ε (HF-604).
    """
    train, people = study.config.train, sequences.n_subjects
    rounds = study.config.federation.rounds
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


def dp_sgd(
    model: HealthFM,
    people: Sequences,
    study: Study,
    order: RoundOrder,
    private: PrivacyPlan,
    corrections: Sequence[GradientCorrection] = (),
    entropy: Entropy | None = None,
) -> dict[str, float]:
    """Run the round's steps on `model` in place; return metrics that tell nothing of the people.

    Args:
        model: The site's, without intercepts.
        people: Whom it trains on.
        study: Contract of the run.
        order: Which round.
        private: Noise, sampling rate and steps.
        corrections: Added to every step's noised gradient.
        entropy: The operating system's where not given.
    """
    entropy = entropy or Entropy()
    config = in_round(study.config.train, round_=order.round, rounds=order.rounds)
    loader, steps = loader_for(people, study), private.mechanism.steps
    kinds = kinds_of(config, model)
    which = numpy_generator(order.seed, "kinds", order.round)  # nobody's secret
    freeze(model, config.learns)
    optimizer = optimizer_for(model, config)
    torch.manual_seed(entropy.seed())
    step = _Step(model, loader, private, config.batch_size, entropy)
    model.train()
    for done in range(steps if kinds else 0):
        rate = learning_rate(config, round_=order.round, rounds=order.rounds, done=done / steps)
        set_learning_rate(optimizer, rate)
        optimizer.zero_grad(set_to_none=True)
        step(kinds[int(which.integers(len(kinds)))])
        for correct in corrections:
            correct(model)
        optimizer.step()
        clamp_half_lives(model)
    step.close()
    return {
        "steps": float(steps),
        "privacy_noise_multiplier": private.mechanism.noise_multiplier,
        "privacy_epsilon": private.epsilon(),
    }


class _Step:
    """Draws people, and leaves the noised mean of their clipped gradients on the parameters."""

    def __init__(
        self,
        model: HealthFM,
        loader: BatchLoader,
        private: PrivacyPlan,
        expected: int,
        entropy: Entropy,
    ) -> None:
        self._model, self._private = model, private
        self._expected, self._entropy = expected, entropy
        self._people = loader.sequences.n_subjects
        self._pass = ClippedGradients(model, loader, private.config, entropy)

    def __call__(self, kind: Kind) -> None:
        """Set the gradients of the parameters that a step of this kind trains.

        Nobody drawn is a step like any other: nothing is read, and the noise is the same.
        """
        mechanism = self._private.mechanism
        sums = self._pass(kind, self._entropy.chosen(self._people, mechanism.sample_rate))
        norms = self._pass.norms(sums)
        spread = mechanism.noise_multiplier * math.sqrt(self._pass.groups(sums))
        parameters = dict(self._model.named_parameters())
        for name, total in sums.items():
            mean = noised(total, spread * norms[name], self._entropy) / self._expected
            parameters[name].grad = mean.to(total.dtype)

    def close(self) -> None:
        """Take the hooks off the model."""
        self._pass.close()


def _unmet(seen: str, do: str) -> PrivacyError:
    return PrivacyError(
        604,
        where="privacy",
        seen=seen,
        wanted="settings that protect each person of this site",
        do=do,
    )
