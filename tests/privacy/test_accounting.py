"""ε against a second accountant, and the noise that is found for an ε."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from healthfm_core.errors import PrivacyError
from healthfm_core.privacy.accounting import (
    Mechanism,
    epsilon,
    merge_steps,
    noise_multiplier_for,
    within_epsilon,
)
from healthfm_core.privacy.distributed import (
    LEAST_SHARE,
    check_share,
    concentrated,
    distance_to_gaussian,
    epsilon_of,
    noise_for,
)

GRID = json.loads((Path(__file__).parent / "dp_accounting.json").read_text())["rows"]
USUAL = [row for row in GRID if 0.05 <= row["pld"] <= 30]
"""Between an ε that means nothing and one that promises nothing."""


def history(row):
    return [Mechanism(*part) for part in row["history"]]


def name(row) -> str:
    return f"{row['history']}@{row['delta']}".replace(" ", "")


def test_the_grid_is_wide():
    assert len(USUAL) >= 30
    assert min(row["pld"] for row in USUAL) < 0.2
    assert max(row["pld"] for row in USUAL) > 20
    assert any(len(row["history"]) == 3 for row in USUAL)


@pytest.mark.parametrize("row", USUAL, ids=name)
def test_epsilon_is_what_dp_accounting_finds_to_a_percent(row):
    found = epsilon(history(row), row["delta"])
    assert abs(found / row["pld"] - 1) < 0.01


@pytest.mark.parametrize("row", USUAL, ids=name)
def test_the_renyi_bound_is_dp_accountings_where_its_orders_reach(row):
    found = epsilon(history(row), row["delta"], "rdp")
    assert found >= row["pld"] * 0.999
    if 0.15 < row["rdp"] < 6:
        assert abs(found / row["rdp"] - 1) < 0.01


def test_steps_of_one_kind_are_counted_together_in_any_order():
    a, b = Mechanism(1.0, 0.1, 3), Mechanism(2.0, 0.1, 5)
    assert merge_steps([a, b, a, Mechanism(9.0, 0.1, 0)]) == (Mechanism(1.0, 0.1, 6), b)
    assert epsilon([a, b, a], 1e-5) == epsilon([b, Mechanism(1.0, 0.1, 6)], 1e-5)
    assert epsilon([], 1e-5) == 0.0


@pytest.mark.parametrize(
    ("target", "rate", "steps"),
    [
        (8.0, 0.02, 300),
        (1.0, 0.05, 100),
        (0.3, 1.0, 10),
        (8.0, 1e-4, 100),  # where few people are drawn the Rényi bound asks up to twice as much
        (1.0, 1e-4, 1000),
        (0.3, 1e-3, 50),
        (10.0, 0.005, 20),
    ],
)
def test_the_noise_found_is_enough_and_hardly_more(target, rate, steps):
    noise = noise_multiplier_for(target, 1e-5, rate, steps)
    assert epsilon([Mechanism(noise, rate, steps)], 1e-5) <= target
    assert epsilon([Mechanism(noise / 1.01, rate, steps)], 1e-5) > target


def test_noise_that_sites_share_costs_what_is_proven_for_discrete_noise():
    noise = noise_for(8.0, 1e-5, 40)
    found = epsilon([Mechanism(noise, 1.0, 40, discrete=True)], 1e-5)
    assert 7.999 < found <= 8.0
    assert found > 1.01 * epsilon([Mechanism(noise, 1.0, 40)], 1e-5), "PRV is for continuous noise"
    with pytest.raises(ValueError, match="everybody in every sum"):
        epsilon([Mechanism(noise, 0.1, 40, discrete=True)], 1e-5)


def test_what_sites_share_and_what_a_site_adds_alone_add_up():
    shared, own = Mechanism(20.0, 1.0, 40, discrete=True), Mechanism(1.0, 0.01, 500)
    both = epsilon([shared, own], 1e-5)
    assert max(epsilon([shared], 1e-5), epsilon([own], 1e-5)) < both
    assert both <= epsilon([shared], 5e-6) + epsilon([own], 5e-6)
    assert epsilon([shared, shared, own], 1e-5) > both


@pytest.mark.parametrize("sites", [2, 5])
@pytest.mark.parametrize("shift", [4, 20])
def test_a_sum_of_discrete_shares_is_as_private_as_is_counted(sites, shift):
    """The distribution itself, convolved, against what ρ promises of it."""
    delta, sigma = 1e-6, LEAST_SHARE
    x = np.arange(-60 * sigma, 60 * sigma + 1)
    one = np.exp(-(x**2) / (2.0 * sigma**2))
    whole = np.array([1.0])
    for _ in range(sites):
        whole = np.convolve(whole, one / one.sum())
    rho = concentrated(float(shift), float(sigma), sites, 1)
    assert rho == pytest.approx(shift**2 / (2 * sites * sigma**2), rel=1e-12)
    excess = whole[shift:] - math.exp(epsilon_of(rho, delta)) * whole[:-shift]
    assert np.maximum(excess, 0).sum() + whole[:shift].sum() <= delta


def test_a_share_of_noise_that_does_not_add_up_is_refused():
    check_share(LEAST_SHARE**2)
    with pytest.raises(PrivacyError, match="HF-604"):
        check_share(LEAST_SHARE**2 - 1)
    assert distance_to_gaussian(float(LEAST_SHARE), 10**4) * 1e9 < 1e-50


def test_no_noise_is_enough_for_next_to_nothing():
    with pytest.raises(ValueError, match="no noise"):
        noise_multiplier_for(1e-4, 1e-9, 1.0, 10**6)


def test_what_fits_is_decided_by_the_tighter_accountant():
    spent = [Mechanism(1.0, 0.01, 1000)]
    tight, loose = epsilon(spent, 1e-5), epsilon(spent, 1e-5, "rdp")
    assert tight < loose
    assert within_epsilon(spent, 1e-5, (tight + loose) / 2)
    assert not within_epsilon(spent, 1e-5, 0.99 * tight)
