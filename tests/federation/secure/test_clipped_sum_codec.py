"""Sums of clipped gradients with shared noise: how much noise, what it costs, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.errors import PrivacyError
from healthfm_core.federation.parameter_groups import is_trainable
from healthfm_core.federation.secure.clipped_sum_codec import ClippedSumCodec
from healthfm_core.federation.secure.group_layout import GroupLayout
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.privacy.distributed import epsilon_of, noise_for

ROUNDS, PEOPLE, NORM, DELTA = 10, 500, 2.0, 1e-5
SCHEMA = UpdateSchema(
    {"backbone.w": (60, 50), "encoders.wearable.w": (2000,), "heads.label.b": ()},
    {
        "backbone": ("backbone.w",),
        "head/label": ("heads.label.b",),
        "wearable": ("encoders.wearable.w",),
    },
    100.0,
)
HELD = {"backbone": 50.0, "wearable": 7.0, "head/label": 50.0}
ZEROS = {name: np.zeros(shape, np.float32) for name, shape in SCHEMA.shapes.items()}


def codec(bits: int = 32, sites: int = 6, honest: int = 4, people: int = PEOPLE) -> ClippedSumCodec:
    multiplier = noise_for(8.0, DELTA, ROUNDS)
    return ClippedSumCodec(GroupLayout(SCHEMA), people, sites, bits, NORM, multiplier, honest)


def summed(plan: ClippedSumCodec, updates) -> dict[str, np.ndarray]:
    arrays = [plan.encode(update, HELD, {"loss_label": 1.0}, 50.0) for update in updates]
    assert all(set(one) == {"update"} for one in arrays)
    return {"update": sum(one["update"] for one in arrays)}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("people", [3, 500, 200_000])
def test_the_sum_carries_one_persons_noise_shared_among_the_honest(bits: int, people: int) -> None:
    plan = codec(bits, people=people)
    found = plan.decode(summed(plan, [ZEROS] * 6)).means
    total = np.concatenate([m[n].ravel() for m in found.values() for n in m]) * people
    promised = plan.multiplier * NORM * math.sqrt(6 / 4)
    assert total.std() == pytest.approx(promised, rel=0.08)
    assert abs(total.mean()) < 5 * promised / math.sqrt(total.size)


def test_all_rounds_together_cost_the_budget_and_not_less() -> None:
    spent = epsilon_of(ROUNDS * codec().rho, DELTA)
    assert spent == pytest.approx(8.0, rel=1e-3)
    assert spent <= 8.0 + 1e-6


def test_the_mean_is_over_everybody_whoever_holds_the_modality() -> None:
    plan = replace(codec(), multiplier=1e-4)
    rng = np.random.default_rng(0)
    updates = [
        {n: rng.normal(size=s).astype(np.float32) for n, s in SCHEMA.shapes.items()}
        for _ in range(3)
    ]
    del updates[0]["encoders.wearable.w"]
    found = plan.decode(summed(plan, updates))
    for group, names in SCHEMA.groups.items():
        for name in names:
            wanted = sum(update.get(name, 0.0) for update in updates) / PEOPLE
            assert found.means[group][name].shape == SCHEMA.shapes[name]
            assert found.means[group][name] == pytest.approx(wanted, abs=1e-5)
    assert found.weights == dict.fromkeys(SCHEMA.groups, PEOPLE)
    assert found.metrics == {}


def test_the_largest_sum_there_can_be_does_not_wrap() -> None:
    plan = codec(people=60)
    most = {**ZEROS, "heads.label.b": np.array(NORM * 10, np.float32)}
    total = plan.decode(summed(plan, [most] * 6)).means["head/label"]["heads.label.b"] * 60
    noise = plan.multiplier * NORM * math.sqrt(6 / 4)
    assert float(total) == pytest.approx(NORM * 60, abs=8 * noise)


def test_a_group_that_must_not_leave_the_site_is_noise_alone() -> None:
    plan = replace(codec(), multiplier=1e-4)
    ones = {name: np.ones(shape, np.float32) for name, shape in SCHEMA.shapes.items()}
    del (held := dict(HELD))["wearable"]
    found = plan.decode(plan.encode(ones, held, {}, 0.0)).means
    assert abs(found["wearable"]["encoders.wearable.w"]).max() < 1e-4
    assert found["backbone"]["backbone.w"] == pytest.approx(1 / PEOPLE, rel=0.01)


@pytest.mark.parametrize(
    "wrong",
    [np.full(2000, np.nan), np.full(2000, 1e9), np.zeros((2, 1000)), np.full(2000, np.inf)],
    ids=["nan", "too long", "shape", "inf"],
)
def test_what_is_no_sum_of_clipped_gradients_is_not_sent(wrong: np.ndarray) -> None:
    update = {**ZEROS, "encoders.wearable.w": wrong.astype(np.float32)}
    with pytest.raises(PrivacyError, match="HF-613"):
        codec().encode(update, HELD, {}, 0.0)


LINEAR_LOGIT, ADAPTER, HEAD, REST = NAMES = (
    "encoders.ehr.linear_logit.weight",
    "backbone.adapter.w",
    "heads.label.w",
    "backbone.w",
)


@pytest.mark.parametrize(
    ("trainable", "left"),
    [
        ("all", set(NAMES)),
        ("linear_logit", {LINEAR_LOGIT, HEAD}),
        ("adapters", {ADAPTER, HEAD}),
        ("heads", {HEAD}),
    ],
)
def test_the_layout_holds_what_is_trained_and_no_more(trainable, left) -> None:
    learning = [name for name in NAMES if is_trainable(name, trainable)]
    found = UpdateSchema.of({name: np.zeros(2) for name in NAMES}, 1.0).only(learning)
    assert set(found.shapes) == {name for group in found.groups.values() for name in group} == left
