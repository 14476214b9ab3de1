"""A site's part in a round: pure, by group, with per-group weights."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import VERSION, RoundOrder, Study
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.training import SiteData, initial_parameters, train_round
from healthfm_core.training.schedule import learning_rate
from healthfm_simulations.cohort import generate, write_sites

SETTINGS = [
    "model=tiny",
    "model.width=16",
    "model.ffn=16",
    "data.cohort.subjects=60",
    "data.cohort.sites=4",
    "data.cohort.years=2",
    "tokens.k_min=2",
    "tokens.max_len=48",
    "train.max_steps=2",
    "train.objectives.masked_reconstruction=0.5",
    "train.objectives.time_to_event=0.5",
    "train.objectives.next_event=0.5",
    "train.objectives.predictive_coding=0.5",
    "train.objectives.cross_modal=0.5",
]


def study_of(config: RunConfig, stores) -> Study:
    merged = merge([site_statistics([store], config.tokens) for store in stores])
    vocabulary = build_vocabulary(merged, config.tokens)
    return Study(VERSION, "run", config, vocabulary, ("ehr", "genomics", "wearable"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = compose(SETTINGS)
    folder = tmp_path_factory.mktemp("sites")
    paths = write_sites(generate(config.data.cohort, 0), folder)
    stores = [SiteStore.open(path) for path in paths]
    study = study_of(config, stores)
    every = next(s for s in stores if len(s.modalities) == 3)
    clinic = next(s for s in stores if s.modalities == {"ehr"})
    return study, initial_parameters(study), every, clinic


def order(parameters, **changes):
    groups = tuple(sorted({group_of(name) for name in parameters}))
    return RoundOrder(
        **{"round": 1, "rounds": 2, "groups": groups, "evaluate": False, "seed": 3} | changes
    )


def test_the_same_order_gives_the_same_update_bit_for_bit(world):
    study, parameters, store, _ = world
    data = SiteData.load([store], study)
    first = train_round(parameters, data, study, order(parameters))
    again = train_round(parameters, SiteData.load([store], study), study, order(parameters))
    assert first.update.keys() == again.update.keys() == parameters.keys()
    assert all(np.array_equal(first.update[name], again.update[name]) for name in parameters)
    other = train_round(parameters, data, study, order(parameters, seed=4))
    assert any(not np.array_equal(first.update[n], other.update[n]) for n in parameters)


def test_every_objective_reports_its_loss_and_every_group_its_gradient(world):
    study, parameters, store, _ = world
    found = train_round(parameters, SiteData.load([store], study), study, order(parameters)).metrics
    for name in ("next_visit", "time_to_event", "masked_codes", "masked_wearable"):
        assert np.isfinite(found[f"loss_{name}"])
    for group in order(parameters).groups:
        assert found[f"grad_norm/{group}"] > 0, group


def test_a_clinical_site_moves_no_wearable_and_no_genomics_encoder(world):
    study, parameters, _, clinic = world
    groups = ("backbone", "ehr", "head/next_visit")
    result = train_round(
        parameters, SiteData.load([clinic], study), study, order(parameters, groups=groups)
    )
    assert {group_of(name) for name in result.update} == set(groups)
    assert set(result.weights) == set(groups)


def test_a_group_weighs_what_its_modality_has_people(world):
    study, parameters, store, _ = world
    data = SiteData.load([store], study)
    weights = train_round(parameters, data, study, order(parameters)).weights
    assert weights["backbone"] == data.train.n_subjects
    assert weights["genomics"] == data.train.panel_mask.any(1).sum()
    assert 0 < weights["wearable"] <= weights["backbone"]


def test_fedprox_keeps_the_site_nearer_to_the_global_model(world):
    study, parameters, store, _ = world
    train = study.config.train.model_copy(
        update={"fedprox_mu": 1e9, "max_steps": 6, "warmup_rounds": 0.0, "local_epochs": 6.0}
    )
    near = study.config.model_copy(update={"train": train})
    free = near.model_copy(update={"train": train.model_copy(update={"fedprox_mu": 0.0})})
    norms = []
    for config in (near, free):
        of = Study(study.version, study.run_id, config, study.vocabulary, study.modalities)
        result = train_round(parameters, SiteData.load([store], of), of, order(parameters))
        norms.append(result.metrics["update_norm"])
    assert norms[0] < norms[1]


def test_the_learning_rate_warms_up_and_falls_over_the_whole_run():
    config = compose(["train.lr=1.0", "train.lr_final=0.1", "train.warmup_rounds=1"]).train
    rates = [learning_rate(config, round_=r, rounds=4, done=0.5) for r in (1, 2, 3, 4)]
    assert rates[0] < rates[1] > rates[2] > rates[3]
    assert learning_rate(config, round_=4, rounds=4, done=1.0) == pytest.approx(0.1)


def test_each_round_s_rate_rises_where_that_is_wanted():
    values = ["train.lr=1.0", "train.lr_final=1.0", "train.warmup_rounds=0"]
    config = compose([*values, "train.round_warmup=0.5"]).train
    for round_ in (1, 3):
        rates = [
            learning_rate(config, round_=round_, rounds=4, done=d) for d in (0.0, 0.23, 0.5, 1.0)
        ]
        assert rates == pytest.approx([0.04, 0.5, 1.0, 1.0])
