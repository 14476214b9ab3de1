"""Half-lives of heads, by the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from healthfm_core.explain.drawing import span
from healthfm_core.explain.kernel_curves import half_at_days, memories


def kernel(days, half_lives, weights):
    return sum(w * 2 ** (-days / h) for h, w in zip(half_lives, weights, strict=True))


def test_one_component_is_half_at_its_half_life():
    assert half_at_days(np.array([20.0]), np.ones(1)) == pytest.approx(20.0)


def test_a_mixture_is_half_where_its_kernel_is():
    half_lives, weights = np.array([0.5, 30.0, 3000.0]), np.array([0.3, 0.4, 0.3])
    days = half_at_days(half_lives, weights)
    assert kernel(days, half_lives, weights) == pytest.approx(0.5)
    assert 0.5 < days < 3000


def test_a_kernel_that_keeps_half_never_gets_there():
    assert half_at_days(np.array([1.0, np.inf]), np.array([0.5, 0.5])) == math.inf
    assert half_at_days(np.array([1.0, np.inf]), np.array([0.75, 0.25])) == pytest.approx(
        math.log2(3)
    )


def test_every_layer_and_head_is_there_with_weights_that_sum_to_one(planted):
    model = planted.model.read(planted.store.narrowed(subjects=planted.with_signal[:1])).model
    found = memories(model)
    shape = planted.model.study.config.model
    assert [(m.layer, m.head) for m in found] == [
        (layer, head) for layer in range(shape.layers) for head in range(shape.heads)
    ]
    for m in found:
        assert sum(m.weight) == pytest.approx(1)
        assert list(m.half_life_days) == sorted(m.half_life_days)
        assert kernel(m.half_at_days, m.half_life_days, m.weight) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (1 / 24, "1 hour"),
        (0.5, "12 hours"),
        (1.0, "1 day"),
        (20.0, "20 days"),
        (91.3, "3 months"),
        (365.25, "1 year"),
        (3652.5, "10 years"),
        (math.inf, "for ever"),
    ],
)
def test_a_span_is_told_in_the_unit_that_reads_best(days, text):
    assert span(days) == text
