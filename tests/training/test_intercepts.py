"""What a site shifts its answers by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import RoundOrder
from healthfm_core.training import SiteData, initial_parameters, loaded_model, train_round
from healthfm_core.training.intercepts import (
    PRIOR_CASES,
    log_odds_ratio,
    prior_cases,
    subjects_with,
)
from tests.training.test_loop import world  # noqa: F401


def test_a_site_at_the_study_s_rate_shifts_nothing():
    assert log_odds_ratio(np.array([10, 0]), 100, np.array([0.1, 0.0])) == pytest.approx(0)


def test_a_large_site_shifts_by_its_own_log_odds_and_a_small_one_hardly():
    def shift(people: int) -> float:
        return float(log_odds_ratio(0.3 * people, people, 0.1))

    wanted = np.log(0.3 / 0.7) - np.log(0.1 / 0.9)
    assert shift(1_000_000) == pytest.approx(wanted, rel=1e-3)
    assert 0 < shift(10) < 0.15


def test_no_rate_makes_a_shift_that_is_not_a_number():
    shifts = log_odds_ratio(np.array([50, 50, 50]), 50, np.array([0.0, 0.9999, 1.0]))
    assert np.isfinite(shifts).all()


@pytest.mark.parametrize(("shape", "low", "high"), [(0.5, 0.3, 0.8), (5.0, 3.0, 8.0)])
def test_the_prior_is_the_shape_that_the_site_s_rates_were_drawn_with(shape, low, high):
    rng = np.random.default_rng(0)
    rates = np.full(400, 0.02)
    cases = rng.poisson(1500 * rates * rng.gamma(shape, 1 / shape, 400))
    assert low < prior_cases(cases, 1500, rates) < high


def test_a_site_that_differs_by_chance_alone_is_shrunk_to_the_study_s_rates():
    rates = np.full(400, 0.02)
    cases = np.random.default_rng(0).poisson(1500 * rates)
    prior = prior_cases(cases, 1500, rates)
    assert prior > 200
    assert np.abs(log_odds_ratio(cases, 1500, rates, prior)).max() < 0.3


def test_without_a_rate_or_a_row_the_prior_is_the_fixed_one():
    assert prior_cases(np.array([3]), 10, np.array([0.0])) == PRIOR_CASES
    assert prior_cases(np.array([0]), 0, np.array([0.5])) == PRIOR_CASES


def test_a_subject_counts_once_for_a_target(world):  # noqa: F811
    study, _, store, _ = world
    train = SiteData.load([store], study).train
    subject = np.repeat(np.arange(train.n_subjects), np.diff(train.visit_offsets))
    visits = np.split(train.visit_target, train.visit_target_offsets[1:-1])
    wanted = [
        len({s for s, codes in zip(subject, visits, strict=True) if target in codes})
        for target in range(len(study.vocabulary.targets))
    ]
    assert subjects_with(train, len(wanted)).tolist() == wanted
    assert max(wanted) > 1


def test_the_shift_is_added_to_the_answers_and_never_sent(world):  # noqa: F811
    study, parameters, store, _ = world
    data = SiteData.load([store], study)
    shift = data.intercepts["next_visit"]
    assert np.ptp(shift) > 0
    plain = loaded_model(parameters, study, data.modalities)
    shifted = loaded_model(parameters, study, data.modalities, data.intercepts)
    assert plain.arrays().keys() == shifted.arrays().keys()
    assert plain.state_dict().keys() == shifted.state_dict().keys()
    groups = tuple(sorted({group_of(name) for name in parameters}))
    order = RoundOrder(round=1, rounds=2, groups=groups, evaluate=False, seed=3)
    with_shift = train_round(parameters, data, study, order)
    without = train_round(parameters, replace(data, intercepts={}), study, order)
    assert with_shift.update.keys() == without.update.keys() == parameters.keys()
    assert with_shift.metrics["loss_next_visit"] != without.metrics["loss_next_visit"]


def test_the_switch_leaves_every_site_at_the_study_s_rate(world):  # noqa: F811
    study, _, store, _ = world
    train = study.config.train.model_copy(update={"site_intercepts": False})
    off = replace(study, config=study.config.model_copy(update={"train": train}))
    assert SiteData.load([store], off).intercepts == {}


def test_the_label_head_starts_at_the_study_s_rate(world):  # noqa: F811
    study, _, _, _ = world
    weights = study.config.train.objectives.model_copy(update={"label": 1.0})
    train = study.config.train.model_copy(update={"objectives": weights})
    labelled = replace(
        study,
        config=study.config.model_copy(update={"train": train}),
        vocabulary=replace(study.vocabulary, label_rate=0.2),
    )
    assert initial_parameters(labelled)["heads.label.bias"] == pytest.approx(np.log(0.25))
