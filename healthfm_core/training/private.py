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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from healthfm_core.config import PrivacyConfig, TrainConfig
from healthfm_core.data.loader import BatchLoader, Query
from healthfm_core.data.sequences import Sequences
from healthfm_core.errors import PrivacyError
from healthfm_core.federation.groups import group_of
from healthfm_core.federation.protocol import RoundOrder, Study
from healthfm_core.models import HealthFM
from healthfm_core.models.decay import hold_half_lives
from healthfm_core.privacy.accounting import Mechanism, epsilon, noise_multiplier_for
from healthfm_core.privacy.clipping import TOGETHER, ClippedSum
from healthfm_core.privacy.entropy import Entropy, noised
from healthfm_core.seeding import numpy_generator
from healthfm_core.training.curriculum import in_round
from healthfm_core.training.schedule import learning_rate
from healthfm_core.training.site import loader_for
from healthfm_core.training.step import (
    LABEL_QUERY,
    NOW_QUERY,
    SEP_QUERY,
    WORN_QUERY,
    freeze,
    losses,
    optimizer_for,
    proximal,
    queries_for,
    set_learning_rate,
)

_HEAD_ASKED: Final[dict[Query, str]] = {
    SEP_QUERY: "next_visit",
    NOW_QUERY: "hazard",
    LABEL_QUERY: "label",
    WORN_QUERY: "cross_modal",
}
_HEADS_OF_WHAT_LEADS: Final = ("masked_codes", "wearable_reconstruction", "predictive_coding")


@dataclass(frozen=True)
class Private:
    """How a site's rounds of a study are private.

    Attributes:
        config: Norms, and how gradients are told apart.
        mechanism: Noise, sampling rate and steps of one round.
        rounds: How many the study has.
    """

    config: PrivacyConfig
    mechanism: Mechanism
    rounds: int

    @property
    def whole(self) -> Mechanism:
        """What all rounds of the study cost."""
        return replace(self.mechanism, steps=self.mechanism.steps * self.rounds)

    def epsilon(self) -> float:
        """Return ε of the whole study."""
        return epsilon([self.whole], self.config.delta)


@dataclass(frozen=True)
class Kind:
    """One kind of step: what it asks, of which rows.

    Attributes:
        query: Kind of row.
        config: The round's, with the weights of other kinds at 0.
        leads: Whether what asks nothing of its own is asked here.
        heads: Those that such a step trains.
    """

    query: Query
    config: TrainConfig
    leads: bool
    heads: frozenset[str]


def private_training(sequences: Sequences, study: Study, config: PrivacyConfig) -> Private:
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
    if people == 0:
        return Private(config, Mechanism(1.0, 1.0, 0), rounds)
    steps = math.ceil(people * train.local_epochs / train.batch_size)
    steps = steps if train.max_steps is None else min(steps, train.max_steps)
    rate = min(1.0, train.batch_size / people)
    noise = config.noise_multiplier
    if noise is None:
        noise = _noise(config.epsilon or 0.0, config.delta, rate, steps * rounds)
    return Private(config, Mechanism(noise, rate, steps), rounds)


def _noise(target: float, delta: float, rate: float, steps: int) -> float:
    try:
        return noise_multiplier_for(target, delta, rate, steps)
    except ValueError as error:
        raise _unmet("no noise reaches that ε in so many steps", "Ask for fewer rounds") from error


def train_privately(
    model: HealthFM,
    start: Mapping[str, Tensor],
    people: Sequences,
    study: Study,
    order: RoundOrder,
    private: Private,
    entropy: Entropy | None = None,
) -> dict[str, float]:
    """Run the round's steps on `model` in place; return metrics that tell nothing of the people.

    Args:
        model: The site's, without intercepts.
        start: Its parameters at the start, for FedProx.
        people: Whom it trains on.
        study: Contract of the run.
        order: Which round.
        private: Noise, sampling rate and steps.
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
        if config.fedprox_mu > 0:
            proximal(model, start, config.fedprox_mu).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        hold_half_lives(model)
    step.close()
    return {
        "steps": float(steps),
        "privacy_noise_multiplier": private.mechanism.noise_multiplier,
        "privacy_epsilon": private.epsilon(),
    }


def kinds_of(config: TrainConfig, model: HealthFM) -> tuple[Kind, ...]:
    """Return the kinds of step that train something of `model`; what the data hold plays no part.

    One pass through the model makes one kind: the next event, which reads the rows from left to
    right, is a kind of its own.
    """
    found = []
    queries = queries_for(config)
    for query in queries:
        leads = query == queries[0]
        heads = {_HEAD_ASKED[query], *(_HEADS_OF_WHAT_LEADS if leads else ())}
        found.append(Kind(query, _without(config, "next_event"), leads, _held(heads, model)))
    if config.objectives.next_event > 0:
        alone = _without(config, "next_visit")
        found.append(Kind(SEP_QUERY, alone, False, _held({"next_event"}, model)))
    return tuple(kind for kind in found if kind.heads)


def _held(heads: set[str], model: HealthFM) -> frozenset[str]:
    return frozenset(heads & set(model.heads))


def _without(config: TrainConfig, objective: str) -> TrainConfig:
    weights = config.objectives.model_copy(update={objective: 0.0})
    return config.model_copy(update={"objectives": weights})


class _Step:
    """Draws people, and leaves the noised mean of their clipped gradients on the parameters."""

    def __init__(
        self,
        model: HealthFM,
        loader: BatchLoader,
        private: Private,
        expected: int,
        entropy: Entropy,
    ) -> None:
        config = private.config
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._group = {name: group_of(name) if config.group_norms else TOGETHER for name in names}
        self._norms = {
            group: config.group_norms.get(group, config.max_grad_norm)
            for group in self._group.values()
        }
        self._model, self._loader, self._private = model, loader, private
        self._expected, self._entropy = expected, entropy
        self._rng = np.random.default_rng(entropy.seed())
        self._masks = torch.Generator().manual_seed(entropy.seed())
        self._sum = ClippedSum(model, self._norms, self._group, config.grad_sample)

    def __call__(self, kind: Kind) -> None:
        """Set the gradients of the parameters that a step of this kind trains.

        Nobody drawn is a step like any other: nothing is read, and the noise is the same.
        """
        people = self._loader.sequences.n_subjects
        drawn = self._entropy.chosen(people, self._private.mechanism.sample_rate)
        self._add(kind, drawn)
        live = {name for name in self._group if _is_live(name, kind)}
        groups = len({self._group[name] for name in live})
        spread = self._private.mechanism.noise_multiplier * math.sqrt(groups)
        parameters = dict(self._model.named_parameters())
        for name, total in self._sum.take(live).items():
            std = spread * self._norms[self._group[name]]
            mean = noised(total, std, self._entropy) / self._expected
            parameters[name].grad = mean.to(total.dtype)

    def close(self) -> None:
        """Take the hooks off the model."""
        self._sum.close()

    def _add(self, kind: Kind, drawn: np.ndarray) -> None:
        config = kind.config
        for batch in self._loader.sampled(
            self._rng,
            drawn,
            batch_size=self._private.config.rows_at_once,
            query=kind.query,
            drop_wearable=0.0 if kind.query == WORN_QUERY else config.drop_wearable,
            drop_genomics=config.drop_genomics,
            drop_ehr=config.cross_drop_ehr if kind.query == WORN_QUERY else config.drop_ehr,
            drop_events=config.drop_events,
        ):
            here = batch.to(self._model.device)
            found = losses(self._model, here, kind.query, config, self._masks, leads=kind.leads)
            lost = self._sum.add(found.per_subject).cpu().numpy()
            if lost.any():
                others = np.zeros_like(drawn)
                others[batch.subject.numpy()[~lost]] = True
                self._add(kind, others)


def _is_live(name: str, kind: Kind) -> bool:
    first, second = name.split(".")[:2]
    return first != "heads" or second in kind.heads


def _unmet(seen: str, do: str) -> PrivacyError:
    return PrivacyError(
        604,
        where="privacy",
        seen=seen,
        wanted="settings that protect each person of this site",
        do=do,
    )
