"""ε against a second accountant, and the noise that is found for an ε."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from healthfm_core.privacy.accounting import (
    Mechanism,
    epsilon,
    merge_steps,
    noise_multiplier_for,
    within_epsilon,
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
    ("target", "rate", "steps"), [(8.0, 0.02, 300), (1.0, 0.05, 100), (0.3, 1.0, 10)]
)
def test_the_noise_found_is_enough_and_hardly_more(target, rate, steps):
    noise = noise_multiplier_for(target, 1e-5, rate, steps)
    assert epsilon([Mechanism(noise, rate, steps)], 1e-5) <= target
    assert epsilon([Mechanism(noise / 1.015, rate, steps)], 1e-5) > target


def test_no_noise_is_enough_for_next_to_nothing():
    with pytest.raises(ValueError, match="no noise"):
        noise_multiplier_for(1e-4, 1e-9, 1.0, 10**6)


def test_what_fits_is_decided_by_the_tighter_accountant():
    spent = [Mechanism(1.0, 0.01, 1000)]
    tight, loose = epsilon(spent, 1e-5), epsilon(spent, 1e-5, "rdp")
    assert tight < loose
    assert within_epsilon(spent, 1e-5, (tight + loose) / 2)
    assert not within_epsilon(spent, 1e-5, 0.99 * tight)
