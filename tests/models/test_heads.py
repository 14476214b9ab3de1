"""The next-visit head: it starts from rates, and counts how often a target was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from healthfm_core.models.heads import MOST_REPEATS
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.label import LABEL
from healthfm_core.objectives.next_visit import NEXT_VISIT
from healthfm_core.objectives.time_to_event import TIME_TO_EVENT

SHAPE = ModelShape(
    tokens=8,
    codes=8,
    mask_token=2,
    targets=3,
    panel=(),
    windows=0,
    features=0,
    pieces=1,
    target_rates=(0.5, 0.1, 0.0),
    label_rate=0.25,
)


def test_an_untrained_head_answers_with_the_study_s_rates():
    torch.manual_seed(0)
    head = NEXT_VISIT.head.build(SHAPE, 16)
    found = torch.sigmoid(head(torch.zeros(1, 1, 16), torch.zeros(1, 1, 3)))
    assert found.flatten().tolist() == pytest.approx([0.5, 0.1, 1e-4], rel=1e-3)
    label = torch.sigmoid(LABEL.head.build(SHAPE, 16)(torch.zeros(1, 1, 16)))
    assert label.item() == pytest.approx(0.25)


def test_a_repeat_moves_its_own_target_by_its_own_count():
    head = NEXT_VISIT.head.build(SHAPE, 16)
    with torch.no_grad():
        head.recurrence.weight[1 * (MOST_REPEATS + 1) + 2] = 1.0  # target 1, seen twice
    states = torch.zeros(1, 4, 16)
    seen = torch.tensor([[[0, 0, 0], [0, 1, 2], [2, 2, 0], [0, 99, 0]]], dtype=torch.float32)
    moved = head(states, seen) - head(states, torch.zeros_like(seen))
    assert (moved.nonzero().tolist()) == [[0, 2, 1]]
    assert moved[0, 2, 1] > 0


def test_a_repeat_moves_all_pieces_of_its_target_s_hazard():
    head = TIME_TO_EVENT.head.build(replace(SHAPE, pieces=2), 16)
    with torch.no_grad():
        head.recurrence.weight[1 * (MOST_REPEATS + 1) + 2] = 0.3
    seen = torch.tensor([[[0.0, 2.0, 2.0]]])
    moved = head(torch.zeros(1, 1, 16), seen) - head(torch.zeros(1, 1, 16), torch.zeros(1, 1, 3))
    assert moved.flatten().tolist() == pytest.approx([0, 0, 3, 3, 0, 0])


def test_more_repeats_than_the_table_has_count_as_its_last():
    head = NEXT_VISIT.head.build(SHAPE, 16)
    torch.nn.init.normal_(head.recurrence.weight)
    states = torch.zeros(1, 1, 16)
    last, more = (torch.full((1, 1, 3), float(n)) for n in (MOST_REPEATS, MOST_REPEATS + 50))
    assert torch.equal(head(states, last), head(states, more))
