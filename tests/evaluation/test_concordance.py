"""Both C-indices against their definitions, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthfm_core.evaluation.metrics.bootstrap import draw_subjects
from healthfm_core.evaluation.metrics.concordance import (
    INDICES,
    SurvivalTimes,
    concordance,
    concordance_rows,
    harrell_c,
    mean_concordance,
    uno_c,
)


def survival(time: list[float], event: list[int], score: list[float]) -> SurvivalTimes:
    return SurvivalTimes(
        np.arange(len(time)), np.array(time, float), np.array(event, bool), np.array(score, float)
    )


def tied(n: int, seed: int, *, subjects: int | None = None) -> SurvivalTimes:
    """Random rows with many ties in time and in score."""
    rng = np.random.default_rng(seed)
    return SurvivalTimes(
        rng.integers(0, subjects, n) if subjects else np.arange(n),
        rng.integers(1, 9, n).astype(float),
        rng.random(n) < 0.5,
        rng.integers(0, 5, n) / 4,
    )


def uncensored_before(data: SurvivalTimes, t: float) -> float:
    """Kaplan-Meier of the censoring just before t, written as the textbook has it."""
    kept = 1.0
    for u in np.unique(data.time_days[~data.event]):
        if u < t:
            censored = ((data.time_days == u) & ~data.event).sum()
            at_risk = ((data.time_days > u) | ((data.time_days == u) & ~data.event)).sum()
            kept *= 1.0 - censored / at_risk
    return kept


def brute(data: SurvivalTimes, until: float | None, *, weigh: bool) -> float:
    won = total = 0.0
    for i in range(len(data)):
        if not data.event[i] or (until is not None and data.time_days[i] >= until):
            continue
        weight = uncensored_before(data, data.time_days[i]) ** -2 if weigh else 1.0
        for j in range(len(data)):
            later = data.time_days[j] > data.time_days[i]
            outlived = data.time_days[j] == data.time_days[i] and not data.event[j]
            if later or outlived:
                total += weight
                won += weight * (data.score[i] > data.score[j])
                won += weight * 0.5 * (data.score[i] == data.score[j])
    return won / total if total else float("nan")


def test_four_of_five_pairs_in_order():
    """Of times 1, 2, 3+ and 4 the pairs are (1,2) (1,3+) (1,4) (2,3+) (2,4): 4 of 5 in order."""
    data = survival([1, 2, 3, 4], [1, 1, 0, 0], [0.9, 0.4, 0.5, 0.1])
    assert harrell_c(data) == pytest.approx(4 / 5)


def test_whoever_is_censored_on_the_day_of_anothers_event_outlived_it():
    assert harrell_c(survival([2, 2], [1, 0], [0.9, 0.1])) == 1.0
    assert np.isnan(harrell_c(survival([2, 2], [1, 1], [0.9, 0.1])))


def test_uno_weighs_a_pair_after_a_censoring_by_the_squared_chance_of_still_being_seen():
    """Between the events at 1 and 3 one of three is censored: G(3−) = 2/3, weight 9/4."""
    data = survival([1, 2, 3, 4], [1, 0, 1, 0], [0.9, 0.1, 0.2, 0.3])
    assert harrell_c(data) == pytest.approx(3 / 4)
    assert uno_c(data) == pytest.approx(3 / (3 + 9 / 4))


def test_an_event_at_the_truncation_time_begins_no_pair():
    data = survival([1, 3, 4], [1, 1, 0], [0.9, 0.1, 0.2])
    assert uno_c(data, until_days=3.0) == 1.0
    assert uno_c(data, until_days=3.1) == pytest.approx(2 / 3)


@given(st.integers(2, 40), st.integers(0, 10_000), st.sampled_from([None, 3.0, 6.5]))
def test_both_indices_equal_their_definition_with_ties_and_censoring(n, seed, until):
    data = tied(n, seed)
    assert harrell_c(data, until_days=until) == pytest.approx(
        brute(data, until, weigh=False), nan_ok=True
    )
    assert uno_c(data, until_days=until) == pytest.approx(
        brute(data, until, weigh=True), nan_ok=True
    )


def test_replicates_are_the_indices_of_the_drawn_rows():
    data = tied(120, 1, subjects=40)
    draws = draw_subjects(data.subject, 6, np.random.default_rng(0))
    found = concordance(data, draws, until_days=7.0)
    for i in range(6):
        times = draws.weight[i][draws.index(data.subject)].astype(int)
        rows = np.repeat(np.arange(len(data)), times)
        part = SurvivalTimes(
            data.subject[rows], data.time_days[rows], data.event[rows], data.score[rows]
        )
        assert found["harrell_c"].replicates[i] == pytest.approx(brute(part, 7.0, weigh=False))
        assert found["uno_c"].replicates[i] == pytest.approx(brute(part, 7.0, weigh=True))


def test_heavier_censoring_moves_harrell_and_leaves_uno():
    """A score that tells early events apart but not late ones, under much censoring."""
    rng = np.random.default_rng(0)
    n = 20_000
    score = rng.normal(size=n)
    time = rng.exponential(1.0, n) * np.exp(-score)
    late = time > 0.8
    time[late] = 0.8 + rng.exponential(1.0, late.sum())
    full = SurvivalTimes(np.arange(n), time, np.ones(n, bool), score)
    censored = rng.exponential(1.2, n)
    seen = SurvivalTimes(np.arange(n), np.minimum(time, censored), time <= censored, score)
    truth = harrell_c(full, until_days=1.5)
    assert abs(harrell_c(seen, until_days=1.5) - truth) > 0.02
    assert uno_c(seen, until_days=1.5) == pytest.approx(truth, abs=0.01)


def test_without_events_or_rows_there_is_no_index():
    assert np.isnan(uno_c(survival([1, 2], [0, 0], [0.1, 0.2])))
    assert np.isnan(harrell_c(survival([], [], [])))


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="must be numbers"):
        survival([1, 2], [1, 0], [0.1, float("nan")])


def test_the_mean_over_targets_leaves_out_those_with_few_events():
    right = survival(list(range(1, 21)), [1] * 20, [-t for t in range(20)])
    rare = survival(list(range(1, 21)), [1] * 9 + [0] * 11, list(range(20)))
    draws = draw_subjects(right.subject, 5, np.random.default_rng(0))
    found = mean_concordance([right, rare], draws)
    assert found["harrell_c"].value == 1.0
    assert np.isnan(mean_concordance([rare], draws)["uno_c"].value)


def test_a_better_arm_has_a_paired_difference_above_zero():
    rng = np.random.default_rng(0)
    time = rng.exponential(1.0, 300)
    good = SurvivalTimes(np.arange(300), time, np.ones(300, bool), -time)
    poor = SurvivalTimes(np.arange(300), time, np.ones(300, bool), rng.normal(size=300))
    rows = concordance_rows(
        {"federated": [good], "local": [poor]}, task="death", bootstraps=50, rng=rng
    )
    assert [row.metric for row in rows] == [*INDICES] * 3
    difference = rows[-2]
    assert difference.is_difference
    assert difference.value == pytest.approx(rows[0].value - rows[2].value)
    assert difference.low > 0.3
