"""The script of `simulations/experiments/continuous_time` that counts visits instead of days."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import torch

from tests.models.tiny import tiny_batch, tiny_model

SCRIPT = Path(__file__).resolve().parents[2] / "simulations" / "experiments" / "continuous_time"
NAMES = runpy.run_path(str(SCRIPT / "visits_as_steps.py"))
STEP = NAMES["STEP_DAYS"]


def test_each_visit_is_a_step_and_what_has_no_time_has_none():
    """Row 0: events 400 and 30 days ago, a worn hour at 0, NOW a day later."""
    found = NAMES["in_steps"](tiny_batch()).t_days
    expected = [[0, 0, 0, STEP, 2 * STEP, 3 * STEP], [0, 0, STEP, STEP, 0, 0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_a_worn_hour_is_of_the_visit_it_comes_hours_before():
    batch = tiny_batch()
    t_days = batch.t_days.clone()
    t_days[0, 4] = t_days[0, 5] - 0.1
    found = NAMES["in_steps"](replace(batch, t_days=t_days)).t_days
    assert found[0, 4] == found[0, 5] == 2 * STEP


def test_how_long_ago_it_was_no_longer_reaches_a_model_that_decays():
    batch, model = tiny_batch(), tiny_model(memory=True, time_features=False).eval()
    longer = replace(batch, t_days=batch.t_days * 3)
    with torch.no_grad():
        assert not torch.equal(model(batch, batch.query), model(longer, batch.query))
        before, after = (model(NAMES["in_steps"](b), b.query) for b in (batch, longer))
    assert torch.equal(before, after)
