"""A subject's loss is theirs alone: no other row weighs in it, nor how many there are."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import EVENT
from healthfm_core.models.gaps import GAP_BINS
from healthfm_core.models.heads import RARE_LOGIT
from healthfm_core.objectives.cross_modal import cross_modal_loss
from healthfm_core.objectives.input_masking import MaskedInputs, mask_inputs
from healthfm_core.objectives.label import LABEL, label_loss
from healthfm_core.objectives.masked_codes import masked_codes_loss
from healthfm_core.objectives.masked_wearable import masked_wearable_loss
from healthfm_core.objectives.next_event import next_event_loss, next_events
from healthfm_core.objectives.next_visit import LEAST_RATE, NEXT_VISIT, next_visit_loss
from healthfm_core.objectives.predictive_coding import hours_ahead, predictive_coding_loss
from healthfm_core.objectives.time_to_event import time_to_event_loss
from tests.models.tiny import SHAPE, tiny_batch
from tests.objectives.test_objectives import masked_of, worn_batch


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def asked_batch() -> Batch:
    """Three queries of each of two subjects; the second has two, and one label less."""
    return tiny_batch(
        query=torch.tensor([[3, 4, 5], [2, 3, 3]]),
        query_mask=torch.tensor([[True, True, True], [True, True, False]]),
        query_time_us=torch.zeros(2, 3, dtype=torch.int64),
        target=(drawn(2, 3, 2) > 0).float(),
        repeats=drawn(2, 3, 2, seed=1).abs().round(),
        event_days=drawn(2, 3, 2, seed=2).abs() * 100,
        exposure_days=drawn(2, 3, seed=3).abs() * 100,
        label=torch.tensor([[1.0, 0.0, 1.0], [0.0, math.nan, 1.0]]),
    )


def masked_batch() -> MaskedInputs:
    generator = torch.Generator().manual_seed(1)
    return mask_inputs(
        asked_batch(),
        mask_token=2,
        fraction=0.9,
        wearable_fraction=0.9,
        channels=0,
        generator=generator,
    )


def row_of(value: Any, row: int) -> Any:
    """Return one row of a tensor, a batch, or of what holds them."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: row_of(getattr(value, f.name), row) for f in fields(value)}
        )
    return value[row : row + 1]


LOSSES = {
    "next_visit": lambda b: (next_visit_loss, drawn(2, 3, 2), b, {"repeat_decay": 0.5}),
    "time_to_event": lambda b: (
        time_to_event_loss,
        drawn(2, 3, 4),
        b,
        {"edges_days": (50.0, 300.0)},
    ),
    "cross_modal": lambda b: (cross_modal_loss, drawn(2, 3, 4), b, {"horizons_days": (30.0, 90.0)}),
    "label": lambda b: (label_loss, drawn(2, 3, 1), b, {}),
    "next_event": lambda b: (next_event_loss, drawn(2, 6, GAP_BINS + 9), next_events(b), {}),
    "masked_codes": lambda b: (masked_codes_loss, drawn(2, 6, 9), masked_batch(), {}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_subject_s_loss_is_the_same_alone_and_in_company(name):
    loss, logits, asked, settings = LOSSES[name](asked_batch())
    if name == "masked_codes":
        logits = logits[:, : asked.position.shape[1]]
    together = loss(logits, asked, **settings)
    alone = [loss(row_of(logits, row), row_of(asked, row), **settings)[0] for row in (0, 1)]
    torch.testing.assert_close(together, torch.stack(alone))
    assert together[0] != together[1]


def test_a_subject_s_reconstruction_is_the_same_alone_and_in_company():
    batch, masked, decoded = asked_batch(), masked_batch(), drawn(2, 1, 2, 2)
    both = replace(masked, cells=torch.ones(2, 1, 2, 2, dtype=torch.bool))
    together = masked_wearable_loss(decoded, batch, both)
    alone = [
        masked_wearable_loss(row_of(decoded, r), row_of(batch, r), row_of(both, r))[0]
        for r in (0, 1)
    ]
    torch.testing.assert_close(together, torch.stack(alone))


def test_a_subject_s_predictive_coding_is_the_same_alone_and_in_company():
    given = (
        *(drawn(2, 3, 2, 4), drawn(2, 3, 4, seed=1)),
        torch.tensor([[[1, 2], [2, 0], [0, 0]], [[1, 2], [2, 0], [1, 1]]]),
        torch.tensor(
            [[[True, True], [True, False], [False] * 2], [[True, False], *[[False] * 2] * 2]]
        ),
    )
    together = predictive_coding_loss(*given)
    alone = [predictive_coding_loss(*(row_of(part, r) for part in given))[0] for r in (0, 1)]
    torch.testing.assert_close(together, torch.stack(alone))


# The same losses, a query, target and piece at a time


def test_the_hazards_likelihood_by_its_definition():
    edges = (50.0, 100.0, 200.0)
    days = [
        [[50.0, 120.0], [10.0, math.inf], [300.0, 100.0]],
        [[70.0, 71.0], [200.0, 5.0], [1.0, 1.0]],
    ]
    batch = replace(
        asked_batch(),
        event_days=torch.tensor(days),
        exposure_days=torch.tensor([[130.0, 60.0, 250.0], [70.0, 300.0, 9.0]]),
    )
    z = drawn(2, 3, 6).double()
    wanted = [0.0, 0.0]
    for b, q, v in ((b, q, v) for b in range(2) for q in range(3) for v in range(2)):
        if not batch.query_mask[b, q]:
            continue
        event, end = days[b][q][v], float(batch.exposure_days[b, q])
        loss = 0.0
        for k, (start, stop) in enumerate(zip((0.0, *edges), edges, strict=False)):
            hazard = float(z[b, q, v * 3 + k])
            loss += math.exp(hazard) * max(0.0, min(event, end, stop) - start) / 365.25
            loss -= hazard * (start < event <= stop and event <= end)
        wanted[b] += loss / (2 * int(batch.query_mask[b].sum()))
    found = time_to_event_loss(z.float(), batch, edges_days=edges)
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_the_next_visit_s_loss_by_its_definition():
    batch, logits = asked_batch(), drawn(2, 3, 2)
    wanted = [0.0, 0.0]
    for b, q, v in ((b, q, v) for b in range(2) for q in range(3) for v in range(2)):
        sign = 1 if batch.target[b, q, v] else -1
        weight = math.exp(-0.5 * float(batch.repeats[b, q, v])) * bool(batch.query_mask[b, q])
        loss = math.log1p(math.exp(-sign * float(logits[b, q, v])))
        wanted[b] += weight * loss / (2 * int(batch.query_mask[b].sum()))
    found = next_visit_loss(logits, batch, repeat_decay=0.5)
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_predictive_coding_by_its_definition():
    said, latent = drawn(2, 2, 1, 4), drawn(2, 2, 4, seed=1)
    ahead = torch.tensor([[[1], [0]], [[0], [1]]])
    known = torch.tensor([[[True], [True]], [[True], [False]]])
    normed = (latent - latent.mean(-1, keepdim=True)) / (
        latent.var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    error = [
        [float((said[b, s, 0] - normed[b, int(ahead[b, s, 0])]).square().mean()) for s in range(2)]
        for b in range(2)
    ]
    found = predictive_coding_loss(said, latent, ahead, known)
    torch.testing.assert_close(found, torch.tensor([sum(error[0]) / 2, error[1][0]]))


def test_an_hour_a_day_ahead_is_a_whole_day_ahead():
    t = torch.tensor([[0.0, 23 / 24, 1.0]])
    at, known = hours_ahead(t, torch.ones(1, 3, dtype=torch.bool), (24,))
    assert (at[0, 0, 0].item(), known[0, :, 0].tolist()) == (2, [True, False, False])


def test_a_target_in_every_visit_or_in_none_starts_from_a_finite_rate():
    rates = torch.tensor([0.0, 1.0])
    head = NEXT_VISIT.head.build(replace(SHAPE, target_rates=tuple(rates.tolist())), 8)
    least = math.log(LEAST_RATE / (1 - LEAST_RATE))
    assert head.state.bias.tolist() == pytest.approx([least, -least], rel=1e-3)


# Means are over what was asked, be it one answer


def test_a_label_s_loss_is_the_mean_over_the_known_ones():
    logits = drawn(2, 3, 1)
    found = label_loss(logits, asked_batch())
    one = torch.nn.functional.softplus
    first = (one(-logits[0, 0, 0]) + one(logits[0, 1, 0]) + one(-logits[0, 2, 0])) / 3
    torch.testing.assert_close(found, torch.stack([first, one(logits[1, 0, 0])]))


def test_one_answer_alone_weighs_as_much_as_a_mean_of_many():
    known = tiny_batch(event_days=torch.full((2, 1, 2), math.inf), exposure_days=torch.ones(2, 1))
    once = replace(known, event_days=torch.tensor([[[5.0, math.inf]], [[math.inf, math.inf]]]))
    found = cross_modal_loss(torch.zeros(2, 1, 2), once, horizons_days=(30.0,))
    torch.testing.assert_close(found, torch.tensor([math.log(2), 0.0]))
    masked = masked_batch()
    cell = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    cell[0, 0, 0, 0] = True
    batch = asked_batch()
    one = masked_wearable_loss(batch.wearable + 3.0, batch, replace(masked, cells=cell))
    torch.testing.assert_close(one, torch.tensor([9.0, 0.0]))
    events = next_events(batch)
    single = replace(
        events, counted=torch.zeros_like(events.counted).index_fill(1, torch.tensor(2), True)
    )
    found = next_event_loss(torch.zeros(2, 6, GAP_BINS + 9), single)
    torch.testing.assert_close(found, torch.full((2,), math.log(GAP_BINS) + math.log(9)))


def test_what_happens_on_the_horizon_s_last_day_happens_within_it():
    batch = tiny_batch(
        event_days=torch.tensor([[[30.0, math.inf]], [[30.5, math.inf]]]),
        exposure_days=torch.tensor([[30.0], [30.0]]),
    )
    logits = torch.tensor([[[9.0, -9.0]], [[-9.0, -9.0]]])
    found = cross_modal_loss(logits, batch, horizons_days=(30.0,))
    torch.testing.assert_close(found, torch.full((2,), math.log1p(math.exp(-9.0))))


def test_nothing_is_asked_after_a_row_s_last_item():
    batch = tiny_batch(kind=torch.tensor([[EVENT] * 6, [EVENT] * 6]))
    assert next_events(batch).counted.tolist() == [[True] * 5 + [False]] * 2


def test_a_label_s_head_starts_from_the_study_s_rate_or_from_a_rare_one():
    rates = {0.0: RARE_LOGIT, 0.25: math.log(0.25 / 0.75)}
    for rate, bias in rates.items():
        head = LABEL.head.build(replace(SHAPE, label_rate=rate), 8)
        assert head.bias.tolist() == pytest.approx([bias])


# What is masked


def test_the_same_seed_masks_the_same_whatever_else_is_drawn():
    batch = worn_batch(hours=6, subjects=20)
    first = masked_of(batch, seed=3)
    torch.rand(7)
    again, other = masked_of(batch, seed=3), masked_of(batch, seed=4)
    assert torch.equal(first.cells, again.cells)
    assert torch.equal(first.position, again.position)
    assert not torch.equal(first.cells, other.cells)


def test_a_stretch_hides_the_wanted_share_wherever_it_begins():
    batch = worn_batch(hours=40, subjects=400)
    masked = masked_of(batch, wearable_fraction=0.3)
    starts = []
    for mask, cells in zip(batch.wearable_mask, masked.cells, strict=True):
        (seen,) = torch.nonzero(mask.any(-1).flatten(), as_tuple=True)
        hidden = torch.isin(seen, torch.nonzero(cells.any(-1).flatten()).squeeze(1))
        (at,) = torch.nonzero(hidden, as_tuple=True)
        if len(at) and int(at[-1] - at[0]) + 1 == len(at) < len(seen):
            assert abs(len(at) - 0.3 * len(seen)) <= 1
            starts.append(int(at[0]) / (0.7 * len(seen)))
    assert 0.25 * 400 < len(starts) < 0.42 * 400
    assert min(starts) < 0.05
    assert 0.95 < max(starts) < 1.02
    assert torch.tensor(starts).mean() == pytest.approx(0.5, abs=0.08)
