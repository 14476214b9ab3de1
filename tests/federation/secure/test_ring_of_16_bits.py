"""Large groups in a ring of 16 bits: half the bytes, close means, and no sum that wraps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.arrays import Arrays
from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.federation.secure.codecs import sum_codec, turned_groups
from healthfm_core.federation.secure.update_codec import COARSE, COUNTS, UPDATE, SumCodec
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.privacy.secure_aggregation.masks import Ring

SHAPES = {"backbone.w": (90, 100), "encoders.ehr.w": (5000,), "heads.next_visit.w": (3,)}
SCHEMA = UpdateSchema.of({n: np.zeros(s, np.float32) for n, s in SHAPES.items()}, max_norm=100.0)
WEIGHTS = [10, 200, 35]
CLIP = 2.0


def codec(rounding: int | None, sites: int = 3, capacity: int = 245) -> SumCodec:
    config = SecureAggregationConfig(enabled=True, ring_bits=16, clip=CLIP)
    plain = sum_codec(SCHEMA, (), capacity, sites, config)
    return replace(plain, turned=turned_groups(plain, config, 7, rounding))


def update(seed: int, norm: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    return {n: np.float32(norm / np.linalg.norm(a) * a) for n, a in arrays.items()}


def sent(site: int, what: Arrays, weight: int, sites: int = 3) -> dict[str, Ring]:
    weights = dict.fromkeys(SCHEMA.groups, float(weight))
    return codec(site, sites).encode(what, weights, {}, float(weight))


def added(parts: list[dict[str, Ring]]) -> dict[str, Ring]:
    return {name: sum(part[name] for part in parts) for name in parts[0]}


def test_large_groups_take_two_bytes_a_number_and_small_ones_four() -> None:
    sizes = codec(None).sizes()
    assert sizes[COARSE] == (14_000, "uint16")
    assert sizes[UPDATE] == (3, "uint32")
    arrays = sent(1, update(1), 10)
    assert {n: (a.size, a.dtype.name) for n, a in arrays.items()} == sizes


def test_the_means_are_close_to_those_of_the_updates() -> None:
    updates = [update(seed) for seed in range(3)]
    sums = added([sent(i, u, w) for i, (u, w) in enumerate(zip(updates, WEIGHTS, strict=True))])
    opened = codec(None).decode(sums)
    for group, names in SCHEMA.groups.items():
        for name in names:
            exact = sum(w * u[name] for u, w in zip(updates, WEIGHTS, strict=True)) / 245
            off = np.linalg.norm(opened.means[group][name] - exact)
            assert off <= 0.0002 * CLIP * np.sqrt(3), name


@pytest.mark.parametrize("sign", [1, -1])
def test_sites_that_aim_at_one_turned_number_are_cut_off_and_nothing_wraps(sign: int) -> None:
    """Each sends what turns into one number as long as the clip; unbounded, the sum would wrap."""
    aimed = update(0)
    for group, name in (("backbone", "backbone.w"), ("ehr", "encoders.ehr.w")):
        target = np.zeros(aimed[name].size)
        target[5] = sign * CLIP * 0.999
        codec(None).turned[group].rotation.turn_back(target)
        aimed[name] = np.float32(target.reshape(aimed[name].shape))
    opened = codec(None).decode(added([sent(i, aimed, w) for i, w in enumerate(WEIGHTS)]))
    turned = codec(None).turned["backbone"]
    mean = opened.means["backbone"]["backbone.w"].reshape(-1).copy()
    turned.rotation.turn(mean)
    bound = turned.fixed_point.clip
    assert mean[5] == pytest.approx(sign * bound, rel=1e-3)
    assert np.abs(np.delete(mean, 5)).max() < bound / 100


def test_a_longer_update_is_shortened_to_the_clip_and_counted() -> None:
    long = update(3, norm=50.0)
    opened = codec(None).decode(added([sent(0, long, 245)]))
    assert opened.clipped == dict.fromkeys(SCHEMA.groups, 1)
    mean = opened.means["backbone"]["backbone.w"]
    assert np.linalg.norm(mean) == pytest.approx(CLIP, rel=1e-2)
    shortened = long["backbone.w"] * CLIP / 50
    np.testing.assert_allclose(mean, shortened, atol=0.002 * CLIP)


def test_a_thousand_small_parts_are_right_on_average() -> None:
    one = update(4, norm=0.05)
    parts = [
        codec(i, 1000, 1000).encode(one, dict.fromkeys(SCHEMA.groups, 1.0), {}, 1.0)
        for i in range(1000)
    ]
    mean = codec(None, 1000, 1000).decode(added(parts)).means["backbone"]["backbone.w"]
    # a part is a thousandth: rounded to the nearest, all of it would be zeros
    assert np.linalg.norm(mean - one["backbone.w"]) <= 0.0002 * CLIP * np.sqrt(1000)
    assert np.linalg.norm(mean) > 0.04


def test_more_sites_than_rounding_leaves_room_for_stay_in_32_bits() -> None:
    assert codec(None, 4096).turned
    assert not codec(None, 4097).turned


def test_counts_are_beside_the_update_as_ever() -> None:
    assert codec(None).sizes()[COUNTS] == (6, "uint64")
