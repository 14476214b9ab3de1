"""The optimiser of a site's steps."""

from __future__ import annotations

import pytest
import torch

from healthfm_core.config import TrainConfig
from healthfm_core.training.optimizer import optimizer_for, set_learning_rate
from tests.models.tiny import tiny_model


def test_half_lives_learn_at_a_multiple_of_the_rate_and_every_parameter_once():
    model = tiny_model()
    optimizer = optimizer_for(model, TrainConfig(lr_half_lives=10.0))
    set_learning_rate(optimizer.param_groups, 1e-3)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: rate[id(p)] for name, p in model.named_parameters()}
    assert len(rate) == sum(len(group["params"]) for group in optimizer.param_groups)
    fast = {name for name, value in names.items() if value == pytest.approx(1e-2)}
    assert fast == {f"backbone.blocks.{i}.decay.log_rate.weight" for i in (0, 1)}
    assert sorted({round(value, 9) for value in names.values()}) == [1e-3, 1e-2]


@pytest.mark.parametrize("fusion", ["sum", "product"])
def test_memories_and_heads_learn_at_their_multiple_and_nothing_else(fusion):
    model = tiny_model(memory=True, memory_fusion=fusion, layer_scale=0.1)
    optimizer = optimizer_for(model, TrainConfig(lr_memory=30.0, lr_half_lives=10.0))
    set_learning_rate(optimizer.param_groups, 1e-3)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rate) == sum(len(group["params"]) for group in optimizer.param_groups)
    fast = {n for n, p in model.named_parameters() if rate[id(p)] == pytest.approx(3e-2)}
    parts = ("heads.", "encoders.ehr.memory.", "encoders.ehr.remembered.")
    parts += ("encoders.wearable.memory.", "encoders.genomics.remembered.")
    parts += ("encoders.ehr.expert_memory.", "encoders.wearable.expert_memory.")
    parts += ("encoders.ehr.remembered_static.", "backbone.memory.", "backbone.query_time.")
    assert fast == {n for n, _ in model.named_parameters() if n.startswith(parts)}


def test_the_weights_of_the_linear_logit_learn_at_a_multiple_too():
    model = tiny_model(heads=("label",), linear_logit=True)
    optimizer = optimizer_for(model, TrainConfig(lr_linear=3.0, weight_decay=0.05))
    set_learning_rate(optimizer.param_groups, 1e-3)
    groups = [(group, {id(p) for p in group["params"]}) for group in optimizer.param_groups]
    found = {
        name: (group["lr"], group["weight_decay"])
        for name, p in model.named_parameters()
        for group, members in groups
        if id(p) in members
    }
    assert found["encoders.ehr.linear_logit.weight"] == pytest.approx((3e-3, 0.0))
    assert found["encoders.wearable.linear_logit.weight"] == pytest.approx((3e-3, 0.05))
    assert [name for name, (rate, _) in found.items() if rate == pytest.approx(3e-3)] == [
        "encoders.ehr.linear_logit.weight",
        "encoders.wearable.linear_logit.weight",
    ]


def test_with_a_large_epsilon_a_slope_that_few_people_speak_for_moves_little():
    """By Adam alone a gradient of any size makes a step of the same size."""
    moved = {}
    for eps in (1e-8, 0.1):
        model = tiny_model(heads=("label",), linear_logit=True)
        slopes = model.encoders["ehr"].linear_logit.weight
        optimizer = optimizer_for(model, TrainConfig(lr=1e-2, eps_linear=eps))
        slopes.grad = torch.zeros_like(slopes)
        slopes.grad[0], slopes.grad[1] = 1e-1, 1e-3
        optimizer.step()
        often, rarely = slopes[:2, 0].detach().abs().tolist()
        moved[eps] = rarely / often
    assert moved[1e-8] == pytest.approx(1.0, rel=1e-3)
    assert moved[0.1] < 0.03
