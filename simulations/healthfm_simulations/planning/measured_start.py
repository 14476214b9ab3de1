"""What a plan starts from: the model, an update of it, and how quick a step is on this computer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from healthfm_client.core_local_work import CoreLocalWork
from healthfm_client.local_work import StoreSpec
from healthfm_core.arrays import Float32
from healthfm_core.config import RunConfig
from healthfm_core.federation.parameter_groups import agree_on_modalities, group_names, groups_held
from healthfm_core.federation.protocol import VERSION, RoundOrder, RoundResult, Study, for_the_wire
from healthfm_core.seeding import seed_for
from healthfm_core.tokens.statistics import SiteStatistics, merge
from healthfm_server.study_setup.core_model_setup import CoreModelSetup
from healthfm_simulations.arms.arm_training import statistics_of_sites
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.sites import SimulatedSite, prepare_sites

WARM_STEPS: Final = 2
TIMED_STEPS: Final = 12
"""Enough for a median machine's noise to be a few per cent; a small site may have fewer."""


@dataclass(frozen=True)
class SiteKind:
    """What one of the data's sites is like.

    Attributes:
        people: Whom it trains on.
        modalities: What it holds.
    """

    people: int
    modalities: frozenset[str]


@dataclass(frozen=True)
class MeasuredStart:
    """The beginning of the study, as far as it can be had here.

    Attributes:
        study: As the data's sites would agree on it.
        model: The initial parameters.
        update: What a few steps changed of those of its groups.
        steps_per_s: Of this computer, on one thread.
        kinds: The data's training sites.
        statistics: What they say before round 1.
    """

    study: Study
    model: Mapping[str, Float32]
    update: Mapping[str, Float32]
    steps_per_s: float
    kinds: Sequence[SiteKind]
    statistics: Sequence[SiteStatistics] = ()


def measured_start(config: RunConfig, folder: Path) -> MeasuredStart:
    """Return the beginning of the study that `config` describes.

    Args:
        config: The run's configuration.
        folder: Where the data's stores are made.

    Raises:
        HealthFMError: The data are not there or cannot be used; training diverged.
    """
    sites = prepare_sites(config, folder)
    fold = cross_validation_folds(config, sites)[0]
    kinds = [
        SiteKind(len(site.view().subjects("train")), frozenset(site.view().modalities))
        for site in fold.train
    ]
    agreed = agree_on_modalities(
        [kind.modalities for kind in kinds], config.federation.aggregation.groups
    )
    statistics, setup = statistics_of_sites(config, fold), CoreModelSetup()
    vocabulary = setup.vocabulary(merge(statistics), config)
    learnable = setup.learnable(vocabulary, agreed)
    study = Study(VERSION, "plan", for_the_wire(config), vocabulary, learnable)
    model = setup.initial_parameters(study, config)
    site = max(fold.train, key=lambda one: len(one.view().modalities))
    result, steps_per_s = _timed(study, model, site, config)
    return MeasuredStart(study, model, result.update, steps_per_s, kinds, statistics)


def _timed(
    study: Study, model: Mapping[str, Float32], site: SimulatedSite, config: RunConfig
) -> tuple[RoundResult, float]:
    """Return a short round's result at a site, and the steps a second that it took."""
    torch.set_num_threads(config.simulation.threads)
    work = CoreLocalWork()
    held = tuple(sorted(site.view().modalities))
    store = StoreSpec(site.path, held)
    groups = groups_held(held, group_names(model))
    seconds: list[float] = []
    for steps in (WARM_STEPS, TIMED_STEPS):
        train = config.train.model_copy(update={"max_steps": steps})
        short = replace(study, config=study.config.model_copy(update={"train": train}))
        data = work.load((store,), short)
        private = None
        if config.privacy.mechanism.is_private:
            private = work.plan_privacy(data, short, config.privacy)
        order = RoundOrder(
            1, config.federation.rounds, groups, False, seed_for(config.seed, "plan")
        )
        begun = time.perf_counter()
        received = {name: array.copy() for name, array in model.items()}
        result = work.train_round(received, data, short, order, private)
        seconds.append(time.perf_counter() - begun)
    taken = result.metrics.get("steps", 1.0)
    return result, max(1.0, taken) / seconds[-1]
