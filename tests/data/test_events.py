from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthfm_core.data.store.events import (
    STATIC_TIME,
    are_among,
    births,
    duplicates,
    first_equals,
    repeated,
    set_aside,
    sort_events,
    times_us,
)

JANUARY = datetime(2020, 1, 1)
NOW_US = int(datetime(2021, 1, 1).timestamp() * 1e6)


def test_a_null_time_is_before_every_other(events):
    assert times_us(events([(1, None, "A", None, None)])).tolist() == [STATIC_TIME]


def test_sorting_keeps_the_order_of_ties(events):
    rows = [
        (2, None, "A", None, None),
        (1, JANUARY, "B", None, None),
        (1, JANUARY, "A", None, None),
    ]
    assert sort_events(events(rows))["code"].to_pylist() == ["B", "A", "A"]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ((1, JANUARY, "A", 1.0, None), True),
        ((2, JANUARY, "A", 1.0, None), False),
        ((1, None, "A", 1.0, None), False),
        ((1, JANUARY, "B", 1.0, None), False),
        ((1, JANUARY, "A", 1.5, None), False),
        ((1, JANUARY, "A", None, None), False),
        ((1, JANUARY, "A", 1.0, "text"), False),
    ],
)
def test_a_duplicate_agrees_in_subject_time_code_number_and_text(events, other, same):
    found = duplicates(events([(1, JANUARY, "A", 1.0, None), other]))
    assert found.tolist() == [False, same]


def test_no_number_is_not_the_number_zero_and_minus_zero_is(events):
    row = (1, JANUARY, "A")
    table = events([(*row, 0.0, None), (*row, None, None), (*row, -0.0, None)])
    assert duplicates(table).tolist() == [False, False, True]


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), max_size=40))
def test_repeated_rows_are_those_a_set_has_seen(rows):
    seen: set[tuple[int, int]] = set()
    expected = [row in seen or seen.add(row) is not None for row in rows]
    keys = np.array(rows, np.int64).reshape(-1, 2)
    assert repeated([keys[:, 0].copy(), keys[:, 1].copy()]).tolist() == expected


@given(st.lists(st.integers(-2, 2), max_size=20))
def test_each_row_names_the_first_that_it_equals(rows):
    keys = np.array(rows, np.int64)
    assert first_equals([keys]).tolist() == [rows.index(row) for row in rows]


def test_events_are_found_among_others_however_often_they_occur(events):
    a, b, c = ((1, JANUARY, code, 1.0, None) for code in "ABC")
    assert are_among(events([a, a, b, c, b]), events([b, a, b])).tolist() == [True] * 3 + [
        False,
        True,
    ]
    text = (1, JANUARY, "A", 1.0, "text")
    plain = events([a]).drop_columns(["text_value"])
    assert are_among(events([a, text]), plain).tolist() == [True, False]


def test_births_are_the_first_of_each_subject(events):
    table = events(
        [
            (7, datetime(1971, 1, 1), "MEDS_BIRTH", None, None),
            (7, datetime(1970, 1, 1), "MEDS_BIRTH", None, None),
            (3, datetime(1970, 1, 2), "MEDS_BIRTH", None, None),
            (9, None, "MEDS_BIRTH", None, None),
        ]
    )
    subject, born = births(table)
    assert subject.tolist() == [3, 7]
    assert born.tolist() == [86_400_000_000, 0]


def test_what_cannot_be_true_is_set_aside_under_its_first_reason(events):
    table = events(
        [
            (1, datetime(1980, 1, 1), "MEDS_BIRTH", None, None),
            (1, JANUARY, "HR", 60.0, None),
            (1, JANUARY, "HR", 60.0, None),
            (1, JANUARY, "HR", 900.0, None),
            (1, datetime(2030, 1, 1), "HR", 61.0, None),
            (1, datetime(1979, 1, 1), "HR", 62.0, None),
            (1, JANUARY, "K", float("inf"), None),
            (1, JANUARY, "", 1.0, None),
            (2, datetime(1979, 1, 1), "HR", 350.0, None),
        ]
    )
    kept, aside = set_aside(table, now_us=NOW_US, limits={"HR": (0.0, 350.0)})
    assert kept["numeric_value"].to_pylist() == [None, 60.0, 350.0]
    assert {reason: rows["numeric_value"].to_pylist() for reason, rows in aside.items()} == {
        "no_code": [1.0],
        "duplicate": [60.0],
        "after_today": [61.0],
        "before_birth": [62.0],
        "not_finite": [float("inf")],
        "impossible_value": [900.0],
    }


def test_nothing_is_copied_when_nothing_is_set_aside(events):
    table = events([(1, JANUARY, "HR", 60.0, None)])
    kept, aside = set_aside(table, now_us=NOW_US)
    assert kept is table
    assert aside == {}


def test_codes_may_come_as_a_dictionary(events):
    table = events([(1, JANUARY, "HR", 900.0, None), (1, JANUARY, "HR", 90.0, None)])
    table = table.set_column(2, "code", table["code"].dictionary_encode())
    kept, _ = set_aside(table, now_us=NOW_US, limits={"HR": (0.0, 350.0)})
    assert kept["code"].cast(pa.string()).to_pylist() == ["HR"]
