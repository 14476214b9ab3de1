"""The script next_day of the experiment few_labels: whose labels it reads, and how it fits."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from healthfm_core.config.compose import compose
from healthfm_core.evaluation.baselines.label_baselines import Summaries

FOLDER = Path(__file__).parents[2] / "simulations/experiments/few_labels"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("next_day", FOLDER / "next_day.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["next_day"] = module
    spec.loader.exec_module(module)
    yield module
    for name in ("next_day", "day_ahead"):
        del sys.modules[name]
    sys.path.remove(str(FOLDER))


def stays_of(script, n=600, seed=0):
    rng = np.random.default_rng(seed)
    state, numbers = rng.normal(size=(n, 3)), rng.normal(size=(n, 4))
    died = rng.random(n) < 1 / (1 + np.exp(-state[:, 0]))
    return script.EncodedStays(np.arange(n), np.arange(n) % 4, died, state, numbers)


def plain_of(stays):
    return Summaries(stays.subject, stays.site.astype(np.int32), stays.numbers, stays.died)


def test_no_label_trains_the_network(script):
    objectives = compose(list(script.PRETRAINING)).train.objectives
    asked = {name: weight for name, weight in objectives.model_dump().items() if weight}
    assert asked == {"value_forecast": 1.0}


def test_the_ridge_of_summed_gradients_is_the_pooled_ridge(script):
    stays = stays_of(script)
    found = script.ridge(stays.state, stays.died, stays.site, 0.05)
    pooled = LogisticRegression(C=0.05, tol=1e-8, max_iter=1000).fit(stays.state, stays.died)
    np.testing.assert_allclose(found[:-1], pooled.coef_[0], atol=1e-4)
    np.testing.assert_allclose(found[-1], pooled.intercept_[0], atol=1e-4)
    wanted = pooled.predict_proba(stays.state)[:, 1]
    np.testing.assert_allclose(script.answers(stays.state, found), wanted, atol=1e-4)


def test_whose_labels_were_not_drawn_changes_no_answer_and_no_test_label_does(script, monkeypatch):
    monkeypatch.setattr(script, "SHARES", (0.3,))
    stays, train = stays_of(script), np.arange(600) < 400
    before = script.predictions([stays], plain_of(stays), train, ~train, 0)
    drawn = train & script.keeps_label(stays.subject, share=0.3, seed=0)
    stays.died[~drawn] = ~stays.died[~drawn]
    after = script.predictions([stays], plain_of(stays), train, ~train, 0)
    for key, said in before.items():
        assert np.array_equal(said, after[key]), key
    stays.died[drawn] = ~stays.died[drawn]
    flipped = script.predictions([stays], plain_of(stays), train, ~train, 0)
    assert all(not np.array_equal(said, flipped[key]) for key, said in before.items())


def test_scales_are_of_the_training_stays_alone(script):
    stays, train = stays_of(script), np.arange(600) < 400
    before = script.inputs(stays, train)[train]
    stays.state[~train] *= 50.0
    stays.numbers[~train] += 9.0
    assert np.array_equal(before, script.inputs(stays, train)[train])
    assert np.abs(script.inputs(stays, train)).max() <= script.FURTHEST
