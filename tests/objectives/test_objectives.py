"""Losses by hand: two subjects, one query, numbers one can check on paper."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.sequences import EVENT, NOW
from healthfm_core.errors import RunError
from healthfm_core.models.gaps import GAP_BINS, GAP_EDGES_DAYS, gap_bin, gap_in
from healthfm_core.objectives.cross_modal import cross_modal_loss
from healthfm_core.objectives.input_masking import MaskedInputs, mask_inputs
from healthfm_core.objectives.label import label_loss
from healthfm_core.objectives.masked_codes import masked_codes_loss
from healthfm_core.objectives.masked_wearable import masked_wearable_loss
from healthfm_core.objectives.next_event import NextEventHead, next_event_loss, next_events
from healthfm_core.objectives.next_visit import NEXT_VISIT, next_visit_loss
from healthfm_core.objectives.objective import PassOutputs
from healthfm_core.objectives.predictive_coding import hours_ahead, predictive_coding_loss
from healthfm_core.objectives.time_to_event import risk, time_to_event_loss
from healthfm_core.objectives.worn_hours import worn_positions, worn_slots
from tests.models.tiny import tiny_batch, tiny_model


def test_next_visit_weighs_a_repeat_down_whether_it_recurs_or_not():
    batch = tiny_batch(
        target=torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]),
        repeats=torch.tensor([[[2.0, 2.0]], [[0.0, 0.0]]]),
    )
    found = next_visit_loss(torch.zeros(2, 1, 2), batch, repeat_decay=0.5)
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
    found = next_visit_loss(torch.zeros(2, 1, 2), batch, repeat_decay=0.5, weighting=weighting)
    torch.testing.assert_close(found, torch.tensor([recurs, does_not]) * math.log(2))


@pytest.mark.parametrize("weighting", ["symmetric", "positives", "focal", "none"])
def test_training_weighs_repeats_as_the_configuration_says(weighting):
    batch = tiny_batch(repeats=torch.full((2, 1, 2), 2.0))
    model, config = tiny_model().eval(), TrainConfig(repeat_weighting=weighting, repeat_decay=0.7)
    states = model(batch, batch.query)
    seen = PassOutputs(model, states, batch, None, config)
    logits = model.head("next_visit", states, batch)
    own = next_visit_loss(logits, batch, repeat_decay=0.7, weighting=weighting)
    torch.testing.assert_close(NEXT_VISIT.loss(seen), own)


def test_a_subject_without_a_query_has_no_loss():
    batch = tiny_batch(query_mask=torch.tensor([[True], [False]]))
    found = next_visit_loss(torch.zeros(2, 1, 2), batch, repeat_decay=0.5)
    assert found[1] == 0


def test_label_ignores_unknown_labels():
    batch = tiny_batch(label=torch.tensor([[1.0], [math.nan]]))
    found = label_loss(torch.tensor([[[0.0]], [[5.0]]]), batch)
    torch.testing.assert_close(found, torch.tensor([math.log(2), 0.0]))


def test_hazard_of_a_subject_followed_for_a_year_without_event_is_its_rate():
    batch = tiny_batch(
        event_days=torch.full((2, 1, 2), math.inf), exposure_days=torch.full((2, 1), 365.25)
    )
    log_rate = math.log(0.3)
    logits = torch.full((2, 1, 4), log_rate)
    found = time_to_event_loss(logits, batch, edges_days=(100.0, 730.5))
    torch.testing.assert_close(found, torch.full((2,), 0.3))


def test_an_event_takes_the_log_hazard_of_its_own_piece():
    batch = tiny_batch(
        event_days=torch.tensor([[[50.0, math.inf]], [[200.0, math.inf]]]),
        exposure_days=torch.full((2, 1), 400.0),
    )
    logits = torch.zeros(2, 1, 4)
    logits[..., 0] = 1.0
    found = time_to_event_loss(logits, batch, edges_days=(100.0, 300.0))
    first = (math.e * 50 / 365.25 - 1.0 + (300.0) / 365.25) / 2
    second = (math.e * 100 / 365.25 + 100 / 365.25 - 0.0 + 300.0 / 365.25) / 2
    torch.testing.assert_close(found, torch.tensor([first, second]))


def test_risk_is_the_closed_form_of_a_constant_hazard():
    logits = torch.full((1, 1, 2), math.log(0.5))
    found = risk(logits, (365.25, 3652.5), 730.5)
    torch.testing.assert_close(found, torch.full((1, 1, 1), 1 - math.exp(-1.0)))


def test_a_risk_that_begins_later_spends_the_hazards_of_its_own_days_alone():
    """Hazards of .5 and 2 a year before and after day 30, from day 20 on for 30 days."""
    logits = torch.tensor([[[0.5, 2.0]]]).log()
    found = risk(logits, (30.0, 90.0), 30.0, from_days=torch.tensor([[20.0]]))
    spent = (10 * 0.5 + 20 * 2.0) / 365.25
    torch.testing.assert_close(found, torch.full((1, 1, 1), 1 - math.exp(-spent)))


def test_hiding_takes_the_wanted_share_of_events_and_nothing_else():
    batch = tiny_batch()
    masked = masked_of(batch, fraction=0.5)
    changed = masked.batch.token != batch.token
    assert (batch.kind[changed] == EVENT).all()
    assert not (batch.kind[changed] == NOW).any()
    per_row = torch.ceil((batch.kind == EVENT).sum(1) * 0.5).long()
    torch.testing.assert_close(changed.sum(1), per_row)
    torch.testing.assert_close(masked.counted.sum(1), per_row)
    at = masked.position[masked.counted]
    assert len(at) == int(per_row.sum())


def masked_of(batch, seed=0, **changes):
    settings = {"fraction": 0.15, "wearable_fraction": 0.5, "channels": 2} | changes
    return mask_inputs(
        batch, mask_token=2, generator=torch.Generator().manual_seed(seed), **settings
    )


def worn_batch(hours=40, subjects=60):
    """Two channels of two samples, two windows an hour, one cell in five not observed."""
    g = torch.Generator().manual_seed(5)
    mask = torch.rand(subjects, hours, 2, 4, generator=g) > 0.2
    batch = tiny_batch()
    rows = {
        name: getattr(batch, name)[:1].expand(subjects, *getattr(batch, name).shape[1:])
        for name in batch.__dataclass_fields__
    }
    wearable = torch.randn(subjects, hours, 2, 4, generator=g) * mask
    return type(batch)(**{**rows, "wearable": wearable, "wearable_mask": mask})


def test_a_target_occurs_only_to_who_is_alive():
    rate, death = 0.4, 0.3
    z = torch.tensor([[[[rate, rate], [death, death]]]]).log().reshape(1, 1, 4)
    found = risk(z, (365.25, 3 * 365.25), 2 * 365.25, death=1)
    both = rate + death
    expected = [rate / both * (1 - math.exp(-2 * both)), 1 - math.exp(-2 * death)]
    torch.testing.assert_close(found, torch.tensor([[expected]]))
    turned = risk(z.view(1, 1, 2, 2).flip(2).flatten(2), (365.25, 3 * 365.25), 2 * 365.25, death=0)
    torch.testing.assert_close(turned.flip(-1), found)


@pytest.mark.parametrize("horizon", [0.0, -1.0, 730.5, 1825.0, math.nan])
def test_a_risk_beyond_the_last_edge_is_refused_not_given_as_that_of_the_edge(horizon):
    with pytest.raises(RunError, match=r"HF-708.*from now to 730 days"):
        risk(torch.zeros(1, 1, 2), (365.0, 730.0), horizon)


def test_a_horizon_of_hours_is_within_the_edges():
    found = risk(torch.full((1, 1, 1), math.log(0.3)), (30.0,), 0.5)
    torch.testing.assert_close(found, torch.full((1, 1, 1), 1 - math.exp(-0.3 * 0.5 / 365.25)))


def test_a_further_edge_gives_the_further_risk():
    logits = torch.full((1, 1, 2), math.log(0.1))
    years = 365.25 * torch.tensor([2.0, 5.0])
    within = [float(risk(logits, years.tolist(), days)) for days in years.tolist()]
    assert within == pytest.approx([1 - math.exp(-0.2), 1 - math.exp(-0.5)])


@pytest.mark.parametrize("horizon", [100.0, 500.0, 730.0])
def test_death_that_never_comes_takes_nothing_away(horizon):
    z = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    z[:, :, 1] = -60.0
    edges = (30.0, 180.0, 365.0, 730.0)
    alone, beside = (risk(z.flatten(2), edges, horizon, death=d) for d in (None, 1))
    torch.testing.assert_close(alone, beside)


def test_wearing_is_hidden_by_windows_by_a_stretch_or_by_sensors_and_only_where_observed():
    batch = worn_batch()
    window = masked_of(batch).cells
    assert not (window & ~batch.wearable_mask).any()
    kinds = [scheme_of(batch.wearable_mask[b], window[b]) for b in range(batch.size)]
    assert set(kinds) == {"windows", "stretch", "sensors"}
    assert min(kinds.count(kind) for kind in set(kinds)) > 8
    assert 0.4 < window.sum() / batch.wearable_mask.sum() < 0.6


def test_a_stretch_is_as_long_as_the_share_wherever_it_begins():
    batch = worn_batch()
    whole = replace(batch, wearable_mask=torch.ones_like(batch.wearable_mask))
    lengths = set()
    for seed in range(8):
        cells = masked_of(whole, seed=seed).cells
        for row in range(batch.size):
            if scheme_of(whole.wearable_mask[row], cells[row]) == "stretch":
                lengths.add(int(cells[row].any(-1).sum()))
    windows = batch.wearable_mask[0].any(-1).numel()
    assert lengths == {windows // 2}


def scheme_of(mask, window):
    """Which of the three schemes hid `window` of the observed `mask` [S, W, F] of one subject."""
    share = window.sum((0, 1)) / mask.sum((0, 1))
    if bool(((share == 0) | (share == 1)).all()):
        assert share[0] == share[1]
        assert share[2] == share[3]  # whole sensors: two samples a channel
        return "sensors"
    whole = window.any(-1)
    torch.testing.assert_close(window, mask & whole.unsqueeze(-1))  # whole windows
    (at,) = torch.nonzero(whole.flatten(), as_tuple=True)
    return "stretch" if int(at[-1] - at[0]) + 1 == len(at) else "windows"


def test_reconstruction_asks_only_what_was_observed_and_then_hidden():
    batch = worn_batch(hours=4, subjects=3)
    masked = masked_of(batch)
    wrong = batch.wearable + torch.where(masked.cells, 2.0, 100.0)
    found = masked_wearable_loss(wrong, batch, masked)
    asked = masked.cells.sum((1, 2, 3)) > 0
    torch.testing.assert_close(found, torch.where(asked, 4.0, 0.0))


def test_masked_codes_cost_their_mean_whether_one_is_masked_or_two():
    logits = torch.zeros(2, 2, 4)
    logits[0, 1, 3] = 5.0
    masked = MaskedInputs(
        tiny_batch(),
        position=torch.zeros(2, 2, dtype=torch.int64),
        token=torch.tensor([[1, 3], [2, 0]]),
        counted=torch.tensor([[True, True], [True, False]]),
        cells=torch.zeros(2, 1, 2, 2, dtype=torch.bool),
    )
    sure = math.log(3 + math.exp(5.0)) - 5.0
    expected = torch.tensor([(math.log(4) + sure) / 2, math.log(4)])
    torch.testing.assert_close(masked_codes_loss(logits, masked), expected)


def test_the_first_worn_hour_of_a_row_is_one_too():
    batch = tiny_batch()  # row 0 has one hour, in slot 0 at position 4; row 1 has none
    assert worn_positions(batch)[0].tolist() == [4]
    assert worn_slots(batch).tolist() == [[True], [False]]


def test_a_gap_s_vectors_start_at_the_size_of_a_state_s():
    head = NextEventHead(400, 3)
    assert float(head.gap_embedding.weight.detach().std()) == pytest.approx(400**-0.5, rel=0.1)


def test_hours_ahead_are_found_by_their_time_and_only_where_worn():
    hour = 1 / 24
    t = torch.tensor([[0.0, hour, 3 * hour, 4 * hour, 0.0]])
    worn = torch.tensor([[True, True, True, True, False]])
    at, known = hours_ahead(t, worn, (1, 3, 24))
    assert known[0].tolist() == [
        [True, True, False],
        [False, True, False],
        [True, False, False],
        [False] * 3,
        [False] * 3,
    ]
    assert at[0, 0, :2].tolist() == [1, 2]
    assert at[0, 1, 1] == 3


def test_predictive_coding_is_nothing_for_the_right_answer_and_teaches_the_encoder_nothing():
    latent = torch.randn(2, 3, 4, requires_grad=True)
    normed = torch.nn.functional.layer_norm(latent.detach(), (4,))
    ahead = torch.tensor([[[1], [2], [0]], [[1], [2], [0]]])
    known = torch.tensor([[[True], [True], [False]], [[False]] * 3])
    said = normed.roll(-1, 1).unsqueeze(2).clone().requires_grad_()
    found = predictive_coding_loss(said + 0.5, latent, ahead, known)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.0]))
    found.sum().backward()
    assert latent.grad is None
    assert said.grad is not None


def test_cross_modal_asks_only_what_is_known_of_the_horizon():
    batch = tiny_batch(
        event_days=torch.tensor([[[10.0, math.inf]], [[60.0, math.inf]]]),
        exposure_days=torch.tensor([[20.0], [100.0]]),
    )
    logits = torch.zeros(2, 1, 4)
    logits[0, 0, 0] = 50.0  # target 0 within 30 days: it happens, though followed for 20 alone
    logits[1, 0] = torch.tensor([-50.0, 50.0, -50.0, -50.0])  # 60 days: not in 30, but in 90
    found = cross_modal_loss(logits, batch, horizons_days=(30.0, 90.0))
    torch.testing.assert_close(found, torch.tensor([math.log(2) / 2, 0.0]))


def test_reading_left_to_right_no_token_sees_a_later_one():
    batch = tiny_batch()
    asked = next_events(batch)
    assert asked.batch.kv_end.tolist() == [[2, 2, 3, 4, 5, 5], [1, 2, 3, 3, 0, 0]]
    assert asked.counted.tolist() == [
        [False, True, True, False, False, False],
        [True, True, False, False, False, False],
    ]
    assert asked.token[0, 1:3].tolist() == [5, 6]
    assert asked.token[1, :2].tolist() == [7, 8]
    assert asked.gap[0, 2] == gap_bin(torch.tensor(370.0))


def test_the_next_event_costs_the_time_and_the_token_it_is_and_the_first_only_its_token():
    asked = next_events(tiny_batch())
    logits = torch.zeros(2, 6, GAP_BINS + 9)
    found = next_event_loss(logits, asked)
    both = math.log(GAP_BINS) + math.log(9)
    first = math.log(9)
    torch.testing.assert_close(found, torch.full((2,), (first + both) / 2))


@pytest.mark.parametrize("days", [0.0, 1e-3, 0.5, 20.0, 5000.0])
def test_a_gap_drawn_from_its_own_bin_lies_in_it(days):
    bin_ = gap_bin(torch.tensor([days]))
    drawn = gap_in(bin_.expand(100), torch.rand(100, generator=torch.Generator().manual_seed(0)))
    assert (gap_bin(drawn.clamp_min(1e-9 if days else 0)) == bin_).all()
    assert len(GAP_EDGES_DAYS) == GAP_BINS - 1
