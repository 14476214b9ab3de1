from __future__ import annotations

import numpy as np

from healthfm_core.data.store.splits import (
    assign,
    keeps_label,
    keyed_uniform,
    shares_with,
    split_table,
)


def test_nobody_moves_when_others_come_or_go():
    everyone = np.arange(1000)
    some = everyone[::7]
    assert (assign(everyone)[::7] == assign(some)).all()
    assert (assign(everyone[::-1])[::-1] == assign(everyone)).all()


def test_shares_are_seventy_fifteen_fifteen():
    split = assign(np.arange(100_000))
    shares = [np.mean(split == name) for name in ("train", "tuning", "held_out")]
    np.testing.assert_allclose(shares, [0.70, 0.15, 0.15], atol=0.005)


def test_a_larger_share_is_held_out_of_all_others_alike():
    everyone = np.arange(100_000)
    usual, more = assign(everyone), assign(everyone, shares=shares_with(0.35))
    shares = [np.mean(more == name) for name in ("train", "tuning", "held_out")]
    np.testing.assert_allclose(shares, [0.65 * 70 / 85, 0.65 * 15 / 85, 0.35], atol=0.005)
    assert (more[usual == "held_out"] == "held_out").all()
    assert (assign(everyone, shares=shares_with(0.15)) == usual).all()


def test_another_key_gives_another_partition():
    subjects = np.arange(10_000)
    a, b = keyed_uniform(subjects, "a"), keyed_uniform(subjects, "b")
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    assert abs(np.corrcoef(a[1:], a[:-1])[0, 1]) < 0.05


def test_the_partition_is_the_same_for_ever():
    # Written down when the hash was chosen: another result would move people between splits.
    given = assign(np.array([1, 2, 3, 4, 5, 2**62, -1])).tolist()
    assert given == ["held_out", "held_out", "train", "train", "train", "train", "held_out"]


def test_the_table_is_sorted_by_subject():
    table = split_table(np.array([3, 1]), np.array(["train", "tuning"]))
    assert table.to_pydict() == {"subject_id": [1, 3], "split": ["tuning", "train"]}


def test_a_smaller_share_of_labels_is_part_of_a_larger_one_and_another_seed_draws_others():
    subjects = np.arange(20_000)
    few = keeps_label(subjects, share=0.05, seed=3)
    more = keeps_label(subjects, share=0.25, seed=3)
    assert (few <= more).all()
    np.testing.assert_allclose([few.mean(), more.mean()], [0.05, 0.25], atol=0.01)
    assert keeps_label(subjects, share=1.0, seed=3).all()
    assert (few & keeps_label(subjects, share=0.05, seed=4)).mean() < 0.01
