"""What the server does with a mean, in numbers that can be followed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.config import ServerOptimizerConfig
from healthfm_core.federation.aggregation.server_optimizer import OptimizerState, apply_means

START = {"backbone.w": np.array([1, 2, 3], np.float32), "encoders.ehr.w": np.float32([7])}
MEAN = {"backbone.w": np.array([1.0, 0.0, -2.0])}


def _optimizer(name: str, **settings: float) -> ServerOptimizerConfig:
    return ServerOptimizerConfig.model_validate({"name": name, **settings})


def test_none_adds_the_mean() -> None:
    new, state = apply_means(START, OptimizerState(), dict(MEAN), _optimizer("none"))
    np.testing.assert_array_equal(new["backbone.w"], np.float32([2, 2, 1]))
    assert state.to_arrays() == {}


def test_momentum_goes_on_in_the_old_direction() -> None:
    config = _optimizer("momentum", beta1=0.5, lr=1.0)
    new, state = apply_means(START, OptimizerState(), dict(MEAN), config)
    new, state = apply_means(new, state, dict(MEAN), config)
    np.testing.assert_array_equal(state.first["backbone.w"], np.float32([1.5, 0, -3]))
    np.testing.assert_array_equal(new["backbone.w"], np.float32([3.5, 2, -2]))


def test_adam_is_reddis() -> None:
    config = _optimizer("adam", beta1=0.5, beta2=0.75, eps=0.5, lr=2.0)
    new, state = apply_means(START, OptimizerState(), dict(MEAN), config)
    m, v = 0.5 * 1.0, 0.75 * 0.25 + 0.25 * 1.0
    assert state.first["backbone.w"][0] == np.float32(m)
    assert state.second["backbone.w"][0] == np.float32(v)
    assert new["backbone.w"][0] == np.float32(1 + 2 * m / (np.sqrt(v) + 0.5))


@pytest.mark.parametrize("name", ["none", "momentum", "adam"])
def test_a_group_without_a_mean_keeps_weights_and_moments(name: str) -> None:
    config = _optimizer(name)
    both = MEAN | {"encoders.ehr.w": np.array([0.5])}
    before, moments = apply_means(START, OptimizerState(), dict(both), config)
    after, kept = apply_means(before, moments, dict(MEAN), config)
    assert after["encoders.ehr.w"].tobytes() == before["encoders.ehr.w"].tobytes()
    for kind in ("first/encoders.ehr.w", "second/encoders.ehr.w"):
        assert (kind in moments.to_arrays()) == (kind in kept.to_arrays())
        if kind in kept.to_arrays():
            assert kept.to_arrays()[kind].tobytes() == moments.to_arrays()[kind].tobytes()


@pytest.mark.parametrize("name", ["none", "momentum", "adam"])
def test_the_state_survives_a_file(name: str) -> None:
    _, state = apply_means(START, OptimizerState(), dict(MEAN), _optimizer(name))
    back = OptimizerState.from_arrays(state.to_arrays())
    assert back.to_arrays().keys() == state.to_arrays().keys()


def test_the_input_is_left_as_it_was() -> None:
    apply_means(START, OptimizerState(), dict(MEAN), _optimizer("adam"))
    np.testing.assert_array_equal(START["backbone.w"], np.float32([1, 2, 3]))
