"""A site's held-out people, asked about with a real model: they train nobody, and stay the same."""

from __future__ import annotations

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.core_local_work import CoreLocalWork, opened
from healthfm_client.local_work import StoreSpec
from healthfm_core.config import RunConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.federation.protocol import VERSION, Study
from healthfm_core.held_out import held_out_people
from healthfm_core.held_out.held_out_people import HeldOutPeople, may_be_judged
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.training import initial_parameters
from healthfm_server.study_setup.core_model_setup import CoreModelSetup
from healthfm_simulations.sites import prepare_sites

CONFIG = RunConfig.model_validate(
    {
        "data": {"cohort": {"subjects": 160, "sites": 2, "held_out": 0.4, "wearable_hours": 6}},
        "tokens": {"k_min": 2, "max_len": 32},
        "model": {"layers": 1, "width": 16, "heads": 2, "ffn": 32, "wearable_width": 8},
        "train": {"batch_size": 8},
        "evaluation": {"bootstraps": 20, "k_subgroup": 3},
    }
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of the simulated cohort: its study, its store and what of it may be used."""
    sites = prepare_sites(CONFIG, tmp_path_factory.mktemp("cohort"))
    views = [one.view() for one in sites]
    statistics = merge([site_statistics([view], CONFIG.tokens) for view in views])
    vocabulary = CoreModelSetup().vocabulary(statistics, CONFIG)
    held = tuple(sorted(views[0].modalities))
    study = Study(VERSION, "run", CONFIG, vocabulary, held)
    return study, StoreSpec(sites[0].path, held)


def people_of(site):
    study, spec = site
    data = CoreLocalWork().load((spec,), study)
    return HeldOutPeople.load(opened([spec]), study, data.intercepts)


def test_they_are_the_held_out_people_and_nobody_who_trains(site):
    study, spec = site
    found, store = people_of(site), SiteStore.open(spec.path)
    asked = found.predictions(initial_parameters(study))
    who = np.unique(found.people.subject_id[np.unique(asked.subject)])
    assert set(who) <= set(store.subjects("held_out").tolist())
    assert len(who) > 10
    trained = CoreLocalWork().load((spec,), study)
    assert not set(who) & {*trained.train.subject_id, *trained.tuning.subject_id}


def test_every_model_is_asked_the_same_in_the_same_order(site):
    study, _ = site
    found, start = people_of(site), initial_parameters(study)
    other = {name: array + np.float32(0.01) for name, array in start.items()}
    one, two = found.predictions(start), found.predictions(other)
    assert np.array_equal(one.subject, two.subject)
    assert np.array_equal(one.outcome, two.outcome)
    assert not np.array_equal(one.score, two.score)


def test_of_very_many_people_some_are_drawn(site, monkeypatch):
    study, _ = site
    found, start = people_of(site), initial_parameters(study)
    everybody = found.predictions(start).n_subjects
    monkeypatch.setattr(held_out_people, "MOST_PEOPLE", 5)
    drawn = found.predictions(start)
    assert 5 <= drawn.n_subjects < everybody
    assert np.array_equal(drawn.score, found.predictions(start).score)


def test_a_site_tells_of_them_by_metric_subset_risk_and_group_and_names_no_person(site):
    study, spec = site
    work = CoreLocalWork()
    data = work.load((spec,), study)
    told = work.held_out_metrics(initial_parameters(study), (spec,), data, study, 3)
    assert 0 < told["held_out/overall/auroc_low"] < told["held_out/overall/auroc"] < 1
    assert {name.split("/")[1] for name in told} >= {"overall", "new_onset", "sex=F", "sex=M"}
    numbers = {str(one) for one in SiteStore.open(spec.path).subjects().tolist()}
    assert not numbers & {part for name in told for part in name.replace("=", "/").split("/")}
    assert work.held_out_metrics(initial_parameters(study), (spec,), data, study, 10_000) == {}


def test_nothing_is_judged_where_held_out_people_train_too_or_nothing_answers(site):
    study, spec = site
    assert may_be_judged(study, spec.modalities)
    protocol = {"protocol": "held_out_sites"}
    config = CONFIG.model_copy(update={"evaluation": CONFIG.evaluation.model_copy(update=protocol)})
    trains_them = Study(VERSION, "run", config, study.vocabulary, study.modalities)
    assert not may_be_judged(trains_them, spec.modalities)
    objectives = CONFIG.train.objectives.model_copy(update={"next_visit": 0.0})
    train = CONFIG.train.model_copy(update={"objectives": objectives})
    silent = Study(
        VERSION, "run", CONFIG.model_copy(update={"train": train}), study.vocabulary, ("ehr",)
    )
    assert not may_be_judged(silent, spec.modalities)
