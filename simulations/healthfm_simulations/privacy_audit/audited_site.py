"""The training that is attacked: one site's people, half of them drawn by coins, all its rounds.

The attacker is a coordinator at its best: the site trains alone, so that nothing of anybody else is
mixed into the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from healthfm_core.arrays import Bool, Float32Arrays, Float64
from healthfm_core.config import PrivacyConfig
from healthfm_core.data.batch.segments import offsets_of, ranges
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.federation.parameter_groups import group_of, groups_held
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.seeding import numpy_generator, seed_for
from healthfm_core.training import (
    PrivacyPlan,
    SiteData,
    initial_parameters,
    loaded_model,
    loader_for,
    plan_privacy,
    train_round,
)
from healthfm_core.training.passes import losses, passes_for


@dataclass(frozen=True)
class AuditedSite:
    """A site and a way to train there.

    Attributes:
        data: The site's people, all of whom are attacked.
        study: Contract of the run; its rounds are the site's.
        privacy: Noise, or none.
    """

    data: SiteData
    study: Study
    privacy: PrivacyConfig

    def coins(self, seed: int, name: str) -> Bool:
        """Return whom a model called `name` is trained on: every person by a fair coin."""
        return numpy_generator(seed, "coins", name).random(self.data.train.n_subjects) < 0.5

    def train(self, member: Bool, seed: int) -> Float32Arrays:
        """Return the model that the members alone make in all rounds of the study."""
        chosen, parameters = self.of(member), initial_parameters(self.study)
        for round_ in range(1, self.study.config.federation.rounds + 1):
            for name, change in chosen.round(parameters, round_, seed).update.items():
                parameters[name] = parameters[name] + change
        return parameters

    @property
    def first(self) -> AuditedSite:
        """The site whose updates are read for codes: this one."""
        return self

    def trained_with(self, privacy: PrivacyConfig) -> AuditedSite:
        """Return the same site with other noise."""
        return replace(self, privacy=privacy)

    def promised(self) -> float | None:
        """Return ε of the training, None without noise."""
        private = self.private(self.data)
        return None if private is None else private.epsilon()

    def of(self, keep: Bool) -> AuditedSite:
        """Return the site with some of its people."""
        data = replace(self.data, train=people_of(self.data.train, keep), intercepts={})
        return replace(self, data=data)

    def one_step(self) -> AuditedSite:
        """Return the site in a study whose rounds are one step."""
        return replace(self, study=_with_one_step(self.study))

    def round(self, parameters: Float32Arrays, round_: int, seed: int) -> RoundResult:
        """Return the update of a round of the site's people, with its own noise."""
        return self._round(parameters, self.data, round_, seed, self.private(self.data))

    def private(self, data: SiteData) -> PrivacyPlan | None:
        """Return the noise the site trains `data` with."""
        if not self.privacy.mechanism.is_private:
            return None
        return plan_privacy(data.train, self.study, self.privacy)

    def losses(self, parameters: Float32Arrays) -> Float64:
        """Return each person's loss, [N], of the objectives that read their first kind of row."""
        model = loaded_model(self._held(parameters), self.study, self.data.modalities).eval()
        config = self.study.config.train
        first, *_ = every = passes_for(config)
        passes = [part for part in every if part.query == first.query]
        loss = np.full(self.data.train.n_subjects, np.nan)
        batches = loader_for(self.data.train, self.study).in_order(batch_size=64, query=first.query)
        for batch in batches:
            masks = torch.Generator().manual_seed(0)
            with torch.no_grad():
                each = losses(model, batch.to(model.device), passes, config, masks).per_subject
            loss[batch.subject.numpy()] = each.cpu().numpy()
        return loss

    def update_of_one(self, person: int, seed: int) -> Float32Arrays:
        """Return the update of a single step made from one person, with the site's own noise."""
        return dict(self.step_of_one(person, seed).update)

    def step_of_one(self, person: int, seed: int) -> RoundResult:
        """Return what a single step made from one person gives, with the site's own noise."""
        data = self.of(np.arange(self.data.train.n_subjects) == person).data
        private = self.private(self.data)
        if private is not None:
            private = replace(private, mechanism=_one_step(private.mechanism))
        victim = self.one_step()
        return victim._round(initial_parameters(victim.study), data, 1, seed, private)

    def _held(self, parameters: Float32Arrays) -> Float32Arrays:
        """Return the parameters of the groups that the site holds."""
        groups = groups_held(self.data.modalities, sorted({group_of(name) for name in parameters}))
        return {name: array for name, array in parameters.items() if group_of(name) in groups}

    def _round(
        self,
        parameters: Float32Arrays,
        data: SiteData,
        round_: int,
        seed: int,
        private: PrivacyPlan | None,
    ) -> RoundResult:
        parameters = self._held(parameters)
        order = RoundOrder(
            round=round_,
            rounds=self.study.config.federation.rounds,
            groups=tuple(sorted({group_of(name) for name in parameters})),
            evaluate=False,
            seed=seed_for(seed, "round", round_),
        )
        return train_round(parameters, data, self.study, order, private)


def _one_step(mechanism: Mechanism) -> Mechanism:
    return replace(mechanism, sample_rate=1.0, steps=1)


def _with_one_step(study: Study) -> Study:
    train = study.config.train.model_copy(update={"max_steps": 1, "drop_events": 0.0})
    return replace(study, config=study.config.model_copy(update={"train": train}))


def people_of(sequences: Sequences, keep: Bool) -> Sequences:
    """Return the sequences of some of the people, renumbered in their order."""
    who = np.flatnonzero(keep)
    s = sequences
    items = ranges(s.offsets[who], np.diff(s.offsets)[who])
    visits = ranges(s.visit_offsets[who], np.diff(s.visit_offsets)[who])
    targets = ranges(s.visit_target_offsets[visits], np.diff(s.visit_target_offsets)[visits])
    labels = np.flatnonzero(keep[s.label_subject])
    number = np.cumsum(keep) - 1
    return replace(
        s,
        **{name: getattr(s, name)[who] for name in ("subject_id", "site", "birth_us")},
        **{name: getattr(s, name)[who] for name in ("panel", "panel_mask")},
        **{
            name: getattr(s, name)[items]
            for name in (
                *("kind", "token", "code", "quantile", "spread", "has_value", "time_us"),
                *("visit", "wearable_row"),
            )
        },
        offsets=offsets_of(np.diff(s.offsets)[who]),
        visit_offsets=offsets_of(np.diff(s.visit_offsets)[who]),
        visit_time_us=s.visit_time_us[visits],
        visit_target_offsets=offsets_of(np.diff(s.visit_target_offsets)[visits]),
        visit_target=s.visit_target[targets],
        label_subject=number[s.label_subject[labels]],
        label_time_us=s.label_time_us[labels],
        label_value=s.label_value[labels],
    )
