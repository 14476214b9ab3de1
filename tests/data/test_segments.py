"""Ragged arithmetic."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from healthfm_core.data.batch import segments


def test_ranges_follow_one_another():
    found = segments.ranges(np.array([5, 0, 9]), np.array([2, 0, 3]))
    assert found.tolist() == [5, 6, 9, 10, 11]
    assert segments.ranges(np.empty(0, np.int64), np.empty(0, np.int64)).tolist() == []


def test_runs_start_where_a_key_changes_and_end_before_the_next():
    starts = segments.run_starts(np.array([1, 1, 2, 2, 2]), np.array([0, 0, 0, 1, 1]))
    assert starts.tolist() == [True, False, True, True, False]
    assert segments.run_ends(starts).tolist() == [2, 2, 3, 5, 5]
    assert segments.run_ends(segments.run_starts(np.empty(0))).tolist() == []


def test_offsets_are_running_sums():
    assert segments.offsets_of(np.array([2, 0, 3])).tolist() == [0, 2, 2, 5]


lists = st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=6)


@given(lists, st.sampled_from(["left", "right"]), st.data())
def test_search_agrees_with_searchsorted_in_every_segment(parts, side, data):
    parts = [np.sort(np.array(part, np.int64)) for part in parts]
    bounds = segments.offsets_of(np.array([len(part) for part in parts]))
    wanted = np.array([data.draw(st.integers(-1, 7)) for _ in parts], np.int64)
    low, high = bounds[:-1], bounds[1:]
    found = segments.search(np.concatenate(parts), low, high, wanted, side)
    exact = [np.searchsorted(p, w, side) for p, w in zip(parts, wanted, strict=True)]
    assert (found - low).tolist() == exact
