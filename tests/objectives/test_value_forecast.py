"""The forecast of values: what is asked, of whom, and what a training step reads for it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from healthfm_core.config import TrainConfig
from healthfm_core.config.train import ObjectivesConfig
from healthfm_core.data.batch.sequences import COUNT_SCALE, SPREAD
from healthfm_core.objectives.objective import PassOutputs
from healthfm_core.objectives.value_forecast import (
    FURTHEST,
    VALUE_FORECAST,
    VALUES,
    later_numbers,
    value_forecast_loss,
)
from healthfm_core.training.passes import losses, passes_for
from tests.models.tiny import tiny_batch, tiny_model

CODES, N = 5, len(SPREAD)
CONFIG = TrainConfig(objectives=ObjectivesConfig(next_visit=0, value_forecast=1))


def early_batch():
    """Row 0: code 2 with a value of 1.5 three times, code 3 without one. Row 1: nothing comes."""
    spread = torch.zeros(2, 2, N)
    spread[0, 0] = torch.tensor([1.5] * VALUES + [math.log(4) / COUNT_SCALE])
    spread[0, 1, VALUES] = math.log(2) / COUNT_SCALE
    return tiny_batch(
        spread=torch.zeros(2, 6, N),
        later_code=torch.tensor([[2, 3], [0, 0]]),
        later_spread=spread,
        later_has_value=torch.tensor([[True, False], [False, False]]),
    )


def test_the_numbers_that_come_are_asked_of_codes_with_values_and_the_counts_of_all():
    wanted, valued = later_numbers(early_batch(), CODES)
    assert valued.tolist() == [[False, False, True, False, False], [False] * 5]
    found = value_forecast_loss(torch.zeros(2, CODES, N), wanted, valued)
    counts = (math.log(4) ** 2 + math.log(2) ** 2) / CODES
    torch.testing.assert_close(found, torch.tensor([1.5**2 + counts, 0.0]))


def test_values_cost_their_mean_over_the_codes_that_come_with_them():
    wanted, valued = torch.zeros(1, 3, N), torch.tensor([[True, True, False]])
    said = torch.zeros(1, 3, N)
    said[0, 0, :VALUES], said[0, 1, :VALUES] = 1.0, 3.0
    found = value_forecast_loss(said, wanted, valued)
    torch.testing.assert_close(found, torch.tensor([(1.0 + 9.0) / 2]))


def test_the_first_code_is_asked_as_every_other():
    batch = early_batch()
    later = torch.where(batch.later_code == 2, 1, batch.later_code)
    _, valued = later_numbers(replace(batch, later_code=later), CODES)
    wanted, _ = later_numbers(replace(batch, later_code=later), CODES)
    assert valued[0].tolist() == [False, True, False, False, False]
    torch.testing.assert_close(wanted[0, 1, :VALUES], torch.full((VALUES,), 1.5))


def test_what_is_said_of_values_that_do_not_come_costs_nothing():
    wanted, valued = later_numbers(early_batch(), CODES)
    said = torch.zeros(2, CODES, N)
    before = value_forecast_loss(said, wanted, valued)
    said[:, :, :VALUES][~valued] = 9.0
    torch.testing.assert_close(value_forecast_loss(said, wanted, valued), before)


def test_a_value_far_out_is_asked_as_one_at_the_edge_and_a_count_as_it_is():
    for side in (1.0, -1.0):
        wanted = torch.full((1, 1, N), 50.0 * side)
        said = torch.full((1, 1, N), FURTHEST * side)
        said[..., VALUES] = 50.0 * side
        assert value_forecast_loss(said, wanted, torch.tensor([[True]])).item() == 0.0


def test_a_subject_s_forecast_is_judged_the_same_alone_and_in_company():
    draw = torch.Generator().manual_seed(0)
    said, wanted = (torch.randn(2, CODES, N, generator=draw) for _ in range(2))
    valued = torch.tensor([[True, False, True, False, True], [False, True, False, False, False]])
    together = value_forecast_loss(said, wanted, valued)
    rows = [slice(r, r + 1) for r in (0, 1)]
    alone = [value_forecast_loss(said[row], wanted[row], valued[row])[0] for row in rows]
    torch.testing.assert_close(together, torch.stack(alone))
    assert together[0] != together[1]


def test_a_step_reads_early_rows_alone_and_reports_the_mean_loss():
    (part,) = passes_for(CONFIG)
    assert (part.query, [o.name for o in part.objectives]) == ("early", ["value_forecast"])
    model = tiny_model(heads=("value_forecast",), spread=N, summary_hours=24.0).eval()
    batch = early_batch()
    found = losses(model, batch, (part,), CONFIG, torch.Generator().manual_seed(0))
    states = model(batch, batch.query)
    mean = VALUE_FORECAST.loss(PassOutputs(model, states, batch, None, CONFIG)).mean()
    assert found.means["loss_value_forecast"].item() == pytest.approx(mean.item())


def test_the_forecast_teaches_the_network_that_reads_the_hours_before():
    model = tiny_model(heads=("value_forecast",), spread=N, summary_hours=1e4)
    loss = losses(
        model, early_batch(), passes_for(CONFIG), CONFIG, torch.Generator().manual_seed(0)
    )
    loss.per_subject.sum().backward()
    for name in ("encoders.ehr.summary.first.weight", "heads.value_forecast.weight"):
        assert dict(model.named_parameters())[name].grad.abs().sum() > 0, name


def test_what_comes_is_asked_and_never_read():
    model = tiny_model(heads=("value_forecast",), spread=N, summary_hours=1e4).eval()
    batch = early_batch()
    other = replace(batch, later_spread=batch.later_spread + 1.0)
    assert torch.equal(model(batch, batch.query), model(other, other.query))
    outputs = [PassOutputs(model, model(b, b.query), b, None, CONFIG) for b in (batch, other)]
    before, after = (VALUE_FORECAST.loss(seen)[0] for seen in outputs)
    assert before != after


def test_a_row_without_a_query_asks_nothing():
    model = tiny_model(heads=("value_forecast",), spread=N).eval()
    batch = replace(early_batch(), query_mask=torch.tensor([[True], [False]]))
    found = VALUE_FORECAST.loss(PassOutputs(model, model(batch, batch.query), batch, None, CONFIG))
    assert found[0] > 0
    assert found[1] == 0
