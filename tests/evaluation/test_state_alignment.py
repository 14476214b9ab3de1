"""How alike two models' states are: known answers."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.evaluation.analyses.state_alignment import linear_cka, linear_map_r2

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4000, 6)) * [5.0, 1.0, 1.0, 1.0, 1.0, 1.0]
ROTATION = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
MAP = RNG.normal(size=(6, 6))
OTHER = RNG.normal(size=(4000, 6))
HALF = 2000


def r2(x, y) -> float:
    return linear_map_r2((x[:HALF], y[:HALF]), (x[HALF:], y[HALF:]))


def test_a_rotation_a_scale_and_a_shift_are_the_same_states():
    assert linear_cka(X, 3.0 * X @ ROTATION + 7.0) == pytest.approx(1.0)
    assert r2(X, 3.0 * X @ ROTATION + 7.0) == pytest.approx(1.0)


def test_any_linear_map_is_found_by_r2_and_not_by_cka():
    assert r2(X, X @ MAP) == pytest.approx(1.0)
    assert linear_cka(X, X @ MAP) < 0.95


def test_states_that_have_nothing_in_common_have_neither():
    assert linear_cka(X, OTHER) < 0.01
    assert abs(r2(X, OTHER)) < 0.01


def test_half_of_what_varies_is_half():
    """Three of six dimensions of equal variance are the other's, three are not."""
    white = X / X.std(0)
    half = np.hstack([white[:, :3], OTHER[:, 3:]])
    assert r2(white, half) == pytest.approx(0.5, abs=0.02)
    assert linear_cka(white, half) == pytest.approx(0.5, abs=0.02)


def test_a_map_is_judged_on_people_it_was_not_fitted_on():
    x, y = RNG.normal(size=(2, 40, 30))
    assert linear_map_r2((x, y), (x, y)) > 0.5
    assert linear_map_r2((x[:35], y[:35]), (x[35:], y[35:])) < 0.0


def test_states_of_fewer_dimensions_than_they_have_are_no_fault():
    flat = np.hstack([X, X])
    assert r2(flat, X) == pytest.approx(1.0, abs=1e-6)


def test_a_constant_is_not_the_same_as_anything():
    assert np.isnan(linear_cka(X, np.ones_like(X)))
    assert np.isnan(r2(X, np.ones_like(X)))
