"""Sums with noise shares: how much noise, where from, and what it costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.federation.secure.group_layout import GroupLayout
from healthfm_core.federation.secure.noisy_update_codec import NoisySumCodec
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.privacy.distributed import epsilon_of, noise_for

SCHEMA = UpdateSchema(
    {"backbone.w": (3000,), "encoders.wearable.w": (2000,)},
    {"backbone": ("backbone.w",), "wearable": ("encoders.wearable.w",)},
    100.0,
)


def codec(sites: int = 6, honest: int = 4, bits: int = 32, unit: str = "site") -> NoisySumCodec:
    config = SecureAggregationConfig(
        enabled=True, clip=2.0, clips={"wearable": 0.5}, epsilon=8.0, ring_bits=bits, unit=unit
    )
    multiplier = noise_for(8.0, config.delta, 10)
    return NoisySumCodec(GroupLayout(SCHEMA), sites, config, multiplier, honest)


def summed(plan: NoisySumCodec, update, holders: int):
    total = None
    for i in range(plan.sites):
        held = {"backbone": 50.0} | ({"wearable": 7.0} if i < holders else {})
        arrays = plan.encode(update, held, {"loss_next_visit": 1.0}, 50.0)
        total = arrays if total is None else {k: total[k] + arrays[k] for k in arrays}
    return total


def opened(plan: NoisySumCodec, update, holders: int):
    return plan.decode(summed(plan, update, holders))


ZEROS = {name: np.zeros(shape, np.float32) for name, shape in SCHEMA.shapes.items()}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("unit", ["site", "subject"])
def test_the_sum_carries_the_noise_that_was_promised(bits: int, unit: str) -> None:
    plan = codec(bits=bits, unit=unit)
    sums = summed(plan, ZEROS, holders=6)
    parts = dict(plan.layout.parts(sums["update"]))
    times = 2.0 if unit == "subject" else 1.0
    for group, clip in (("backbone", 2.0), ("wearable", 0.5)):
        total = plan.fixed_point(group).decode(parts[group])
        promised = plan.multiplier * math.sqrt(3) * times * clip * math.sqrt(6 / 4)
        assert total.std() == pytest.approx(promised, rel=0.1)
        assert abs(total.mean()) < 5 * promised / math.sqrt(len(total))
    assert plan.decode(sums).metrics == {}


def test_all_rounds_together_cost_the_budget() -> None:
    for unit in ("site", "subject"):
        plan = codec(unit=unit)
        spent = epsilon_of(10 * plan.rho, plan.config.delta)
        assert spent == pytest.approx(8.0, rel=1e-3)
        assert spent <= 8.0 + 1e-6


def test_a_site_counts_once_whatever_its_size_and_a_long_update_is_clipped() -> None:
    plan = codec(sites=100, honest=75)
    update = {name: np.full(shape, 0.3, np.float32) for name, shape in SCHEMA.shapes.items()}
    found = opened(plan, update, holders=100)
    noise = plan.multiplier * math.sqrt(3) * math.sqrt(100 / 75)
    assert 12 * noise * math.sqrt(2) < 100, "else a noisy weight may fall under one site"
    assert found.weights["backbone"] == pytest.approx(100, abs=6 * noise * math.sqrt(2))
    total = found.means["backbone"]["backbone.w"] * found.weights["backbone"]
    wanted = 100 * 2.0 / math.sqrt(3000)
    assert total.mean() == pytest.approx(wanted, abs=6 * 2 * noise / math.sqrt(3000))


def test_noise_is_in_absent_groups_too() -> None:
    plan = codec()
    arrays = plan.encode({"backbone.w": ZEROS["backbone.w"]}, {"backbone": 1.0}, {}, 1.0)
    wearable = dict(plan.layout.parts(arrays["update"]))["wearable"].view(np.int32)
    assert wearable.std() == pytest.approx(math.sqrt(plan._variance("wearable")), rel=0.1)
    assert plan._variance("wearable") < 2.0**50


def test_the_ring_has_room_for_clip_and_noise_of_all_sites() -> None:
    for sites, honest in ((3, 1), (16, 9), (100, 57)):
        for bits in (32, 64):
            plan = codec(sites, honest, bits)
            for group in SCHEMA.groups:
                ring = plan.fixed_point(group)
                sigma = math.sqrt(sites * plan._variance(group))
                assert sites * ring.clip * ring.scale + 14 * sigma < 2.0 ** (bits - 1)
