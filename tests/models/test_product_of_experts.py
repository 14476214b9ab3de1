"""One mean of what all modalities say: by precision, without those that are missing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from healthfm_core.data.batch.batch import Batch
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.models import HealthFM
from healthfm_core.models.decay import HALF_LIFE_MIN_DAYS, clamp_half_lives
from healthfm_core.models.decaying_memory import PRIOR_TOKENS
from healthfm_core.models.product_of_experts import ExpertMemory, ExpertSums, ProductOfExperts
from tests.models.tiny import CONFIG, tiny_batch, tiny_model

RECENCY, FADE = 10.0, 100.0
ONE_HEAD = CONFIG.model_copy(
    update={
        "memory": True,
        "memory_fusion": "product",
        "memory_width": 1,
        "memory_recency_days": (RECENCY,),
        "memory_fade_days": (FADE,),
        "width": 2,
    }
)
NUMBER = torch.tensor([[9.0, 5.0, 1.0, 3.0, 4.0, 9.0], [7.0, 2.0, 4.0, 9.0, 9.0, 9.0]])


def product_model(encoders: tuple[str, ...] = ("ehr", "wearable", "genomics")) -> HealthFM:
    return tiny_model(encoders, memory=True, memory_fusion="product").eval()


def expert(holds: Tensor, batch: Batch, precision: float) -> ExpertSums:
    memory = ExpertMemory(1, ONE_HEAD, precision)
    with torch.no_grad():
        memory.value.weight.fill_(1.0)
        memory.value.bias.zero_()
        fade = torch.full((batch.size, 1), math.log(2) / FADE)
        return memory(NUMBER.unsqueeze(-1), holds, batch, fade)


def fused(parts: list[ExpertSums], batch: Batch) -> Tensor:
    """Return the mean and the mean of 1, which the map to a state leaves as they are."""
    product = ProductOfExperts(ONE_HEAD)
    with torch.no_grad():
        product.out.weight.copy_(torch.eye(2))
        return product(parts, batch)[:, 0]


def test_a_state_reads_one_mean_in_which_each_modality_counts_by_its_precision():
    batch = tiny_batch()
    events, hours = (batch.code > 0) & (batch.t_days < 0), batch.wearable_slot >= 0
    says = fused([expert(events, batch, 0.5), expert(hours, batch, 4.0)], batch)
    # Row 0 asks on day 1 of events of 1 and 3, 401 and 31 days before, and of an hour of 4, a day.
    ages, values = [401.0, 31.0, 1.0], [1.0, 3.0, 4.0]
    weights = [0.5 * 2 ** (-370.0 / RECENCY), 0.5, 4.0]
    faded = [w * 2 ** (-age / FADE) for w, age in zip(weights, ages, strict=True)]
    whole = sum(weights) + PRIOR_TOKENS
    mean = sum(f * v for f, v in zip(faded, values, strict=True)) / whole
    torch.testing.assert_close(says[0], torch.tensor([mean, sum(faded) / whole]))


def test_a_modality_that_is_missing_is_as_if_it_were_not_there():
    batch = tiny_batch()
    events, nothing = (batch.code > 0) & (batch.t_days < 0), torch.zeros_like(batch.code) > 0
    alone = [expert(events, batch, 0.5)]
    torch.testing.assert_close(
        fused([*alone, expert(nothing, batch, 4.0)], batch), fused(alone, batch)
    )


def test_without_any_token_a_state_is_given_nothing():
    model, batch = product_model(("ehr", "wearable")), tiny_batch()
    bare = replace(
        batch,
        code=torch.zeros_like(batch.code),
        wearable_slot=torch.full_like(batch.wearable_slot, -1),
    )
    with torch.no_grad():
        recalled = model.recall(bare, bare.query)
        assert torch.equal(recalled, torch.zeros_like(recalled))
        assert (model.recall(batch, batch.query) != 0).any()


def test_what_a_precise_modality_says_outweighs_an_imprecise_one():
    batch = tiny_batch()
    hours = batch.wearable_slot >= 0
    events = (batch.code > 0) & (batch.t_days < 0)
    means = [
        float(fused([expert(events, batch, 1.0), expert(hours, batch, p)], batch)[0, 0])
        for p in (0.01, 1.0, 100.0)
    ]
    assert means == sorted(means)
    assert means[-1] == pytest.approx(4.0 * 2 ** (-1.0 / FADE), rel=0.02)


def test_every_modality_reads_its_own_inputs_and_all_reach_the_state():
    model, batch = product_model(), tiny_batch()
    for changed in ({"quantile": batch.quantile + 1}, {"wearable": batch.wearable + 1}):
        with torch.no_grad():
            before, after = (model.recall(b, b.query) for b in (batch, replace(batch, **changed)))
        assert not torch.allclose(before[0], after[0])


def test_a_code_without_a_time_adds_to_every_query_and_is_no_expert():
    model, batch = product_model(("ehr",)), tiny_batch()
    encoder = model.encoders["ehr"]
    other = replace(batch, code=batch.code.clone())
    other.code[:, :2] = torch.where(batch.kind[:, :2] == 1, 4, batch.code[:, :2])
    fade = model.backbone.memory.fade(batch)
    with torch.no_grad():
        for was, now in zip(encoder.expert(batch, fade), encoder.expert(other, fade), strict=True):
            assert torch.equal(was, now)
        assert not torch.allclose(encoder.recall(batch)[0], encoder.recall(other)[0])
        encoder.remembered_static.weight.zero_()
        assert torch.equal(encoder.recall(batch), encoder.recall(other))


def test_what_is_agreed_is_everybody_s_and_what_is_said_each_modality_s():
    names = [n for n, _ in product_model().named_parameters() if "memory" in n or "remember" in n]
    groups = {name: group_of(name) for name in names}
    assert {g for n, g in groups.items() if n.startswith("backbone.memory.")} == {"backbone"}
    assert groups["encoders.ehr.expert_memory.log_precision.weight"] == "ehr"
    assert groups["encoders.wearable.expert_memory.log_precision.weight"] == "wearable"
    without = [n for n, _ in product_model(("ehr",)).named_parameters()]
    assert "backbone.memory.out.weight" in without
    assert not [name for name in without if "wearable" in name]


def test_half_lives_of_the_product_are_held_in_their_range():
    model = product_model()
    rates = [model.backbone.memory.log_rate.weight]
    rates.append(model.encoders["wearable"].expert_memory.log_rate.weight)
    with torch.no_grad():
        for rate in rates:
            rate.fill_(50.0)
    clamp_half_lives(model)
    for rate in rates:
        shortest = math.log(2) / rate.detach().exp()
        torch.testing.assert_close(shortest, torch.full_like(shortest, HALF_LIFE_MIN_DAYS))


def test_without_decay_no_time_changes_what_is_agreed():
    model = tiny_model(memory=True, memory_fusion="product", memory_decay=False).eval()
    batch = tiny_batch()
    earlier = replace(batch, t_days=batch.t_days * 7)
    with torch.no_grad():
        assert torch.equal(model.recall(batch, batch.query), model.recall(earlier, batch.query))
    assert not [n for n, _ in model.named_parameters() if "memory.log_rate" in n]
