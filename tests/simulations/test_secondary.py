"""What a run is asked beyond its main task, on a tiny federation trained for everything."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import WEARABLE
from healthfm_core.errors import ConfigError
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.scoring.model_scores import Model, score
from healthfm_simulations.secondary import evaluate_secondary
from healthfm_simulations.secondary.forecasts import COST, forecast
from healthfm_simulations.secondary.heritable_conditions import (
    WITH_GENETIC_EFFECT,
    WITHOUT_GENETIC_EFFECT,
)
from healthfm_simulations.secondary.scored_people import model_at_site
from healthfm_simulations.secondary.state_probes import states_of
from healthfm_simulations.sites import prepare_sites
from tests.training.test_loop import SETTINGS

ASKED = [
    *SETTINGS,
    "data.cohort.subjects=240",
    "data.cohort.years=4",
    "data.cohort.conditions=8",
    "rounds=1",
    "federation.evaluate_every=0",
    "evaluation.bootstraps=10",
    "evaluation.horizons_days=[90,365]",
    "evaluation.estimators=[hazard,query,sample]",
    "evaluation.horizon_queries=one_per_person",
    "evaluation.samples=2",
    "evaluation.probes_days=[365]",
    "evaluation.probe_shots=[2]",
    "evaluation.physiology=true",
    "evaluation.corruption=[0,1]",
    "evaluation.subgroups=true",
    "evaluation.k_subgroup=2",
    "evaluation.heritable=true",
    "evaluation.half_lives=true",
    "simulation.arms=[federated]",
]
DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("further")
    config = compose(ASKED)
    sites = prepare_sites(config, folder / "sites")
    (fold,) = cross_validation_folds(config, sites)
    nodes = [NodeSpec(site.name, ((site.path, site.modalities),)) for site in sites]
    result = run_federation(config, nodes, folder / "run")
    return config, sites, fold, Model(result.study, result.parameters, with_site_intercepts=True)


@pytest.fixture(scope="module")
def further(run):
    config, sites, fold, model = run
    told = {"federated": score(model, fold, sites, config).predictions}
    return evaluate_secondary({"federated": model}, told, fold, sites, config)


def test_every_estimator_answers_the_same_queries_and_a_longer_horizon_is_no_less_likely(run):
    config, sites, fold, model = run
    found = forecast(model, fold, sites, config)
    n, v = found.followed.next_days.shape
    assert n == len(np.unique(found.followed.subject))
    for risks in found.risks.values():
        assert risks.shape == (2, n, v)
        assert ((risks >= 0) & (risks <= 1)).all()
    for estimator in ("hazard", "sample"):
        near, far = found.risks[estimator]
        assert (near <= far + 1e-6).all()
    assert set(found.seconds) == {"hazard", "query", "sample"}


def test_a_query_at_a_horizon_is_asked_on_its_last_day(run, monkeypatch):
    config, sites, fold, model = run
    near, far = forecast(model, fold, sites, config).risks["query"]
    assert np.abs(near - far).mean() > 1e-4
    ahead = Batch.ahead
    monkeypatch.setattr(Batch, "ahead", lambda batch, days: ahead(batch, {90: 7.0}.get(days, days)))
    week, same = forecast(model, fold, sites, config).risks["query"]
    assert np.abs(near - week).mean() > 1e-4
    np.testing.assert_allclose(far, same)


def test_rows_have_every_horizon_and_estimator_with_what_it_costs(further):
    arms = {row.arm for row in further.horizons if not row.is_difference}
    assert arms == {"federated", "federated by query", "federated by sample"}
    assert {row.task for row in further.horizons} >= {"within_90_days", "within_365_days"}
    assert all(row.value > 0 for row in further.horizons if row.metric == COST)


def test_probes_have_rows_with_intervals_and_few_shot_rows(further):
    assert {row.task for row in further.probe_scores} == {"probe_within_365_days"}
    assert {row.subset for row in further.probe_scores} == {"new_onset"}
    assert {row.k for row in further.probes} == {2, None}


def test_wearing_before_a_query_is_the_mean_of_its_last_day(run):
    config, sites, fold, model = run
    site = next(s for s in sites if "wearable" in s.view().modalities)
    people = model_at_site(model, site, sites, config, split="train").sequences
    states = states_of(model, replace(fold, train=(site,), test=(site,)), sites, config)["train"]
    assert np.isfinite(states.worn).any()
    row = int(np.flatnonzero(np.isfinite(states.worn[:, 0]))[0])
    keys = model_at_site(model, site, sites, config, split="train").key
    subject = int(np.flatnonzero(keys == states.subject[row])[0])
    mine = np.arange(people.offsets[subject], people.offsets[subject + 1])
    hours = mine[people.kind[mine] == WEARABLE]
    worn, mask = (
        people.wearable[people.wearable_row[hours]],
        people.wearable_mask[people.wearable_row[hours]],
    )
    channels = len(model.study.vocabulary.wearable.channels)
    samples = worn.shape[2] // channels
    days = people.time_us[hours]
    expected = []
    for visit in people.visit_time_us[
        people.visit_offsets[subject] : people.visit_offsets[subject + 1]
    ]:
        near = (days <= visit) & (days > visit - DAY_US)
        value, seen = worn[near][:, :, :samples], mask[near][:, :, :samples]
        expected.append(value[seen].mean() if seen.any() else np.nan)
    assert any(states.worn[row, 0] == pytest.approx(e, abs=1e-5) for e in expected)


def test_a_probe_of_a_worn_day_says_whether_the_model_has_read_it(further):
    assert {row.task.partition(", ")[2] for row in further.physiology} == {
        "mean of the last day (an input)",
        "mean of the last day, wearing hidden",
        "mean of the day before the next visit",
    }


def test_what_is_worn_next_is_of_the_same_person_s_next_visit_a_day_later_or_more(run):
    config, sites, fold, model = run
    states = states_of(model, fold, sites, config)["train"]
    person = [np.flatnonzero(states.subject == s) for s in np.unique(states.subject)]
    said = [
        (states.worn_next[now], states.worn[after])
        for rows in person
        for now, after in pairwise(rows[np.argsort(-states.followed_days[rows])])
        if states.followed_days[now] - states.followed_days[after] > 1.001
    ]
    assert np.isfinite(np.array(said)).any()
    for told, worn in said:
        np.testing.assert_array_equal(told, worn)
    last = [rows[np.argmin(states.followed_days[rows])] for rows in person]
    assert np.isnan(states.worn_next[last]).all()


def test_a_state_that_is_shown_no_wearing_is_that_of_other_wearing_too(run):
    config, sites, fold, model = run
    site = next(s for s in sites if "wearable" in s.view().modalities)
    only = replace(fold, train=(site,), test=(site,))
    clinic = replace(site, modalities=("ehr", "genomics"))
    unworn = replace(only, train=(clinic,), test=(clinic,))
    seen = by_query(states_of(model, only, sites, config))
    hidden = by_query(states_of(model, only, sites, config, inputs={"ehr", "genomics"}))
    without = by_query(states_of(model, unworn, sites, config))
    assert seen.keys() == hidden.keys() <= without.keys()
    assert np.median([np.abs(hidden[q] - without[q]).max() for q in hidden]) < 1e-4
    assert np.median([np.abs(seen[q] - without[q]).max() for q in seen]) > 1e-2


def by_query(states):
    test = states["test"]
    return dict(zip(zip(test.subject, test.followed_days, strict=True), test.x, strict=True))


def test_smoothness_stands_beside_a_probe(further):
    (row,) = further.smoothness
    assert row.step > 0
    assert row.probe_value == pytest.approx(
        next(r.value for r in further.probe_scores if r.metric == "auroc")
    )


def test_groups_come_from_the_records(further):
    found = {(row.attribute, row.group) for row in further.subgroups}
    assert {("sex", "F"), ("sex", "M")} <= found
    assert ("site", "site-00") in found


def test_wearing_taken_away_and_drowned_is_a_curve_that_begins_at_the_same_point(further):
    at = {(row.kind, row.share): row.value for row in further.corruption}
    assert set(at) == {(kind, share) for kind in ("removed", "noised") for share in (0, 1)}
    assert at["removed", 0] == at["noised", 0]


def test_the_kernel_s_half_lives_are_figures_too(further):
    of = {row.subset: row.value for row in further.half_lives}
    assert set(of) == {f"layer {i} {name}" for i in (0, 1) for name in ("shortest", "longest")}
    assert of["layer 0 shortest"] == pytest.approx(1 / 24, rel=0.2)


def test_conditions_with_and_without_genetics_are_told_apart(further):
    assert {row.task for row in further.heritable} == {WITH_GENETIC_EFFECT, WITHOUT_GENETIC_EFFECT}


@pytest.mark.parametrize(
    "wrong",
    [
        ["evaluation.horizons_days=[90]"],
        ["evaluation.estimators=[sample]", "evaluation.horizon_queries=one_per_person"],
        ["evaluation.estimators=[hazard,sample]"],
        ["evaluation.probes_days=[90]", "evaluation.protocol=leave_sites_out"],
        ["data=physionet2012", "evaluation.heritable=true"],
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_trained(wrong):
    with pytest.raises(ConfigError):
        compose(["model=tiny", *wrong])
