"""What a site may tell of its held-out people: nothing of fewer than k, and as metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from healthfm_core.evaluation import Predictions
from healthfm_core.evaluation.analyses.subgroups import Groups
from healthfm_core.held_out.risk_bins import risk_bins
from healthfm_core.held_out.site_evaluation import FEDERATED, SiteEvaluation

PEOPLE = 120


def predictions(people=PEOPLE, rows=6, seed=0, noise=0.3):
    """Rows of risks that are right but for some noise; half of them of codes seen before."""
    rng = np.random.default_rng(seed)
    n = people * rows
    risk = rng.uniform(0.05, 0.95, n)
    outcome = rng.random(n) < risk
    score = np.clip(risk + noise * np.random.default_rng(seed + 1).normal(size=n), 0.01, 0.99)
    return Predictions(
        subject=np.repeat(np.arange(people), rows),
        site=np.zeros(n, np.int32),
        target=np.tile(np.arange(rows), people).astype(np.int32),
        repeats=np.tile(np.arange(rows) % 2, people).astype(np.float32),
        score=score.astype(np.float32),
        outcome=outcome,
    )


def groups(people=PEOPLE, few=0):
    """Two sexes, of which one has `few` people, where that is not 0."""
    sex = np.where(np.arange(people) < (few or people // 2), "F", "M")
    return Groups(np.arange(people), {"sex": sex})


def evaluation(arms, k=20, few=0, task="next_visit"):
    people = arms[FEDERATED].n_subjects
    rng = np.random.default_rng(0)
    of = groups(people, few)
    return SiteEvaluation.of(arms, of, task=task, k=k, bootstraps=40, rng=rng)


@pytest.mark.parametrize("task", ["next_visit", "death"])
def test_what_travels_as_metrics_comes_back_as_it_was(task):
    arms = {FEDERATED: predictions(), "local": predictions(noise=1.0)}
    told = evaluation(arms, task=task)
    metrics = told.to_metrics()
    back = SiteEvaluation.from_metrics(metrics, task)
    assert back.rows == told.rows
    assert back.bins == told.bins
    assert back.groups == told.groups
    assert metrics["held_out/overall/n_subjects"] == PEOPLE
    assert metrics["gain/overall/auroc"] == pytest.approx(
        metrics["held_out/overall/auroc"] - metrics["own_model/overall/auroc"]
    )
    assert metrics["gain/overall/auroc_low"] > 0
    assert all(math.isfinite(value) for value in metrics.values())


def test_nothing_is_told_of_fewer_people_than_k():
    assert evaluation({FEDERATED: predictions(people=19, rows=60)}).to_metrics() == {}
    assert evaluation({FEDERATED: predictions(people=20, rows=60)}).to_metrics() != {}


@pytest.mark.parametrize("few", [True, False])
def test_nothing_is_told_where_fewer_than_k_people_have_the_outcome_or_have_it_not(few):
    found = predictions(rows=1)
    rare = found.subject < 19
    outcome = rare if few else ~rare
    given = Predictions(**{**found.__dict__, "outcome": outcome})
    assert evaluation({FEDERATED: given}, task="death").to_metrics() == {}
    assert evaluation({FEDERATED: given}, task="death", k=19).to_metrics() != {}


def test_how_many_people_have_only_one_kind_of_row_cannot_be_had_by_subtraction():
    found = predictions()
    repeats = np.where(found.subject == 0, 1.0, found.repeats).astype(np.float32)
    one = Predictions(**{**found.__dict__, "repeats": repeats})
    metrics = evaluation({FEDERATED: one}).to_metrics()
    assert metrics["held_out/new_onset/n_subjects"] == PEOPLE
    of_groups = [v for name, v in metrics.items() if "sex=" in name and "n_subjects" in name]
    assert sum(of_groups) == PEOPLE


def test_a_group_of_few_with_the_outcome_is_withheld_and_their_number_is_not_told():
    found = predictions(rows=1)
    outcome = np.where(found.subject < PEOPLE // 2, found.subject < 19, found.outcome)
    given = Predictions(**{**found.__dict__, "outcome": outcome})
    metrics = evaluation({FEDERATED: given}, task="death").to_metrics()
    assert {name for name in metrics if "sex=F" in name} == {"held_out/sex=F/withheld"}
    assert metrics["held_out/sex=M/n_subjects"] == PEOPLE // 2
    assert not [name for name in metrics if "case" in name]


def test_a_subset_of_too_few_people_is_left_out():
    found = predictions()
    repeats = np.where(found.subject < 19, found.repeats, 0.0).astype(np.float32)
    rare = Predictions(**{**found.__dict__, "repeats": repeats})
    names = evaluation({FEDERATED: rare}).to_metrics()
    assert any(name.startswith("held_out/overall/") for name in names)
    assert not any(name.startswith("held_out/repeat/") for name in names)


def test_a_group_of_too_few_people_is_named_and_nothing_else_of_it_is_told():
    metrics = evaluation({FEDERATED: predictions()}, few=5).to_metrics()
    of_few = {name for name in metrics if name.startswith("held_out/sex=F/")}
    assert of_few == {"held_out/sex=F/withheld"}
    assert "held_out/sex=M/auroc" not in metrics, "or the difference would tell of the few"
    rows = SiteEvaluation.from_metrics(metrics, "next_visit").groups
    assert {(row.group, row.withheld) for row in rows} == {("F", True), ("M", True)}


@pytest.mark.parametrize("rare", [0.05, 0.5])
@pytest.mark.parametrize("k", [5, 20, 60])
def test_a_bin_has_k_people_with_the_outcome_and_k_without(rare, k):
    rng = np.random.default_rng(3)
    found = predictions(people=400)
    score = (found.score * 2 * rare).astype(np.float32)
    outcome = rng.random(len(score)) < score
    given = Predictions(**{**found.__dict__, "score": score, "outcome": outcome})
    bins = risk_bins(given, k)
    assert sum(one.rows for one in bins) == len(given)
    edges = np.cumsum([one.rows for one in bins])
    order = np.argsort(score, kind="stable")
    for low, high in zip([0, *edges[:-1]], edges, strict=True):
        rows = order[low:high]
        for happened in (True, False):
            assert len(np.unique(given.subject[rows][outcome[rows] == happened])) >= k


def test_there_is_no_bin_where_too_few_people_have_the_outcome():
    found = predictions()
    outcome = (found.subject < 19) & (found.target == 0)
    assert risk_bins(Predictions(**{**found.__dict__, "outcome": outcome}), 20) == ()


def test_a_site_that_sends_what_it_likes_changes_nothing_but_its_own_numbers():
    sent = {
        "held_out/overall/auroc": math.nan,
        "held_out/elsewhere/auroc": 0.5,
        "held_out/overall/secret": 0.5,
        "own_model/risk/0/predicted": 0.5,
        "held_out/risk/0/predicted": 0.5,
        "held_out/risk/x/observed": 0.5,
        "held_out": 0.5,
        "held_out/": 0.5,
        "held_out//auroc": 0.5,
        "loss/overall/auroc": 0.5,
        "held_out/sex=<b>/auroc": 0.5,
    }
    found = SiteEvaluation.from_metrics(sent, "next_visit")
    assert (found.rows, found.bins) == ((), ())
    assert [row.group for row in found.groups] == ["<b>"]
