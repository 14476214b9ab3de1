"""Next-visit baselines on two people whose records fit on a page."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.data.batch.sequences import EVENT, STATIC, Sequences
from healthfm_core.evaluation.baselines.next_visit_baselines import (
    bag_features,
    fit_bag_of_codes,
    marginal,
    next_visit_baselines,
    queries_at,
    queries_of,
    repeat_history,
)

DAY = 86_400_000_000


def records(people: list[list[tuple[int, list[int]]]], static: int = 9) -> Sequences:
    """Sequences of people given as [(day, target codes of the visit), …]; token = target + 3."""
    rows: list[tuple[int, int, int, int, int]] = []
    for person, visits in enumerate(people):
        rows.append((person, STATIC, static, 0, -1))
        rows += [
            (person, EVENT, code + 3, day * DAY, number)
            for number, (day, codes) in enumerate(visits)
            for code in codes
        ]
    owner, kind, token, time, visit = zip(*rows, strict=True)
    n, n_people = len(rows), len(people)
    flat = [codes for visits in people for _, codes in visits]
    return Sequences(
        subject_id=np.arange(n_people) + 100,
        site=np.zeros(n_people, np.int32),
        birth_us=np.zeros(n_people, np.int64),
        offsets=np.r_[0, np.cumsum(np.bincount(owner, minlength=n_people))].astype(np.int64),
        kind=np.array(kind, np.uint8),
        token=np.array(token, np.int32),
        code=np.array(token, np.int32),
        quantile=np.zeros(n, np.float32),
        spread=np.zeros((n, 0), np.float32),
        has_value=np.zeros(n, np.bool_),
        time_us=np.array(time, np.int64),
        visit=np.array(visit, np.int32),
        wearable_row=np.full(n, -1, np.int64),
        wearable=np.zeros((0, 1, 1), np.float32),
        wearable_mask=np.zeros((0, 1, 1), np.bool_),
        panel=np.zeros((n_people, 1), np.float32),
        panel_mask=np.zeros((n_people, 1), np.bool_),
        visit_offsets=np.r_[0, np.cumsum([len(visits) for visits in people])].astype(np.int64),
        visit_time_us=np.array([day * DAY for visits in people for day, _ in visits], np.int64),
        visit_target_offsets=np.r_[0, np.cumsum([len(codes) for codes in flat])].astype(np.int64),
        visit_target=np.array([code for codes in flat for code in codes], np.int32),
        label_subject=np.zeros(0, np.int64),
        label_time_us=np.zeros(0, np.int64),
        label_value=np.zeros(0, np.float32),
        panel_names=("PGS1",),
    )


TWO = records([[(365, [0]), (375, [0, 1]), (400, [2])], [(730, [1]), (731, [1])]])


def test_every_visit_but_the_first_is_asked_about():
    found = queries_of(TWO, 3)
    assert found.visit.tolist() == [1, 2, 4]
    assert found.subject.tolist() == [0, 0, 1]
    assert found.earlier.tolist() == [1, 2, 1]


def test_repeats_count_the_visits_of_the_whole_earlier_history_of_the_same_person():
    found = queries_of(TWO, 3)
    assert found.repeats.tolist() == [[1, 0, 0], [2, 1, 0], [0, 1, 0]]
    assert found.outcome.tolist() == [
        [True, True, False],
        [False, False, True],
        [False, True, False],
    ]


def test_only_the_latest_visits_are_asked_about_on_request():
    assert queries_of(TWO, 3, latest=1).visit.tolist() == [2, 4]


def test_queries_follow_the_rows_a_model_answered():
    found = queries_at(TWO, 3, np.array([1, 0]), np.array([731, 400]) * DAY)
    assert found.visit.tolist() == [4, 2]
    with pytest.raises(ValueError, match="first"):
        queries_at(TWO, 3, np.array([0]), np.array([365]) * DAY)


def test_repeat_history_is_the_share_of_earlier_visits_and_zero_when_never_seen():
    assert repeat_history(queries_of(TWO, 3)).tolist() == [[1, 0, 0], [1, 0.5, 0], [0, 1, 0]]


def test_marginal_is_the_share_of_training_visits():
    found = queries_of(TWO, 3)
    assert marginal(found, found)[0].tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 3])


def test_features_hold_the_past_alone():
    found = queries_of(TWO, 3)
    x = bag_features(TWO, found, np.array([3, 4, 5, 9]))
    assert x.shape == (3, 11)
    assert np.expm1(x[:, :4]).tolist() == [
        pytest.approx([1, 0, 0, 1]),
        pytest.approx([2, 1, 0, 1]),
        pytest.approx([0, 1, 0, 1]),
    ]
    assert x[:, 4:8].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]
    assert x[:, 8] * 10 == pytest.approx([365 / 365.25, 375 / 365.25, 730 / 365.25])
    assert np.expm1(x[:, 9]) == pytest.approx([10, 25, 1], rel=1e-5)


def test_the_linear_baseline_learns_that_one_code_follows_another():
    """Code 0 is always followed by 1, code 2 always by 3."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, 300) * 2
    people = records([[(0, [int(code)]), (30, [int(code) + 1])] for code in first])
    found = queries_of(people, 4)
    score = fit_bag_of_codes(people, found).score(people, found)
    assert (score[first == 0, 1] > 0.9).all()
    assert (score[first == 2, 1] < 0.1).all()


def test_all_three_baselines_score_the_same_rows():
    found = next_visit_baselines(TWO, TWO, 3, queries_of(TWO, 3))
    assert set(found) == {"linear", "repeat_history", "marginal"}
    for predictions in found.values():
        assert predictions.outcome.tolist() == found["linear"].outcome.tolist()
        assert np.isfinite(predictions.score).all()
