"""What the server refuses to believe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from healthfm_core.federation.update_checks import UpdateSchema, check_update, update_norm

PARAMETERS = {
    "backbone.a": np.zeros((2, 2), np.float32),
    "backbone.b": np.zeros(3, np.float32),
    "encoders.ehr.w": np.zeros(2, np.float32),
}
CONTRACT = UpdateSchema.of(PARAMETERS, max_norm=10.0)


def _check(update: dict[str, Any], weights: dict[str, Any]) -> str | None:
    return check_update(update, weights, CONTRACT, asked=("backbone", "ehr"), n_subjects=50)


def _good() -> dict[str, Any]:
    return {name: array + 1 for name, array in PARAMETERS.items()}


def test_a_good_reply_has_no_reason_against_it() -> None:
    assert _check(_good(), {"backbone": 50.0, "ehr": 7}) is None


def test_a_whole_group_may_be_left_out() -> None:
    update = {name: array for name, array in _good().items() if name.startswith("backbone")}
    assert _check(update, {"backbone": 50.0}) is None


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("backbone.b", np.array([1, np.nan, 1], np.float32), "not finite"),
        ("backbone.b", np.array([1, np.inf, 1], np.float32), "not finite"),
        ("backbone.b", np.array([1, 1e6, 1], np.float32), "norm of group backbone"),
        ("backbone.b", np.array([1, 3e38, 3e38], np.float32), "norm of group backbone"),
        ("backbone.b", np.ones(2, np.float32), "another shape"),
        ("backbone.b", np.ones((3, 1), np.float32), "another shape"),
        ("backbone.b", np.ones(3, np.float64), "another type"),
        ("backbone.b", np.ones(3, np.float16), "another type"),
        ("backbone.c", np.ones(3, np.float32), "1 parameters belong to no group"),
    ],
)
def test_an_array_out_of_the_contract_is_named(name: str, value: np.ndarray, reason: str) -> None:
    found = _check(_good() | {name: value}, {"backbone": 1, "ehr": 1})
    assert found is not None
    assert reason in found


def test_a_missing_parameter_is_named() -> None:
    update = _good()
    del update["backbone.a"]
    assert "backbone.a" in str(_check(update, {"backbone": 1, "ehr": 1}))


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({}, "moves no group"),
        ({"backbone": 51}, "registered size"),
        ({"backbone": 0}, "not a positive number"),
        ({"backbone": -1.0}, "not a positive number"),
        ({"backbone": float("nan")}, "not a positive number"),
        ({"backbone": float("inf")}, "not a positive number"),
        ({"backbone": "many"}, "not a positive number"),
        ({"wearable": 1}, "not asked for"),
    ],
)
def test_weights_out_of_the_contract_are_refused(weights: dict[str, Any], reason: str) -> None:
    assert reason in str(_check(_good(), weights))


def test_the_norm_bound_holds_per_group() -> None:
    update = _good() | {"encoders.ehr.w": np.array([6, 8], np.float32)}
    assert update_norm(update, ["encoders.ehr.w"]) == pytest.approx(10.0)
    assert _check(update, {"backbone": 1, "ehr": 1}) is None
    update["encoders.ehr.w"] = np.array([6, 8.1], np.float32)
    assert _check(update, {"backbone": 1, "ehr": 1}) == "the norm of group ehr exceeds 10"
