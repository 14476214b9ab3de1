"""SCAFFOLD's three equations (Karimireddy et al. 2020, option II), worked out by hand."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from healthfm_core.config.aggregation import AggregationConfig
from healthfm_core.config.compose import compose
from healthfm_core.errors import ConfigError
from healthfm_core.federation.aggregation.method_registry import methods
from healthfm_core.federation.update_checks import UpdateSchema, check_update

ALGORITHM = methods()["scaffold"].control_variates
NAME = "backbone.w"


def named(*values: float) -> dict[str, np.ndarray]:
    return {NAME: np.array(values, np.float32)}


def test_every_method_that_the_configuration_names_is_in_the_registry_and_no_other():
    assert set(methods()) == set(get_args(AggregationConfig.model_fields["method"].annotation))


def test_a_step_is_corrected_by_the_servers_control_less_the_sites():
    correction = ALGORITHM.correction(named(3, -1, 0.5), named(1, 1, 0.5))
    np.testing.assert_array_equal(correction[NAME], [2, -2, 0])
    np.testing.assert_array_equal(ALGORITHM.correction(named(3, -1, 0.5), {})[NAME], [3, -1, 0.5])


def test_the_sites_control_is_its_mean_direction():
    """c_i⁺ = c_i − c + (x − y_i)/(Kη), with x − y_i = (0.4, −0.2, 0) after K = 4 steps of ½."""
    update = named(-0.4, 0.2, 0)
    after = ALGORITHM.site_state(named(3, -1, 0.5), named(1, 1, 0.5), update, 4 * 0.5)
    np.testing.assert_allclose(after[NAME], [1 - 3 + 0.2, 1 + 1 - 0.1, 0], rtol=1e-6)


def test_the_servers_control_moves_by_the_share_of_sites_that_answered():
    """c⁺ = c + |S|/N · mean(Δc_i), with two of four sites."""
    after = ALGORITHM.server_state(named(3, -1, 0.5), named(1, 2, -1), {NAME: 2 / 4})
    np.testing.assert_array_equal(after[NAME], [3.5, 0, 0])


def test_a_site_that_took_no_step_keeps_its_control():
    after = ALGORITHM.site_state(named(3, -1, 0), named(1, 1, 0), named(0, 0, 0), 0.0)
    np.testing.assert_array_equal(after[NAME], [1, 1, 0])


def drifting_sites(rounds: int, sign: float) -> float:
    """Return how far x is from the optimum of two quadratics of unequal curvature, ten steps each.

    With f_i = ½ a_i (y − b_i)² the sum's optimum is Σ a_i b_i / Σ a_i; plain local steps end
    elsewhere, since the steeper site is done after a few of them.
    """
    curvature, centre, rate, steps = (1.0, 0.1), (1.0, -3.0), 0.5, 10
    x, server, own = named(0.0), named(0.0), [named(0.0), named(0.0)]
    for _ in range(rounds):
        updates, changes = [], []
        for i in range(2):
            y = x[NAME].astype(np.float64)
            drift = ALGORITHM.correction(server, own[i])[NAME]
            for _ in range(steps):
                y = y - rate * (curvature[i] * (y - centre[i]) + sign * drift)
            updates.append(named(*(y - x[NAME])))
            after = ALGORITHM.site_state(server, own[i], updates[-1], steps * rate)
            changes.append(after[NAME] - own[i][NAME])
            own[i] = after
        x = named(*(x[NAME] + np.mean([u[NAME] for u in updates], axis=0)))
        server = ALGORITHM.server_state(server, named(*np.mean(changes, axis=0)), {NAME: 1.0})
    optimum = (curvature[0] * centre[0] + curvature[1] * centre[1]) / sum(curvature)
    return abs(float(x[NAME][0]) - optimum)


def test_drifting_sites_reach_the_optimum_of_the_sum_and_plain_averaging_does_not():
    assert drifting_sites(60, sign=1.0) < 1e-3
    assert drifting_sites(60, sign=0.0) > 0.5


def test_with_the_sign_flipped_they_do_not():
    assert not drifting_sites(60, sign=-1.0) < 0.5


def test_a_change_of_control_is_checked_like_an_update_and_by_its_own_norm():
    slots = methods()["scaffold"].slots(AggregationConfig(max_update_norm=1.0))
    schema = UpdateSchema.of(named(0, 0, 0), 1.0, slots)
    weights, asked = {"backbone": 2.0}, ("backbone",)

    def reason(update):
        return check_update(update, weights, schema, asked=asked, n_subjects=5)

    control = {f"control/{NAME}": np.array([500, 0, 0], np.float32)}
    assert reason(named(0.5, 0, 0) | control) is None
    assert reason(named(0.5, 0, 0)) == f"1 parameters are missing, the first is control/{NAME}"
    assert "the norm of group backbone" in reason(named(2, 0, 0) | control)
    control[f"control/{NAME}"] *= 3
    assert "the norm of control of group backbone exceeds 1000" in reason(named(0, 0, 0) | control)
    control[f"control/{NAME}"][1] = np.nan
    assert reason(named(0, 0, 0) | control) == f"control/{NAME} holds values that are not finite"


def test_scaffold_and_secure_are_refused_together_with_the_reason():
    with pytest.raises(ConfigError, match=r"scaffold needs the exact change.*shortens"):
        compose(["federation=secure", "federation.aggregation.method=scaffold"])
    assert compose(["federation=scaffold"]).federation.aggregation.method == "scaffold"
