"""Weighted means, exact in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthfm_core.federation.aggregation.weighted_mean import PartialSums, WeightedMean
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_server.transport.clear import metrics_of_all

SHAPES = {"backbone.w": (3,), "encoders.wearable.w": (2, 2), "encoders.wearable.b": ()}
NAMES = {"backbone": ("backbone.w",), "wearable": ("encoders.wearable.b", "encoders.wearable.w")}
SCHEMA = UpdateSchema(SHAPES, NAMES, max_norm=100.0)


def _three(*values: float) -> dict[str, np.ndarray]:
    return {"backbone.w": np.array(values, np.float32)}


def test_three_numbers_of_two_sites_average_by_weight() -> None:
    found = WeightedMean(SCHEMA, max_weight=40.0)
    found.add("a", _three(1, 2, 3), {"backbone": 30.0})
    found.add("b", _three(5, 6, -1), {"backbone": 10.0})
    assert found.has_enough_sites("backbone")
    np.testing.assert_array_equal(found.result("backbone")["backbone.w"], [2, 3, 2])


def test_a_group_is_averaged_over_the_sites_that_hold_it_only() -> None:
    found = WeightedMean(SCHEMA, max_weight=40.0)
    worn = {
        "encoders.wearable.w": np.full((2, 2), 4, np.float32),
        "encoders.wearable.b": np.array(-2, np.float32),
    }
    found.add("a", _three(1, 1, 1) | worn, {"backbone": 30.0, "wearable": 12.0})
    found.add("b", _three(3, 3, 3), {"backbone": 10.0})
    means = found.result("wearable")
    np.testing.assert_array_equal(means["encoders.wearable.w"], np.full((2, 2), 4.0))
    np.testing.assert_array_equal(means["encoders.wearable.b"], -2.0)
    np.testing.assert_array_equal(found.result("backbone")["backbone.w"], [1.5, 1.5, 1.5])


def test_a_group_nobody_moved_has_no_mean() -> None:
    found = WeightedMean(SCHEMA, max_weight=1.0)
    assert not found.has_enough_sites("wearable")
    with pytest.raises(KeyError):
        found.result("wearable")


def test_a_site_is_added_once() -> None:
    found = WeightedMean(SCHEMA, max_weight=2.0)
    found.add("a", _three(1, 1, 1), {"backbone": 1.0})
    with pytest.raises(ValueError, match="once a round"):
        found.add("a", _three(9, 9, 9), {"backbone": 1.0})
    np.testing.assert_array_equal(found.result("backbone")["backbone.w"], [1, 1, 1])


SITES = st.lists(
    st.tuples(
        st.lists(
            st.floats(-50, 50, width=32, allow_nan=False, allow_infinity=False),
            min_size=3,
            max_size=3,
        ),
        st.integers(1, 10_000),
    ),
    min_size=1,
    max_size=8,
)


@given(SITES, st.randoms(use_true_random=False))
def test_no_order_of_arrival_changes_a_bit(sites: list, random) -> None:
    def fold(order: list[int]) -> bytes:
        made = WeightedMean(SCHEMA, max_weight=float(sum(w for _, w in sites)))
        for i in order:
            made.add(str(i), _three(*sites[i][0]), {"backbone": float(sites[i][1])})
        return made.result("backbone")["backbone.w"].tobytes()

    order = list(range(len(sites)))
    first = fold(order)
    random.shuffle(order)
    assert fold(order) == first


@given(SITES, st.integers(1, 4))
def test_sums_of_sums_are_the_sum_to_the_bit(sites: list, regions: int) -> None:
    most = float(sum(w for _, w in sites))
    flat, national = WeightedMean(SCHEMA, most), WeightedMean(SCHEMA, most)
    regional = [WeightedMean(SCHEMA, most) for _ in range(min(regions, len(sites)))]
    for i, (values, weight) in enumerate(sites):
        for found in (flat, regional[i % len(regional)]):
            found.add(str(i), _three(*values), {"backbone": float(weight)})
    for number, found in enumerate(reversed(regional)):
        national.add_sums(f"region {number}", found.partial())
    means = [found.result("backbone")["backbone.w"].tobytes() for found in (flat, national)]
    assert means[0] == means[1]


UNIT = 2.0 ** (13 - 52)
"""Of a round with at most 40 of weight and a norm of at most 100: 2^13 is over 2·40·100."""


@pytest.mark.parametrize(
    ("sums", "weights", "seen"),
    [
        ([UNIT, 2, 3], {"backbone": 1.0}, None),
        ([0.3, 2, 3], {"backbone": 1.0}, "not in this round's unit"),
        ([UNIT / 2, 2, 3], {"backbone": 1.0}, "not in this round's unit"),
        ([np.nan, 2, 3], {"backbone": 1.0}, "longer than its weight allows"),
        ([101, 0, 0], {"backbone": 1.0}, "longer than its weight allows"),
        ([101, 0, 0], {"backbone": 2.0}, None),
        ([1, 2, 3], {"backbone": 0.0}, "weight of group backbone"),
        ([1, 2, 3], {"backbone": np.nan}, "weight of group backbone"),
        ([1, 2, 3], {"backbone": 41.0}, "weight of group backbone"),
        ([1, 2], {"backbone": 1.0}, "another shape"),
        ([1, 2, 3], {"wearable": 1.0}, "of other groups"),
    ],
)
def test_what_is_no_sum_of_the_round_is_refused_whole(
    sums: list[float], weights: dict[str, float], seen: str | None
) -> None:
    found = WeightedMean(SCHEMA, max_weight=40.0)
    found.add("a", _three(1, 1, 1), {"backbone": 1.0})
    partial = PartialSums({"backbone": {"backbone.w": np.array(sums, np.float64)}}, weights)
    if seen is None:
        found.add_sums("north", partial)
        with pytest.raises(ValueError, match="once a round"):
            found.add_sums("north", partial)
        return
    with pytest.raises(ValueError, match=seen):
        found.add_sums("north", partial)
    np.testing.assert_array_equal(found.result("backbone")["backbone.w"], [1, 1, 1])


@given(SITES)
def test_the_result_is_the_weighted_mean(sites: list) -> None:
    found = WeightedMean(SCHEMA, max_weight=float(sum(w for _, w in sites)))
    for i, (values, weight) in enumerate(sites):
        found.add(str(i), _three(*values), {"backbone": float(weight)})
    values = np.array([v for v, _ in sites], np.float32).astype(np.float64)
    expected = np.average(values, axis=0, weights=[w for _, w in sites])
    bound = len(sites) * SCHEMA.max_norm * 2.0**-50 + 1e-12
    np.testing.assert_allclose(found.result("backbone")["backbone.w"], expected, rtol=0, atol=bound)


def test_blocks_join_without_a_seam() -> None:
    size = 40_001
    schema = UpdateSchema({"backbone.w": (size,)}, {"backbone": ("backbone.w",)}, max_norm=1e4)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size).astype(np.float32) for _ in range(3)]
    found = WeightedMean(schema, max_weight=6.0)
    for i, array in enumerate(arrays):
        found.add(str(i), {"backbone.w": array}, {"backbone": i + 1.0})
    expected = np.average(np.array(arrays, np.float64), axis=0, weights=[1, 2, 3])
    np.testing.assert_allclose(found.result("backbone")["backbone.w"], expected, rtol=0, atol=1e-11)


def test_people_are_added_up_over_the_sites_and_not_averaged() -> None:
    metrics = {"a": {"tuning_subjects": 30.0}, "b": {"tuning_subjects": 12.0}, "c": {}}
    assert metrics_of_all(metrics, {"a": 5.0, "b": 0.0, "c": 9.0}) == {"tuning_subjects": 42.0}


def test_metrics_are_means_over_the_sites_that_report_them() -> None:
    metrics = {"b": {"loss": 4.0}, "a": {"loss": 1.0, "auroc": 0.5}, "c": {"loss": np.nan}}
    assert metrics_of_all(metrics, {"a": 1.0, "b": 2.0, "c": 3.0}) == {"auroc": 0.5, "loss": 3.0}
