from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from healthfm_core.data.store.schemas import WEARABLE
from healthfm_core.data.store.wearables import HOUR_US, hourly_summaries, hours_worn, stretches


def test_a_reading_that_is_not_finite_is_masked_and_zero():
    table = stretches(np.array([1]), np.array([0]), "HR", 1.0, np.array([[1, np.nan]], np.float32))
    assert table["value"].to_pylist() == [[1.0, 0.0]]
    assert table["mask"].to_pylist() == [[True, False]]


def test_hours_count_only_what_was_read():
    mask = np.array([[True] * 30 + [False] * 30, [True] * 60])
    value = np.ones((2, 60), np.float32)
    table = stretches(np.array([1, 2]), np.zeros(2, np.int64), "HR", 1 / 60, value, mask)
    assert hours_worn(table) == pytest.approx(1.5)


def test_hours_are_not_counted_again_for_every_channel():
    both = [
        stretches(np.array([1, 2]), np.zeros(2, np.int64), "HR", 1 / 60, np.ones((2, 60), "f4")),
        stretches(np.array([1]), np.zeros(1, np.int64), "STEPS", 1 / 60, np.ones((1, 120), "f4")),
    ]
    assert hours_worn(pa.concat_tables(both)) == pytest.approx(2 + 1)


def test_nothing_worn_is_no_hours():
    assert hours_worn(WEARABLE.empty_table()) == 0.0


def test_hourly_means_stand_at_the_hours_end_and_an_hour_unread_gives_none():
    value = np.concatenate([np.full(60, 2.0), np.full(60, 8.0), np.full(60, 5.0)]).astype(
        np.float32
    )
    mask = np.repeat([True, False, True], 60)
    table = stretches(np.array([4]), np.array([HOUR_US]), "HR", 1 / 60, value[None], mask[None])
    rows = hourly_summaries(table, {"HR": "bpm"})
    assert set(rows["code"].to_pylist()) == {"WEARABLE//HR//MEAN//bpm"}
    assert rows["numeric_value"].to_pylist() == [2.0, 5.0]
    assert rows["time"].cast("int64").to_pylist() == [2 * HOUR_US, 4 * HOUR_US]


def test_a_channel_without_a_unit_gives_no_summary():
    table = stretches(np.array([4]), np.array([0]), "HR", 1.0, np.ones((1, 5), np.float32))
    assert hourly_summaries(table, {"STEPS": "count"}).num_rows == 0
