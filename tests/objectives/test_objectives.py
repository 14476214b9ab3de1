"""Losses by hand: two subjects, one query, numbers one can check on paper."""

from __future__ import annotations

import math

import pytest
import torch

from healthfm_core.data.sequences import EVENT, NOW
from healthfm_core.objectives import hide, label, next_visit, risk, time_to_event
from tests.models.tiny import tiny_batch


def test_next_visit_weighs_a_repeat_down_whether_it_recurs_or_not():
    batch = tiny_batch(
        target=torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]),
        repeats=torch.tensor([[[2.0, 2.0]], [[0.0, 0.0]]]),
    )
    found = next_visit(torch.zeros(2, 1, 2), batch, repeat_decay=0.5)
    expected = torch.tensor([math.exp(-1.0), 1.0]) * math.log(2)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("weighting", "recurs", "does_not"),
    [
        ("symmetric", math.exp(-1.0), math.exp(-1.0)),
        ("positives", math.exp(-1.0), 1.0),
        ("focal", 0.25, 0.25),
        ("none", 1.0, 1.0),
    ],
)
def test_each_weighting_of_repeats_weighs_as_it_is_called(weighting, recurs, does_not):
    batch = tiny_batch(
        target=torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]]), repeats=torch.full((2, 1, 2), 2.0)
    )
    found = next_visit(torch.zeros(2, 1, 2), batch, repeat_decay=0.5, weighting=weighting)
    torch.testing.assert_close(found, torch.tensor([recurs, does_not]) * math.log(2))


def test_a_subject_without_a_query_has_no_loss():
    batch = tiny_batch(query_mask=torch.tensor([[True], [False]]))
    found = next_visit(torch.zeros(2, 1, 2), batch, repeat_decay=0.5)
    assert found[1] == 0


def test_label_ignores_unknown_labels():
    batch = tiny_batch(label=torch.tensor([[1.0], [math.nan]]))
    found = label(torch.tensor([[[0.0]], [[5.0]]]), batch)
    torch.testing.assert_close(found, torch.tensor([math.log(2), 0.0]))


def test_hazard_of_a_subject_followed_for_a_year_without_event_is_its_rate():
    batch = tiny_batch(
        event_days=torch.full((2, 1, 2), math.inf), exposure_days=torch.full((2, 1), 365.25)
    )
    log_rate = math.log(0.3)
    logits = torch.full((2, 1, 4), log_rate)
    found = time_to_event(logits, batch, edges_days=(100.0, 730.5))
    torch.testing.assert_close(found, torch.full((2,), 0.3))


def test_an_event_takes_the_log_hazard_of_its_own_piece():
    batch = tiny_batch(
        event_days=torch.tensor([[[50.0, math.inf]], [[200.0, math.inf]]]),
        exposure_days=torch.full((2, 1), 400.0),
    )
    logits = torch.zeros(2, 1, 4)
    logits[..., 0] = 1.0
    found = time_to_event(logits, batch, edges_days=(100.0, 300.0))
    first = (math.e * 50 / 365.25 - 1.0 + (300.0) / 365.25) / 2
    second = (math.e * 100 / 365.25 + 100 / 365.25 - 0.0 + 300.0 / 365.25) / 2
    torch.testing.assert_close(found, torch.tensor([first, second]))


def test_risk_is_the_closed_form_of_a_constant_hazard():
    logits = torch.full((1, 1, 2), math.log(0.5))
    found = risk(logits, (365.25, 3652.5), 730.5)
    torch.testing.assert_close(found, torch.full((1, 1, 1), 1 - math.exp(-1.0)))


def test_hiding_takes_the_wanted_share_of_events_and_nothing_else():
    batch = tiny_batch()
    hidden = hide(batch, mask_token=2, fraction=0.5, generator=torch.Generator().manual_seed(0))
    changed = hidden.batch.token != batch.token
    assert (batch.kind[changed] == EVENT).all()
    assert not (batch.kind[changed] == NOW).any()
    per_row = torch.ceil((batch.kind == EVENT).sum(1) * 0.5).long()
    torch.testing.assert_close(changed.sum(1), per_row)
    torch.testing.assert_close(hidden.counted.sum(1), per_row)
    at = hidden.position[hidden.counted]
    assert len(at) == int(per_row.sum())
