"""A site's held-out people, as a study's model is asked about them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from healthfm_core.arrays import Float32, Int64
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.evaluation import Predictions
from healthfm_core.evaluation.analyses.people_groups import people_groups
from healthfm_core.evaluation.analyses.subgroups import Groups
from healthfm_core.federation.parameter_groups import group_names, group_of, groups_held
from healthfm_core.federation.protocol import Study
from healthfm_core.models.inference import answer
from healthfm_core.objectives import heads_for
from healthfm_core.seeding import numpy_generator
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.training import Intercepts, loaded_model, loader_for
from healthfm_core.training.site_data import training_splits

SPLIT: Final = "held_out"
MOST_PEOPLE: Final = 20_000
MOST_CELLS: Final = 10_000_000
"""Predictions (a row per query and target) that are scored at most; of more, batches are drawn."""


@dataclass(frozen=True)
class HeldOutPeople:
    """One site's people who train nobody.

    Attributes:
        people: Their records, tokenised by the study's vocabulary.
        study: The study.
        modalities: What the site holds of the study's.
        intercepts: The site's own, by head; they stay there.
    """

    people: Sequences
    study: Study
    modalities: frozenset[str]
    intercepts: Intercepts

    @classmethod
    def load(cls, stores: Sequence[StoreView], study: Study, intercepts: Intercepts) -> Self:
        """Tokenise the held-out people of stores of which no two share a person."""
        wanted = frozenset(study.modalities)
        views = [store.narrowed(modalities=wanted & store.modalities) for store in stores]
        task = study.config.label_task
        people = tokenize(views, study.vocabulary, study.config.tokens, split=SPLIT, task=task)
        held = frozenset[str]().union(*(view.modalities for view in views))
        return cls(people, study, held, intercepts)

    def groups(self) -> Groups:
        """Return who is in which group, by the numbers that `predictions` has for subjects."""
        subject = np.arange(self.people.n_subjects, dtype=np.int64)
        return Groups(subject, people_groups(self.people, self.study.vocabulary))

    def predictions(self, parameters: Mapping[str, Float32]) -> Predictions:
        """Return what a model says of them, and what happened.

        The same rows in the same order whatever the parameters are, so that models are paired.

        Args:
            parameters: Of every group that the site holds, at least.
        """
        is_label = self.study.config.label_task is not None
        head = "label" if is_label else "next_visit"
        held = groups_held(self.modalities, group_names(parameters))
        own = {name: array for name, array in parameters.items() if group_of(name) in held}
        model = loaded_model(own, self.study, self.modalities, self.intercepts)
        targets = 1 if is_label else len(self.study.vocabulary.targets)
        answers = answer(model, self._batches(targets, is_label=is_label), head)
        if is_label:
            known = ~np.isnan(answers.label)
            score, outcome = answers.score[known, :1], answers.label[known, None] > 0
            subject, repeats = answers.subject[known], np.zeros((int(known.sum()), 1), np.float32)
        else:
            score, outcome = answers.score[:, :targets], answers.target[:, :targets]
            subject, repeats = answers.subject, answers.repeats[:, :targets]
        return Predictions.of_queries(
            subject, np.zeros(len(subject), np.int32), score, outcome, repeats
        )

    def _batches(self, targets: int, *, is_label: bool) -> Iterator[Batch]:
        """Yield batches in an order that the study's seed decides, until they are many enough."""
        config = self.study.config
        batches = loader_for(self.people, self.study).epoch(
            numpy_generator(config.seed, "held out"),
            batch_size=2 * config.train.batch_size,
            query="label" if is_label else "sep",
        )
        people: list[Int64] = []
        cells = 0
        for batch in batches:
            yield batch
            people.append(np.unique(batch.subject.numpy()))
            cells += int(batch.query_mask.sum()) * targets
            if cells >= MOST_CELLS or len(np.unique(np.concatenate(people))) >= MOST_PEOPLE:
                return


def may_be_judged(study: Study, modalities: Collection[str]) -> bool:
    """Whether held-out people train nobody, and the model answers the study's task at all.

    Args:
        study: The study.
        modalities: What the site holds.
    """
    head = "next_visit" if study.config.label_task is None else "label"
    is_answered = head in heads_for(study.config.train.objectives, modalities)
    return is_answered and SPLIT not in training_splits(study.config)
