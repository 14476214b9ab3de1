"""The script of the experiment few_labels: what its networks may see, and how it scores."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

SCRIPT = Path(__file__).parents[2] / "simulations/experiments/few_labels/day_ahead.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("day_ahead", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["day_ahead"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["day_ahead"]


def stays_of(script, rng):
    n = 40
    windows = {name: rng.normal(size=(n, 3, script.NUMBERS)) for name in script.HOURS}
    for window in windows.values():
        window[:, :, -1] = rng.integers(0, 4, (n, 3))
        window[window[:, :, -1] == 0, :-1] = np.nan
    site = np.arange(n) % 4
    flags = rng.random(n) < 0.4
    return script.Stays(np.arange(n), site, flags, ~flags, rng.normal(size=(n, 8)), windows)


def test_the_second_day_is_forecast_from_the_first_alone(script):
    stays, train = stays_of(script, np.random.default_rng(0)), np.arange(40) < 30
    before = script.DayAhead(stays, train)
    stays.windows["second"][30:] += 5.0  # not among those that the scales are of
    after = script.DayAhead(stays, train)
    assert torch.equal(before.inputs, after.inputs)
    assert not torch.equal(before.target[30:], after.target[30:])
    assert not torch.equal(before.read[30:], after.read[30:])


def test_a_hidden_variable_leaves_nothing_of_itself(script):
    stays, train = stays_of(script, np.random.default_rng(1)), np.ones(40, bool)
    hidden = torch.zeros(40, 3)
    hidden[:, 1] = 1
    seen = script.Hidden(stays, train).seen(np.arange(40), hidden)
    stays.windows["stay"][:, 1] = 7.0
    again = script.Hidden(stays, train).seen(np.arange(40), hidden)
    assert torch.equal(seen, again)


def test_pretraining_reads_no_deaths(script, monkeypatch):
    monkeypatch.setattr(script, "ROUNDS", 2)
    monkeypatch.setattr(script, "BATCH", 4)
    stays, train = stays_of(script, np.random.default_rng(2)), np.ones(40, bool)
    first = script.states(stays, train, 0)
    assert np.isfinite(first).all()
    stays.died[:] = ~stays.died
    assert np.array_equal(first, script.states(stays, train, 0))


def test_values_before_and_after_noon_of_the_second_day_are_summarised_by_their_window(script):
    cell, value = np.array([0, 0, 0, 3]), np.array([2.0, 4.0, 9.0, 1.0])
    found = script.summaries(cell, value, np.array([True, True, False, True]), 2, 2)
    assert found[0, 0].tolist() == [3.0, 2.0, 4.0, 2.0, 4.0, 2.0]
    assert np.isnan(found[0, 1, :-1]).all()
    assert found[0, 1, -1] == 0
    assert found[1, 1].tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_auroc_of_repeated_stays_is_that_of_the_resampled_ones(script):
    rng = np.random.default_rng(3)
    score, died = rng.integers(0, 6, 50) / 6, rng.random(50) < 0.4
    picked = rng.integers(0, 50, 50)
    counts = np.stack([np.ones(50), np.bincount(picked, minlength=50)])
    wanted = [roc_auc_score(died, score), roc_auc_score(died[picked], score[picked])]
    np.testing.assert_allclose(script.aurocs(score, died, counts), wanted, rtol=1e-9)
