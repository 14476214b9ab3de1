"""A turned group: the same length, no number much larger than the others, and back again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from healthfm_core.federation.secure import rotation
from healthfm_core.federation.secure.rotation import Rotation

LENGTHS = [1, 2, 7, 4096, 4099, 65_537]


@pytest.mark.parametrize("length", LENGTHS)
def test_turned_back_it_is_what_it_was_and_has_its_length_meanwhile(length: int) -> None:
    values = np.random.default_rng(length).standard_normal(length)
    turned = values.copy()
    turn = Rotation(length, seed=3)
    turn.turn(turned)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(values))
    turn.turn_back(turned)
    np.testing.assert_allclose(turned, values, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("which", [slice(0, 1), slice(40, 104), slice(None, None, 7), slice(None)])
def test_no_number_of_a_turned_group_is_over_its_bound(
    monkeypatch: pytest.MonkeyPatch, parts: int, which: slice
) -> None:
    length = 20_000
    monkeypatch.setattr(rotation, "_MOST_AT_ONCE", -(-length // parts))
    values = np.zeros(length)
    values[which] = 1 + np.random.default_rng(0).random(len(values[which]))
    values *= 20.0 / np.linalg.norm(values)
    turn = Rotation(length, seed=1)
    turn.turn(values)
    assert turn.bound(20.0) == pytest.approx(6 * 20 / math.sqrt(length))
    assert np.abs(values).max() <= turn.bound(20.0)


def test_every_round_and_group_turns_otherwise() -> None:
    one, other = np.ones(64), np.ones(64)
    Rotation(64, seed=1).turn(one)
    Rotation(64, seed=2).turn(other)
    assert not np.allclose(one, other)


def test_few_numbers_are_bounded_by_the_clip_itself() -> None:
    assert Rotation(9, seed=0).bound(20.0) == 20.0
