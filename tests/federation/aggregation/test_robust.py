"""Robust centres of a few numbers, worked out by hand, and what hostile sites can do to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healthfm_core.config import RunConfig
from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.config.compose import compose
from healthfm_core.errors import ConfigError
from healthfm_core.federation.aggregation.aggregator import Aggregator
from healthfm_core.federation.aggregation.krum import nearest
from healthfm_core.federation.aggregation.method_registry import methods
from healthfm_core.federation.aggregation.trimmed_mean import without_extremes
from healthfm_core.federation.update_checks import UpdateSchema

SHAPES = {
    "backbone.w": np.zeros((2, 2), np.float32),
    "encoders.wearable.w": np.zeros(3, np.float32),
}
SCHEMA = UpdateSchema.of(SHAPES, 100.0)


def round_of(name: str, rows: list[list[float]], byzantine: float = 0.2) -> Aggregator:
    config = AggregationConfig(method=name, byzantine_fraction=byzantine)
    found = methods()[name].aggregator(SCHEMA, config, 100.0)
    for i, row in enumerate(rows):
        update = {"backbone.w": np.array(row, np.float32).reshape(2, 2)}
        found.add(f"s{i}", update, {"backbone": 10.0 + i})
    return found


HONEST = [
    [0.05, 1.05, 2.05, 3.05],
    [0.1, 1.1, 2.1, 3.1],
    [0.2, 1.2, 2.2, 3.2],
    [0.3, 1.3, 2.3, 3.3],
]
LIAR = [-90.0, 90.0, -9.0, 9.0]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("coordinate_median", [0.1, 1.2, 2.1, 3.2]),
        ("trimmed_mean", [0.35 / 3, 1.2, 6.35 / 3, 3.2]),
        ("krum", [0.1, 1.1, 2.1, 3.1]),
        ("multi_krum", [0.1625, 1.1625, 2.1625, 3.1625]),
    ],
)
def test_one_liar_among_five_is_not_heard(name: str, wanted: list[float]) -> None:
    found = round_of(name, [*HONEST, LIAR])
    assert found.has_enough_sites("backbone")
    np.testing.assert_allclose(
        found.result("backbone")["backbone.w"].reshape(-1), wanted, rtol=1e-6
    )


def test_every_site_counts_once_whatever_weight_it_claims() -> None:
    found = round_of("coordinate_median", [])
    for i, value in enumerate((1.0, 2.0, 9.0)):
        weight = {"wearable": 1e9 if value == 9 else 1.0}
        found.add(f"s{i}", {"encoders.wearable.w": np.full(3, value, np.float32)}, weight)
    assert found.result("wearable")["encoders.wearable.w"].tolist() == [2.0] * 3


@pytest.mark.parametrize(
    ("name", "byzantine", "least"),
    [("coordinate_median", 0.2, 3), ("trimmed_mean", 0.4, 3), ("krum", 0.2, 3), ("krum", 0.4, 7)],
)
def test_a_group_that_too_few_sites_moved_tells_nothing(name, byzantine, least) -> None:
    enough = [
        round_of(name, (HONEST * 3)[:n], byzantine).has_enough_sites("backbone")
        for n in range(1, 12)
    ]
    assert enough.index(True) + 1 == least


def test_a_site_is_kept_once_a_round() -> None:
    found = round_of("coordinate_median", HONEST)
    with pytest.raises(ValueError, match="once a round"):
        found.add("s0", {"backbone.w": np.zeros((2, 2), np.float32)}, {"backbone": 1.0})


@given(
    n=st.integers(3, 9), f=st.integers(1, 4), size=st.integers(1, 40_000), seed=st.integers(0, 99)
)
@settings(max_examples=30)
def test_the_centre_lies_between_honest_values_however_far_liars_go(n, f, size, seed) -> None:
    f = min(f, (n - 1) // 2)
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal(size).astype(np.float32) for _ in range(n)]
    honest = np.stack(rows[f:])
    for i in range(f):
        rows[i] = np.full(size, rng.choice([-1e30, 1e30]), np.float32)
    found = without_extremes(rows, f)
    assert (found >= honest.min(0) - 1e-6).all()
    assert (found <= honest.max(0) + 1e-6).all()
    median = without_extremes(rows, (n - 1) // 2)
    np.testing.assert_allclose(median, np.median(np.stack(rows), axis=0), rtol=1e-6)


def test_krum_orders_by_distances_over_all_blocks() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal(40_000).astype(np.float32) for _ in range(6)]
    wide = np.stack(rows).astype(np.float64)
    squares = ((wide[:, None] - wide[None]) ** 2).sum(-1)
    sums = np.sort(squares, axis=1)[:, 1:4].sum(1)
    assert nearest(rows, 1) == np.argsort(sums).tolist()


def test_robust_and_secure_are_refused_together_with_the_reason() -> None:
    for arguments in (
        ["federation=secure", "federation.aggregation.method=coordinate_median"],
        ["federation=krum", "federation.aggregation.secure.enabled=true"],
    ):
        with pytest.raises(ConfigError, match=r"nobody sees one.*curious.*anything"):
            compose(arguments)
    assert isinstance(compose(["federation=median"]), RunConfig)
