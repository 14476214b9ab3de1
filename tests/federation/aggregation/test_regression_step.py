"""Steps along summed gradients end where a ridge regression of all people together does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from healthfm_core.federation.aggregation.regression_step import regressed, regression_step
from healthfm_core.federation.aggregation.server_optimizer import OptimizerState

WEIGHT, BIAS = "heads.label.weight", "heads.label.bias"
SLOPES, OTHER = "encoders.ehr.linear_logit.weight", "backbone.norm.weight"
PENALTY = 5.0


@pytest.fixture
def people():
    """Return inputs [300, 6] of which the last two are a modality's slopes, outcomes, and sites."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)) * np.array([1.0, 0.3, 3.0, 1.0, 0.5, 2.0])
    y = rng.random(300) < 1 / (1 + np.exp(1 - x @ np.array([1.0, -2.0, 0.3, 0.0, 1.0, -0.5])))
    return x, y.astype(float), rng.integers(0, 3, 300)


def parameters():
    return {
        WEIGHT: np.zeros((1, 4), np.float32),
        BIAS: np.zeros(1, np.float32),
        SLOPES: np.zeros((2, 1), np.float32),
        OTHER: np.ones(3, np.float32),
    }


def answers(model, people, sites=3):
    """Return the sites' weighted mean of minus their gradients, and what they count for."""
    x, y, site = people
    means = {name: np.zeros(array.shape) for name, array in model.items()}
    total = float((site < sites).sum())
    weights = {"head/label": total, "ehr": total, "backbone": total}
    for own in range(sites):
        at = site == own
        logit = x[at, :4] @ model[WEIGHT][0] + model[BIAS][0] + x[at, 4:] @ model[SLOPES][:, 0]
        excess = y[at] - 1 / (1 + np.exp(-logit))
        share = at.sum() / total
        means[WEIGHT] += share * (x[at, :4].T @ excess)[None] / at.sum()
        means[BIAS] += share * excess.mean()
        means[SLOPES] += share * (x[at, 4:].T @ excess)[:, None] / at.sum()
    return means, weights


def fitted(people, rounds, through_a_file=False):
    model, memory = parameters(), {}
    for _ in range(rounds):
        means, weights = answers(model, people)
        model, memory = regression_step(model, memory, means, weights, penalty=PENALTY)
        if through_a_file:
            arrays = OptimizerState(regression=memory).to_arrays()
            memory = dict(OptimizerState.from_arrays(arrays).regression)
    return model, memory


def test_the_steps_end_at_the_ridge_regression_of_all_people_together(people):
    x, y, _ = people
    model, _ = fitted(people, 25)
    pooled = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=1000).fit(x, y)
    found = np.concatenate([model[WEIGHT][0], model[SLOPES][:, 0]])
    np.testing.assert_allclose(found, pooled.coef_[0], atol=1e-4)
    np.testing.assert_allclose(model[BIAS], pooled.intercept_, atol=1e-4)


def test_nothing_but_the_label_s_head_and_linear_part_moves(people):
    model, _ = fitted(people, 3)
    assert np.array_equal(model[OTHER], parameters()[OTHER])
    assert regressed(model) == (SLOPES, BIAS, WEIGHT)


def test_a_run_that_goes_on_from_its_checkpoint_takes_the_same_steps(people):
    whole, resumed = fitted(people, 8)[0], fitted(people, 8, through_a_file=True)[0]
    for name, array in whole.items():
        assert array.tobytes() == resumed[name].tobytes(), name


def test_where_other_people_answer_no_curvature_of_the_old_ones_is_used(people):
    model, memory = fitted(people, 6)
    assert any(name.startswith("step-") for name in memory)
    means, weights = answers(model, people, sites=2)
    _, fewer = regression_step(model, memory, means, weights, penalty=PENALTY)
    assert not any(name.startswith("step-") for name in fewer)
    again, _ = regression_step(model, memory, *answers(model, people), penalty=PENALTY)
    assert not np.array_equal(again[WEIGHT], model[WEIGHT])


def test_a_group_that_nobody_moved_is_left_as_it_is(people):
    model = parameters()
    means, weights = answers(model, people)
    kept, _ = regression_step(model, {}, {}, {}, penalty=PENALTY)
    assert all(np.array_equal(kept[name], model[name]) for name in model)
    del weights["ehr"]
    moved, _ = regression_step(model, {}, means, weights, penalty=PENALTY)
    assert np.array_equal(moved[SLOPES], model[SLOPES])
    assert not np.array_equal(moved[WEIGHT], model[WEIGHT])


def test_no_step_is_ten_times_as_long_as_the_one_before(people):
    model, memory, lengths = parameters(), {}, []
    for _ in range(8):
        means, weights = answers(model, people)
        new, memory = regression_step(model, memory, means, weights, penalty=1e-3)
        lengths.append(np.sqrt(sum(np.square(new[n] - model[n]).sum() for n in regressed(new))))
        model = new
    assert lengths[0] == pytest.approx(0.1, rel=1e-5)
    assert all(after <= 10.01 * before for before, after in itertools.pairwise(lengths))
