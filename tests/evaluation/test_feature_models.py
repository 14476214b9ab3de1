"""Regression and trees on known laws: sums over sites are the pooled fit, tuning people choose."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.evaluation.baselines.feature_models import (
    CHOSEN_NUMBERS,
    TREES,
    FeatureRows,
    fit_regression,
    fit_trees,
    log_loss,
)
from healthfm_core.evaluation.metrics.ranking import auroc


def rows(n: int, seed: int) -> FeatureRows:
    """Two targets: one linear in the first number, one where the second and third agree."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 80)).astype(np.float32)
    x[:, 79] = 4.0  # never varies
    logit = np.stack([2.0 * x[:, 0] - 1.0, 4.0 * (x[:, 1] > 0) - 2.0 + 0.5 * x[:, 2]], axis=1)
    return FeatureRows(x, rng.random((n, 2)) < 1.0 / (1.0 + np.exp(-logit)))


TRAIN, TUNING, TEST = rows(1500, 0), rows(400, 1), rows(800, 2)
ALWAYS = np.arange(80) >= 76


def test_a_regression_fitted_from_the_sites_sums_is_the_pooled_one():
    pooled = fit_regression([TRAIN], TUNING, penalties=[0.03], steps=60)
    parts = [
        FeatureRows(TRAIN.x[part], TRAIN.outcome[part])
        for part in (slice(0, 100), slice(100, 1100), slice(1100, 1500))
    ]
    summed = fit_regression(parts, TUNING, penalties=[0.03], steps=60)
    np.testing.assert_allclose(summed.score(TEST.x), pooled.score(TEST.x), atol=1e-3)
    assert auroc(pooled.score(TEST.x)[:, 0], TEST.outcome[:, 0]) > 0.8


def test_the_penalty_is_the_one_that_serves_the_tuning_people():
    tried = [fit_regression([TRAIN], TUNING, penalties=[1.0, p]) for p in (0.3, 0.03, 0.003)]
    chosen = fit_regression([TRAIN], TUNING, penalties=[1.0, 0.3, 0.03, 0.003])
    best = min(log_loss(model.score(TUNING.x), TUNING.outcome) for model in tried)
    assert log_loss(chosen.score(TUNING.x), TUNING.outcome) == pytest.approx(best, abs=2e-3)
    assert chosen.penalty < 1.0


def test_trees_find_a_step_and_stop_where_the_tuning_people_say():
    trees = fit_trees(TRAIN, TUNING, always=ALWAYS)
    assert all(auroc(trees.score(TEST.x)[:, v], TEST.outcome[:, v]) > 0.8 for v in (0, 1))
    assert 1 <= trees.rounds < TREES
    staged = [log_loss(score, TUNING.outcome) for score in trees.staged(TUNING.x)]
    assert staged[trees.rounds - 1] == min(staged)
    for number, branched in enumerate(trees.numbers):
        assert number in branched  # what decides this target
        assert set(np.flatnonzero(ALWAYS)) <= set(branched.tolist())
        assert len(branched) == ALWAYS.sum() + CHOSEN_NUMBERS


def test_an_outcome_that_never_happens_is_answered_by_its_rate():
    never = FeatureRows(TRAIN.x, np.zeros_like(TRAIN.outcome))
    assert not fit_trees(never, TUNING, always=ALWAYS).score(TEST.x).any()
    assert (fit_regression([never], TUNING).score(TEST.x) < 0.01).all()
