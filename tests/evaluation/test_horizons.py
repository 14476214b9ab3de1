"""Outcomes at a horizon: who had it, who had not, and of whom nobody knows."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.evaluation.metrics.horizons import (
    HORIZONS_DAYS,
    FollowedQueries,
    horizon_rows,
    survival_of,
    time_to_event_rows,
    within,
)

NEVER = np.inf


def followed(next_days, followed_days, died=None, repeats=None) -> FollowedQueries:
    next_days = np.array(next_days, np.float32)
    if next_days.ndim == 1:
        next_days = next_days[:, None]
    n = len(next_days)
    return FollowedQueries(
        subject=np.arange(n),
        site=np.zeros(n, np.int32),
        next_days=next_days,
        followed_days=np.array(followed_days, np.float32),
        repeats=np.zeros_like(next_days) if repeats is None else np.array(repeats, np.float32),
        died=None if died is None else np.array(died),
    )


def score_of(queries: FollowedQueries) -> np.ndarray:
    return np.linspace(0, 1, queries.next_days.size, dtype=np.float32).reshape(
        queries.next_days.shape
    )


def test_a_row_is_left_out_where_the_follow_up_ended_too_soon():
    """Had it on day 10 of 40 · not in 40 · lost after 20 · on the 30th · on the 31st."""
    queries = followed([10, NEVER, NEVER, 30, 31], [40, 40, 20, 30, 31])
    found = within(queries, score_of(queries), 30.0)
    assert found.subject.tolist() == [0, 1, 3, 4]
    assert found.outcome.tolist() == [True, False, True, False]
    assert found.score.tolist() == [0.0, 0.25, 0.75, 1.0]


def test_who_is_lost_too_soon_is_left_out_with_the_event_as_without_it():
    """Independent losses: among those who stay the share of events is the true one."""
    rng = np.random.default_rng(0)
    event, lost = rng.exponential(60.0, 20_000), rng.uniform(0, 90, 20_000)
    seen = np.where(event <= lost, event, NEVER)[:, None]
    found = within(followed(seen, lost), np.zeros((20_000, 1), np.float32), 30.0)
    assert found.outcome.mean() == pytest.approx(1 - np.exp(-0.5), abs=0.015)


def test_who_died_of_it_is_kept_however_short_the_follow_up():
    queries = followed([2], [2], died=[True])
    assert within(queries, score_of(queries), 30.0).outcome.tolist() == [True]


def test_an_event_after_the_horizon_shows_that_there_was_none_before():
    queries = followed([100], [20])
    assert within(queries, score_of(queries), 30.0).outcome.tolist() == [False]


def test_whoever_died_without_it_is_known_not_to_have_had_it():
    queries = followed([NEVER, NEVER], [5, 5], died=[True, False])
    found = within(queries, score_of(queries), 30.0)
    assert found.subject.tolist() == [0]
    assert found.outcome.tolist() == [False]


def test_known_rows_are_counted_per_target():
    queries = followed([[3, NEVER], [NEVER, 8]], [40, 10], repeats=[[0, 1], [2, 0]])
    found = within(queries, score_of(queries), 30.0)
    assert found.target.tolist() == [0, 1]
    assert found.subset("new_onset").subject.tolist() == [0]


def test_time_to_event_ends_at_the_event_or_at_the_end_of_follow_up():
    queries = followed([3, NEVER, 8], [10, 7, 2], repeats=[[0], [0], [1]])
    data = survival_of(queries, score_of(queries), 0)
    assert data.time_days.tolist() == [3, 7, 8]
    assert data.event.tolist() == [True, False, True]
    assert survival_of(queries, score_of(queries), 0, "repeat").subject.tolist() == [2]
    assert survival_of(queries, score_of(queries), 0, "new_onset").subject.tolist() == [0, 1]


def test_days_before_the_query_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        followed([-1], [3])
    with pytest.raises(ValueError, match="at least 0"):
        followed([float("nan")], [3])


def people(n: int = 300, targets: int = 2) -> tuple[FollowedQueries, np.ndarray]:
    """People with known yearly rates; every third is lost after a random time."""
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(-1, 1, (n, targets)))
    time = rng.exponential(1 / rate) * 365
    lost = np.where(np.arange(n) % 3, 4000.0, rng.uniform(1, 2000, n))
    queries = followed(np.where(time <= lost[:, None], time, NEVER), lost)
    return queries, rate


def test_true_risks_are_calibrated_at_every_horizon_and_rank_better_than_noise():
    queries, rate = people(2000, 1)
    risk = np.stack([1 - np.exp(-rate * days / 365) for days in HORIZONS_DAYS])
    noise = np.random.default_rng(1).random(risk.shape)
    rows = horizon_rows(
        queries,
        {"federated": risk, "local": noise},
        bootstraps=20,
        rng=np.random.default_rng(0),
        subsets=("overall",),
    )
    found = {(row.arm, row.task, row.metric): row for row in rows}
    for days in HORIZONS_DAYS:
        task = f"within_{days:g}_days"
        assert abs(found["federated", task, "intercept"].value) < 0.25
        assert found["federated - local", task, "auroc"].low > 0


def test_one_score_for_all_horizons_is_only_ranked():
    queries, rate = people()
    rows = horizon_rows(queries, {"a": rate}, bootstraps=3, rng=np.random.default_rng(0))
    assert {row.metric for row in rows} == {"auroc", "average_precision"}
    assert {row.subset for row in rows} == {"overall", "repeat", "new_onset"}
    assert len({row.task for row in rows}) == len(HORIZONS_DAYS)


def test_the_c_index_of_the_true_rates_beats_their_opposite():
    queries, rate = people()
    rows = time_to_event_rows(
        queries,
        {"federated": rate, "local": -rate},
        bootstraps=20,
        rng=np.random.default_rng(0),
        subsets=("new_onset",),
    )
    found = {(row.arm, row.metric): row.value for row in rows}
    assert found["federated", "uno_c"] > 0.65
    assert found["federated", "harrell_c"] + found["local", "harrell_c"] == pytest.approx(1.0)
