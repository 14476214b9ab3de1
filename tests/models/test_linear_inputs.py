"""What the linear part of a label's logit reads of a code: bends at knots, and hours as one bin."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleModuleFastGradientClipping,
)

from healthfm_core.data.batch.sequences import COUNT_SCALE
from healthfm_core.models import HealthFM
from healthfm_core.models.linear_logit import LinearInputs, with_hinges
from tests.models.test_code_summaries import chart, token
from tests.models.test_healthfm import by_loop, label_losses
from tests.models.tiny import tiny_model

KNOTS = (-1.0, 2.0)


def linear_model(knots: tuple[float, ...] = (), hours: float | None = None) -> HealthFM:
    linear = {"linear_logit": True, "linear_knots": knots, "linear_hours": hours}
    return tiny_model(("ehr",), ("label",), spread=6, **linear).eval()


def test_each_number_is_followed_by_how_far_it_lies_beyond_each_knot():
    numbers = torch.tensor([[3.0, -4.0], [1.0, 0.0], [5.0, 5.0]])
    there = torch.tensor([[1.0], [1.0], [0.0]])
    found = with_hinges(numbers, there, KNOTS)
    assert found.tolist() == [
        [3.0, -4.0, 0.0, 3.0, 1.0, 0.0],
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [5.0, 5.0, 0.0, 0.0, 0.0, 0.0],
    ]
    assert with_hinges(numbers, there, ()).tolist() == numbers.tolist()


@pytest.mark.parametrize(("hours", "straight"), [(None, 8), (24.0, 7)])
def test_a_code_has_a_weight_for_each_number_and_for_each_bend(hours, straight):
    assert LinearInputs((), hours).columns(6) == straight
    model = linear_model(KNOTS, hours)
    assert model.encoders["ehr"].linear_logit.weight.shape == (5, straight + 12)


def test_token_by_token_a_bend_adds_what_lies_beyond_the_knot():
    """Code 2 has means of 1, 2 and 3 on three days: 1, 0 and 1 beyond -1 and 2 on one of them."""
    batch, _ = chart()
    model = linear_model(KNOTS)
    with torch.no_grad():
        table = model.encoders["ehr"].linear_logit.weight
        table[2, 8:] = torch.tensor([10.0, *[0.0] * 5, 100.0, *[0.0] * 5])
        assert model.linear_logit(batch).item() == pytest.approx(100.0 * (3.0 - 2.0))
        table[2, 2] = 1.0
        assert model.linear_logit(batch).item() == pytest.approx(100.0 + 1.0 + 2.0 + 3.0)


def test_hours_are_read_as_one_bin_and_what_is_older_not_at_all():
    """Of code 2 the last day holds 3 alone; of three days 1, 2 and 3, of which the least is 1."""
    batch, _ = chart()
    for hours, least, mean, number in ((24.0, 3.0, 3.0, 1), (72.0, 1.0, 2.0, 3)):
        model = linear_model((), hours)
        with torch.no_grad():
            table = model.encoders["ehr"].linear_logit.weight
            table[2] = torch.tensor([1e4, 1e3, 1e1, 0.0, 0.0, 0.0, 1e-2])
            found = model.linear_logit(batch).item()
        count = math.log1p(number) / COUNT_SCALE
        assert found == pytest.approx(1e4 + 1e3 * mean + 1e1 * least + 1e-2 * count, rel=1e-6)


def test_a_query_reads_nothing_behind_what_it_may_see():
    batch, _ = chart()
    early = replace(batch, kv_end=torch.tensor([[1, 2, 3, 4, 5, 3]], dtype=torch.int32))
    later = replace(early, spread=early.spread.clone())
    later.spread[0, 3:5] = torch.tensor(token(99.0))
    for hours in (None, 72.0):
        model = linear_model(KNOTS, hours)
        with torch.no_grad():
            model.encoders["ehr"].linear_logit.weight.fill_(1.0)
            assert torch.equal(model.linear_logit(early), model.linear_logit(later))
            assert not torch.equal(model.linear_logit(early), model.linear_logit(batch))


@pytest.mark.parametrize("hours", [None, 72.0])
def test_it_says_nothing_at_the_start(hours):
    batch, _ = chart()
    assert linear_model(KNOTS, hours).linear_logit(batch).item() == 0.0


@pytest.mark.parametrize("hours", [None, 72.0])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_its_gradient_norms_by_person_are_those_of_a_loop(hours):
    batch, _ = chart()
    model = linear_model(KNOTS, hours).train()
    expected = by_loop(model, batch, label_losses)
    assert (expected["encoders.ehr.linear_logit.weight"] != 0).any()
    model.zero_grad()
    wrapped = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum"
    )
    label_losses(wrapped._module, batch).sum().backward()
    squares = sum(part.flatten(1).square().sum(1) for part in expected.values())
    torch.testing.assert_close(wrapped.get_norm_sample(), squares.sqrt(), rtol=1e-4, atol=1e-6)
