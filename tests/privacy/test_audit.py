"""The auditor finds what is there, and no more than is there."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.privacy.audit import (
    codes_told,
    epsilon_lower_bound,
    likelihood_ratios,
    membership,
    p_value,
)


def coins(n: int, seed: int = 0):
    return np.random.default_rng(seed).random(n) < 0.5


def test_a_score_that_knows_catches_everybody_and_one_that_does_not_chance():
    member = coins(2000)
    assert membership(member.astype(float), member).auroc == 1.0
    blind = membership(np.random.default_rng(1).random(2000), member)
    assert abs(blind.auroc - 0.5) < 0.04
    assert abs(blind.caught - 0.05) < 0.03


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0])
def test_randomised_response_is_found_at_most_at_its_epsilon_and_near_it(epsilon):
    found = []
    for seed in range(20):
        member = coins(4000, seed)
        rng = np.random.default_rng(100 + seed)
        truthful = rng.random(4000) < 1 / (1 + np.exp(-epsilon))
        scores = np.where(truthful, member, ~member) + 0.1 * rng.random(4000)
        found.append(epsilon_lower_bound(scores, member, 1e-5))
    assert np.mean(np.array(found) > epsilon) <= 0.1
    assert np.median(found) > 0.6 * epsilon


def test_guesses_by_chance_refute_nothing():
    rng = np.random.default_rng(3)
    refuted = [epsilon_lower_bound(rng.random(500), coins(500, s), 1e-5) > 0 for s in range(60)]
    assert np.mean(refuted) <= 0.1


def test_the_p_value_is_the_binomials_without_delta_and_grows_with_it():
    assert p_value(100, 10, 10, 0.0, 0.0) == pytest.approx(2.0**-10)
    assert p_value(100, 10, 10, 0.0, 1e-2) > p_value(100, 10, 10, 0.0, 1e-5) > 2.0**-10
    assert p_value(100, 10, 0, 3.0, 0.0) == 1.0


def test_likelihood_ratios_see_past_people_who_are_hard_in_any_case():
    rng = np.random.default_rng(0)
    people, shadows = 600, 8
    hardness = rng.normal(0, 3, people)
    shadow_member = np.array([coins(people, s) for s in range(shadows)])
    shadow_member[0], shadow_member[1] = True, False
    member = coins(people, 99)

    def loss(inside):
        return hardness + rng.normal(0, 0.5, inside.shape) - 1.0 * inside

    target = loss(member)
    plain = membership(-target, member).auroc
    ratio = membership(likelihood_ratios(target, loss(shadow_member), shadow_member), member).auroc
    assert plain < 0.65
    assert ratio > 0.85
    with pytest.raises(ValueError, match="in some shadow models"):
        likelihood_ratios(target, loss(shadow_member[:1]), shadow_member[:1])


def test_an_update_that_moves_only_what_a_person_has_tells_it_all():
    held = np.array([True, False, True, False, False])
    assert codes_told(np.array([0.1, 0.0, 2.0, 0.0, 0.0]), held) == 1.0
