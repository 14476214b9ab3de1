"""The model: what a position can see, and gradients per subject as privacy will need them."""

from __future__ import annotations

from dataclasses import fields, replace

import opacus
import pytest
import torch
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleModuleFastGradientClipping,
)

from healthfm_core.config.compose import compose
from healthfm_core.data.batch.batch import Batch
from healthfm_core.models import HealthFM
from healthfm_core.models.decay import HALF_LIFE_MAX_DAYS, clamp_half_lives, initial_log_rates
from healthfm_core.models.monitors import all_half_lives, context_monitors
from healthfm_core.objectives import head_specs
from healthfm_core.objectives.label import label_loss
from healthfm_core.objectives.next_visit import next_visit_loss
from tests.models.tiny import SHAPE, tiny_batch, tiny_model

EVERY = ("ehr", "wearable", "genomics")


def one_row(batch: Batch, row: int) -> Batch:
    return Batch(**{f.name: getattr(batch, f.name)[row : row + 1] for f in fields(Batch)})


def spread_batch() -> Batch:
    """The tiny batch with two further numbers per value."""
    return tiny_batch(spread=torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(2)))


def row_losses(model, batch):
    asked = model(batch, batch.query)
    return next_visit_loss(model.head("next_visit", asked, batch), batch, repeat_decay=0.5)


def label_losses(model, batch):
    return label_loss(model.head("label", model(batch, batch.query), batch), batch)


def by_loop(model, batch, row_losses=row_losses):
    """Return parameter → [B, …] gradients, one backward pass per subject."""
    found = {name: [] for name, _ in model.named_parameters()}
    for row in range(batch.size):
        model.zero_grad()
        row_losses(model, one_row(batch, row)).sum().backward()
        for name, parameter in model.named_parameters():
            grad = parameter.grad
            found[name].append(torch.zeros_like(parameter) if grad is None else grad.clone())
    return {name: torch.stack(parts) for name, parts in found.items()}


def test_states_at_queries_equal_states_of_all_positions():
    model, batch = tiny_model(), tiny_batch()
    everywhere = model(batch)
    asked = model(batch, batch.query)
    torch.testing.assert_close(asked[0, 0], everywhere[0, 5])
    torch.testing.assert_close(asked[1, 0], everywhere[1, 3])


def test_the_future_and_the_padding_change_nothing():
    model, batch = tiny_model(), tiny_batch()
    token = batch.token.clone()
    token[0, 3], token[1, 4] = 8, 8
    changed = model(replace(batch, token=token))
    before = model(batch)
    torch.testing.assert_close(changed[0, :3], before[0, :3])
    torch.testing.assert_close(changed[1, :4], before[1, :4])
    assert not torch.allclose(changed[0, 5], before[0, 5])


def test_sums_see_what_attention_sees_and_count_it():
    model, batch = tiny_model(("ehr",), sum_pooling=True), tiny_batch()
    asked, everywhere = model(batch, batch.query), model(batch)
    torch.testing.assert_close(asked[0, 0], everywhere[0, 5])
    token = batch.token.clone()
    token[0, 3], token[1, 4] = 8, 8
    changed = model(replace(batch, token=token))
    torch.testing.assert_close(changed[0, :3], everywhere[0, :3])
    torch.testing.assert_close(changed[1, :4], everywhere[1, :4])
    x = torch.ones(1, 3, 8)
    sums = model.backbone.sum_pooling(x, torch.tensor([[0, 1, 3]], dtype=torch.int32))
    torch.testing.assert_close(sums[0, 2], 3 * sums[0, 1])
    assert not sums[0, 0].any()


def test_code_scale_shrinks_what_codes_start_from_and_nothing_else():
    full, small = tiny_model(("ehr",)).arrays(), tiny_model(("ehr",), code_scale=0.5).arrays()
    halved = {name for name in full if not (full[name] == small[name]).all()}
    assert halved == {"encoders.ehr.token.weight", "encoders.ehr.code.weight"}
    assert all((small[name] == full[name] / 2).all() for name in halved)


def test_the_spread_is_read_where_there_is_a_code():
    model, batch = tiny_model(("ehr",), spread=2), spread_batch()
    before = model.encoders["ehr"].tokens(batch)
    after = model.encoders["ehr"].tokens(replace(batch, spread=batch.spread + 1))
    moved = (before != after).any(-1)
    assert torch.equal(moved, batch.code > 0)


def test_rows_do_not_touch():
    model, batch = tiny_model(), tiny_batch()
    together = model(batch)
    for row in range(2):
        torch.testing.assert_close(model(one_row(batch, row))[0], together[row])


def test_scores_of_a_subject_without_any_are_not_read():
    model, batch = tiny_model(), tiny_batch()
    panel = batch.panel.clone()
    panel[1] = 5.0
    torch.testing.assert_close(model(replace(batch, panel=panel))[1], model(batch)[1])


@pytest.mark.parametrize("encoders", [EVERY, ("ehr",), ("ehr", "wearable"), ("wearable",)])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_opacus_gradients_equal_a_loop_over_subjects(encoders):
    model, batch = tiny_model(encoders, spread=2, sum_pooling=True), spread_batch()
    expected = by_loop(model, batch)
    model.zero_grad()
    wrapped = opacus.GradSampleModule(model, loss_reduction="sum")
    row_losses(wrapped._module, batch).sum().backward()
    for name, parameter in model.named_parameters():
        sample = getattr(parameter, "grad_sample", None)
        assert sample is not None, name
        assert sample.shape[0] == batch.size, name
        torch.testing.assert_close(sample, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fusion", ["sum", "product"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_ghost_norms_equal_a_loop_over_subjects(fusion):
    memory = {"memory": True, "memory_fusion": fusion, "layer_scale": 0.1}
    model = tiny_model(spread=2, sum_pooling=True, **memory)
    batch = spread_batch()
    expected = by_loop(model, batch)
    model.zero_grad()
    wrapped = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum"
    )
    row_losses(wrapped._module, batch).sum().backward()
    squares = sum(part.flatten(1).square().sum(1) for part in expected.values())
    torch.testing.assert_close(wrapped.get_norm_sample(), squares.sqrt(), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_ghost_norms_of_the_linear_logit_equal_a_loop_over_subjects():
    model, batch = tiny_model(heads=("label",), spread=2, linear_logit=True), spread_batch()
    expected = by_loop(model, batch, label_losses)
    assert all(
        (expected[f"encoders.{e}.linear_logit.weight"] != 0).any() for e in ("ehr", "wearable")
    )
    model.zero_grad()
    wrapped = GradSampleModuleFastGradientClipping(
        model, max_grad_norm=1.0, use_ghost_clipping=True, loss_reduction="sum"
    )
    label_losses(wrapped._module, batch).sum().backward()
    squares = sum(part.flatten(1).square().sum(1) for part in expected.values())
    torch.testing.assert_close(wrapped.get_norm_sample(), squares.sqrt(), rtol=1e-4, atol=1e-6)


def test_a_model_without_an_encoder_has_no_parameter_of_it():
    names = [name for name, _ in tiny_model(("ehr",)).named_parameters()]
    assert not [name for name in names if name.startswith(("encoders.w", "encoders.g"))]


def test_half_lives_start_between_an_hour_and_ten_years_spread_over_heads():
    log_rates = initial_log_rates(4, 3)
    assert log_rates.shape == (4, 3)
    assert (log_rates[:, :-1] > log_rates[:, 1:]).all()
    assert (log_rates[:-1, -1] > log_rates[1:, -1]).all()
    days = all_half_lives(tiny_model().backbone)
    assert min(days[0]) == pytest.approx(1 / 24, rel=1e-3)
    assert max(days[0]) == pytest.approx(3652.5, rel=1e-3)
    assert max(days[0]) < HALF_LIFE_MAX_DAYS


def test_arrays_round_trip():
    model = tiny_model()
    arrays = model.arrays()
    other = tiny_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_arrays(arrays)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("attention", ["logbias", "postmul", "logitmul", "rope_days", "sinusoid"])
@pytest.mark.parametrize("floor", [False, True])
def test_every_arm_of_the_ablation_runs_with_finite_gradients(attention, floor):
    model = tiny_model(attention=attention, floor=floor, activation="swiglu")
    row_losses(model, tiny_batch()).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_effective_context_is_the_mean_of_the_days_looked_back():
    """Without content to look for, attention goes by the kernel alone."""
    model = tiny_model(layers=1)
    block = model.backbone.blocks[0]
    torch.nn.init.zeros_(block.qkv.weight)
    torch.nn.init.zeros_(block.qkv.bias)
    batch = tiny_batch()
    alone = replace(
        batch,
        kind=torch.tensor([[2, 2, 0, 0, 0, 0]] * 2),
        t_days=torch.tensor([[-10.0, 0, 0, 0, 0, 0]] * 2),
        kv_end=torch.tensor([[1, 2, 0, 0, 0, 0]] * 2, dtype=torch.int32),
        n_static=torch.zeros(2, dtype=torch.int32),
    )
    with torch.no_grad():
        rates, weights = block.decay(torch.zeros(1))
    kernel = (weights * torch.exp(-rates * 10)).sum(-1)
    expected = (10 * kernel / (1 + kernel)).mean() / 2  # the first of the two looks nowhere
    found = context_monitors(model.backbone, torch.zeros(2, 6, 8), alone)
    assert found["layer0/effective_context_days"] == pytest.approx(float(expected), rel=1e-4)


def test_without_time_features_the_attention_alone_tells_times_apart():
    model = tiny_model(time_features=False)
    model.eval()
    batch = tiny_batch()
    later = replace(batch, t_days=batch.t_days * 3)
    told = replace(batch, gap_days=batch.gap_days * 3, age_years=batch.age_years * 3)
    with torch.no_grad():
        as_it_is, spread, unread = (model(b, b.query) for b in (batch, later, told))
    assert not torch.allclose(as_it_is, spread)
    assert torch.equal(as_it_is, unread)
    assert not any(name.startswith("backbone.time") for name, _ in model.named_parameters())


@pytest.mark.parametrize("time_features", [True, False])
def test_a_query_further_ahead_has_another_state(time_features):
    model, batch = tiny_model(time_features=time_features), tiny_batch()
    now, month, year = (model(b, b.query) for b in (batch, batch.ahead(30.0), batch.ahead(365.0)))
    gap = (year - month).abs().max()
    assert gap > 1e-3
    assert not torch.allclose(now, month, atol=1e-3)


def test_a_half_life_that_left_its_range_is_brought_back_and_can_move_again():
    model = tiny_model()
    rate = model.backbone.blocks[0].decay.log_rate.weight
    torch.nn.init.constant_(rate, 9.0)  # seconds
    clamp_half_lives(model)
    assert all_half_lives(model.backbone)[0] == pytest.approx([1 / 24] * rate.numel(), rel=1e-5)
    row_losses(model, tiny_batch()).sum().backward()
    assert (rate.grad != 0).any()


def test_the_floor_s_weight_is_told_where_there_is_a_floor():
    model = tiny_model(floor=True)
    found = context_monitors(model.backbone, torch.zeros(2, 6, 8), tiny_batch())
    assert found["layer1/floor_weight"] == pytest.approx(1 / 4)


def test_the_paper_size_has_302_million_parameters_in_its_blocks():
    """Counted on the meta device: 24 layers of width 1,024 (arXiv 2601.12227), within 5 %."""
    config = compose(["model=paper"]).model
    with torch.device("meta"):
        model = HealthFM(config, SHAPE, encoders=EVERY, heads=head_specs(["next_visit"]))
    in_blocks = sum(p.numel() for p in model.backbone.blocks.parameters())
    assert in_blocks == pytest.approx(302e6, rel=0.05)


def told(model, batch):
    """Weights of the linear logit that tell its parts apart: 1 a code, a value, a first spread."""
    with torch.no_grad():
        model.encoders["ehr"].linear_logit.weight[:, :3] = torch.tensor([1.0, 10.0, 100.0])
        model.encoders["wearable"].linear_logit.weight[0] = 1000.0
        model.encoders["wearable"].linear_logit.weight[1] = -7.0
    return model.linear_logit(batch)


def test_the_linear_logit_adds_up_codes_and_averages_wearing_up_to_the_query():
    model = tiny_model(heads=("label",), spread=2, linear_logit=True)
    batch = spread_batch()
    value, mask = batch.wearable[0, 0] * batch.wearable_mask[0, 0], batch.wearable_mask[0, 0]
    expected = [
        3 + 10 * (0.5 - 0.5) + 100 * batch.spread[0, 1:4, 0].sum(),
        2 + 10 * 0.2 + 100 * batch.spread[1, :2, 0].sum(),
    ]
    # what stands behind the query's end is not seen; padding says nothing
    kv_end = batch.kv_end.clone()
    kv_end[1, 3] = 2
    found = told(model, replace(batch, kv_end=kv_end))
    worn = 1000 * (value.clamp(-3, 3) + mask).sum(-1).mean()
    torch.testing.assert_close(found.flatten(), torch.stack(expected) + torch.tensor([worn, 0.0]))


def test_wearing_says_something_else_where_there_is_no_clinic():
    model = tiny_model(heads=("label",), spread=2, linear_logit=True)
    batch = spread_batch()
    value, mask = batch.wearable[0, 0] * batch.wearable_mask[0, 0], batch.wearable_mask[0, 0]
    without = replace(batch, code=torch.zeros_like(batch.code))
    alone = -7 * (value.clamp(-3, 3) + mask).sum(-1).mean()
    torch.testing.assert_close(told(model, without).flatten(), torch.stack([alone, alone * 0]))


def test_the_linear_logit_is_the_label_s_alone_and_starts_at_nothing():
    heads = ("label", "next_visit")
    model, batch = tiny_model(heads=heads, spread=2, linear_logit=True), spread_batch()
    states = model(batch, batch.query)
    before = {name: model.head(name, states, batch) for name in model.heads}
    plain = tiny_model(heads=heads, spread=2)
    plain.load_arrays(model.arrays())
    assert torch.equal(before["label"], plain.head("label", plain(batch, batch.query), batch))
    moved = told(model, batch).unsqueeze(-1)
    torch.testing.assert_close(model.head("label", states, batch), before["label"] + moved)
    assert torch.equal(model.head("next_visit", states, batch), before["next_visit"])
    assert not tiny_model(linear_logit=True).linear_logit_heads
