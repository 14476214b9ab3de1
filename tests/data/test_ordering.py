from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.data.store.event_order import STATIC_TIME, order_of


@pytest.mark.parametrize(
    ("rows", "people", "unit_us", "span_us"),
    [
        (0, 1, 1, 1),
        (1, 1, 1, 1),
        (1_000, 5, 1_000_000, 10**15),
        (1_000, 5, 1_000_000, 10**8),
        (2_000, 300, 1_000, 10**15),
        (2_000, 300, 1, 10**15),
        (2_000, 300, 1, 2**62),
        (1_000, 2, 1, 2**63 - 1),
        (200_000, 150_000, 1, 10**6),
    ],
)
def test_the_order_is_that_of_lexsort(rows, people, unit_us, span_us):
    rng = np.random.default_rng(0)
    subject = rng.integers(-people, people, rows) * (2**40 + 7)
    time = rng.integers(0, max(1, span_us // unit_us), rows) * unit_us - span_us // 2
    time[rng.random(rows) < 0.1] = STATIC_TIME
    assert order_of(subject, time).tolist() == np.lexsort((time, subject)).tolist()


def test_static_rows_alone_keep_their_order():
    assert order_of(np.array([2, 1, 2, 1]), np.full(4, STATIC_TIME)).tolist() == [1, 3, 0, 2]
