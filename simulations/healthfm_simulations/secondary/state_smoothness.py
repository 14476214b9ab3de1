"""How far a model's state moves in a day on which nothing happens, and when something does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch

from healthfm_core.arrays import Int64
from healthfm_core.config import RunConfig
from healthfm_core.data.batch.batch import US_PER_DAY
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.evaluation import MetricRow
from healthfm_core.evaluation.analyses.smoothness import (
    EventTimes,
    SmoothnessRow,
    StateTrace,
    smoothness_row,
)
from healthfm_core.seeding import numpy_generator
from healthfm_core.training import loader_for
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import Model
from healthfm_simulations.secondary.scored_people import ModelAtSite, at_test_sites
from healthfm_simulations.sites import SimulatedSite

QUIET: Final = 6
ONSETS: Final = 3
"""Days looked at of each person: at random, and around first occurrences of a target."""


def smoothness_of(
    model: Model,
    fold: CrossValidationFold,
    sites: tuple[SimulatedSite, ...],
    probe: MetricRow,
    config: RunConfig,
) -> SmoothnessRow:
    """Return the smoothness of the model's states of the test people, beside a probe's score.

    Args:
        model: The finished model.
        fold: Whose people.
        sites: All sites of the run.
        probe: A score on the same states; names the arm. A constant is perfectly smooth.
        config: The run's configuration.
    """
    parts = [_along(present, config) for present in at_test_sites(model, fold, sites, config)]
    states, happenings = zip(*parts, strict=True)
    return smoothness_row(
        StateTrace(*(_joined(states, name) for name in ("subject", "t_days", "z"))),
        EventTimes(*(_joined(happenings, name) for name in ("subject", "t_days"))),
        probe,
        bootstraps=config.evaluation.bootstraps,
        rng=numpy_generator(config.seed, "bootstrap"),
    )


def _joined(parts: Sequence[StateTrace | EventTimes], name: str) -> Any:
    return np.concatenate([getattr(part, name) for part in parts])


@torch.no_grad()
def _along(present: ModelAtSite, config: RunConfig) -> tuple[StateTrace, EventTimes]:
    people, network = present.sequences, present.network
    network.eval()
    onset, when = _onsets(people)
    subject, start = _days(
        people, onset, when, numpy_generator(config.seed, "paths", present.site.name)
    )
    subject, time = np.repeat(subject, 2), (start[:, None] + [0, US_PER_DAY]).ravel()
    order = np.lexsort((time, subject))
    asked = replace(
        people,
        label_subject=subject[order],
        label_time_us=time[order].astype(np.int64),
        label_value=np.zeros(len(order), np.float32),
    )
    batches = loader_for(asked, present.model.study).in_order(
        batch_size=2 * config.train.batch_size, query="label"
    )
    z = [
        network(b.to(network.device), b.query.to(network.device))[:, 0].cpu().numpy()
        for b in batches
    ]
    width = present.model.study.config.model.width
    vectors = np.concatenate([np.zeros((0, width), np.float32), *z])
    key = present.key
    states = StateTrace(key[subject[order]], time[order] / US_PER_DAY, vectors)
    return states, EventTimes(key[onset], when / US_PER_DAY)


def _onsets(people: Sequences) -> tuple[Int64, Int64]:
    """Return (subject, time) of each visit that brings a subject some target for the first time."""
    visits = np.diff(people.visit_offsets)
    owner = np.repeat(np.arange(people.n_subjects), visits)
    visit = np.repeat(np.arange(len(owner)), np.diff(people.visit_target_offsets))
    most = int(people.visit_target.max(initial=0)) + 1
    _, first = np.unique(owner[visit] * most + people.visit_target, return_index=True)
    visits_of_onset = np.unique(visit[first])
    return owner[visits_of_onset], people.visit_time_us[visits_of_onset]


def _days(
    people: Sequences, onset: Int64, when: Int64, rng: np.random.Generator
) -> tuple[Int64, Int64]:
    """Return the days to look at: some of each person's record at random, some around onsets."""
    counts = np.diff(people.visit_offsets)
    subject = np.repeat(np.flatnonzero(counts > 1), QUIET)
    first = people.visit_time_us[people.visit_offsets[subject]]
    span = people.visit_time_us[people.visit_offsets[subject + 1] - 1] - first
    at = first + (rng.random(len(subject)) * span).astype(np.int64)
    order = np.lexsort((rng.random(len(onset)), onset))
    rank = np.arange(len(onset)) - np.searchsorted(onset[order], onset[order])
    some = order[rank < ONSETS]
    return (
        np.concatenate([subject, onset[some]]),
        np.concatenate([at, when[some] - US_PER_DAY // 2]),
    )
