"""The quantile sketch: linear, accurate, one value per subject, k subjects per bucket."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from healthfm_core.tokens import values
from healthfm_core.tokens.values import RELATIVE_WIDTH, Sketch

floats = st.floats(-1e12, 1e12).filter(lambda x: x == 0 or abs(x) > 1e-8)
samples = stn.arrays(np.float64, st.integers(1, 200), elements=floats)


def sketch_of(value: np.ndarray, code: int = 0) -> Sketch:
    return values.sketch(np.full(len(value), code), value)


def quantile(given: Sketch, p: float) -> float:
    bucket = values.quantile_buckets(given, np.array([0]), np.array([p]))
    return float(values.upper_edge(bucket)[0, 0])


@given(samples, st.integers(1, 99))
def test_an_edge_lies_within_a_thousandth_of_the_exact_quantile(value, percent):
    exact = np.sort(value)[int(np.ceil(len(value) * percent / 100 - 1e-9)) - 1]
    found = quantile(sketch_of(value), percent / 100)
    assert found >= exact - 1e-9 * abs(exact)
    assert found - exact <= (RELATIVE_WIDTH + 1e-9) * abs(exact)


@given(samples)
def test_buckets_keep_the_order_of_values(value):
    value = np.sort(value)
    assert (np.diff(values.bucket_of(value)) >= 0).all()


def test_zero_signs_and_extremes_have_buckets():
    value = np.array([-1e30, -1.0, -1e-12, 0.0, 1e-12, 1.0, 1e30])
    bucket = values.bucket_of(value)
    assert bucket[2] == bucket[3] == bucket[4] == 0
    assert bucket[0] == -bucket[6]
    assert bucket[1] == -bucket[5]
    assert values.upper_edge(bucket)[5] == pytest.approx(1.0, rel=RELATIVE_WIDTH)


@given(st.lists(samples, min_size=1, max_size=4), st.randoms())
def test_the_sum_of_sites_is_the_sketch_of_the_pool_in_any_order(sites, random):
    pooled = sketch_of(np.concatenate(sites))
    random.shuffle(sites)
    added = values.add([sketch_of(site) for site in sites])
    for name in ("code", "bucket", "count"):
        np.testing.assert_array_equal(getattr(added, name), getattr(pooled, name))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(0, 9),
)
def test_each_subject_gives_one_value_per_code(rows, seed):
    subject, code = np.array(rows, np.int64).T.copy()
    keys = np.array([11, 22, 33, 44], np.int64)
    picked = values.one_per_subject(subject, code, keys, seed=seed)
    assert sorted(zip(subject[picked], code[picked], strict=True)) == sorted(set(rows))


def test_the_drawn_value_is_uniform_and_does_not_depend_on_other_subjects():
    subject = np.repeat(np.arange(6000), 4)
    code = np.zeros(len(subject), np.int64)
    key = np.array([7], np.int64)
    place = values.one_per_subject(subject, code, key) % 4
    share = np.bincount(place) / 6000
    np.testing.assert_allclose(share, 0.25, atol=0.02)
    alone = values.one_per_subject(subject[40:44], code[:4], key)
    assert alone[0] == place[10]


def test_a_subject_more_changes_each_of_their_codes_by_one():
    subject, code = np.array([1, 1, 1, 2, 2]), np.array([0, 0, 1, 0, 1])
    value, keys = np.array([5.0, 6.0, 7.0, 5.0, 7.0]), np.array([1, 2], np.int64)

    def total(rows):
        at = values.one_per_subject(subject[rows], code[rows], keys)
        made = values.sketch(code[rows][at], value[rows][at])
        return np.bincount(made.code, made.count, minlength=2)

    np.testing.assert_array_equal(total(np.arange(5)) - total(np.arange(3)), [1, 1])


def test_small_buckets_join_the_next_ones_up():
    given = Sketch(
        np.array([0, 0, 0, 0, 1, 2, 2], np.int32),
        np.array([-4, 10, 20, 30, 5, 1, 9], np.int32),
        np.array([2, 1, 9, 1, 2, 3, 4]),
    )
    merged = values.merge_small(given, 3)
    assert merged.code.tolist() == [0, 0, 2, 2]  # code 1 has 2 subjects and vanishes
    assert merged.bucket.tolist() == [1, 20, 1, 9]  # (2·-4 + 10) / 3 rounds to 1; 9 hold alone
    assert merged.count.tolist() == [3, 10, 3, 4]


counts = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-50, 50), st.integers(1, 12)), min_size=1, max_size=60
)


@given(counts, st.integers(1, 15))
def test_what_leaves_a_site_holds_k_subjects_and_moves_fewer_than_3k(rows, k):
    code, bucket, count = np.array(rows).T
    given = values.add([Sketch(code.astype(np.int32), bucket.astype(np.int32), count)])
    merged = values.merge_small(given, k)
    assert (merged.count >= k).all()
    for one in range(4):
        before, after = given.code == one, merged.code == one
        total = given.count[before].sum()
        assert merged.count[after].sum() == (total if total >= k else 0)
        if total >= k:
            assert (np.diff(merged.bucket[after]) > 0).all()
            for threshold in range(-51, 52):
                below = given.count[before & (given.bucket <= threshold)].sum()
                moved = below - merged.count[after & (merged.bucket <= threshold)].sum()
                assert abs(moved) < 3 * k


@given(counts, st.integers(1, 15))
def test_drawn_out_the_groups_keep_their_people_between_their_neighbours(rows, k):
    code, bucket, count = np.array(rows).T
    given = values.add([Sketch(code.astype(np.int32), bucket.astype(np.int32), count)])
    merged = values.merge_small(given, k)
    whole = values.stands_alone(merged, given, k)
    drawn = values.spread(merged, whole)
    for one in range(4):
        before, after = merged.code == one, drawn.code == one
        places, counts = merged.bucket[before], merged.count[before]
        assert drawn.count[after].sum() == counts.sum()
        left = dict(zip(drawn.bucket[after].tolist(), drawn.count[after].tolist(), strict=True))
        for place, n in zip(places[whole[before]], counts[whole[before]], strict=True):
            assert left[place] >= n
        below = np.cumsum(counts) - counts
        for place, under, n in zip(places, below, counts, strict=True):
            until = sum(c for b, c in left.items() if b < place)
            assert under <= until <= under + n


def test_half_of_a_group_lies_towards_each_neighbour_and_a_single_value_stays():
    merged = Sketch(np.zeros(3, np.int32), np.array([0, 80, 100], np.int32), np.array([8, 8, 9]))
    drawn = values.spread(merged, np.array([False, False, True]))
    assert drawn.bucket.tolist() == [-30, -10, 10, 30, 50, 70, 85, 95, 100]
    assert drawn.count.tolist() == [2, 2, 2, 2, 2, 2, 2, 2, 9]


def test_no_group_is_drawn_out_beyond_a_factor_of_two():
    far = values.bucket_of(np.array([0.0, 1e18]))
    merged = Sketch(np.array([0, 0], np.int32), far, np.array([8, 8]))
    drawn = values.spread(merged, np.array([True, False]))
    assert (drawn.code == 0).all()
    top = values.upper_edge(drawn.bucket)
    assert top[0] == 0
    assert ((top[1:] > 0.5e18) & (top[1:] < 2e18)).all()


def test_an_empty_sketch_stays_empty():
    empty = values.add([])
    assert len(values.spread(empty, np.zeros(0, np.bool_)).code) == 0
    assert len(values.merge_small(empty, 5).code) == 0
    assert values.quantile_buckets(empty, np.empty(0, np.int64), np.array([0.5])).shape == (0, 1)
