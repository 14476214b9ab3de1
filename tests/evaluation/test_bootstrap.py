"""Replicates over subjects against drawing the rows by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthfm_core.evaluation.metrics import ranking
from healthfm_core.evaluation.metrics.bootstrap import Draws, draw_subjects
from healthfm_core.evaluation.metrics.calibration_error import recalibrate
from healthfm_core.evaluation.metrics.report_metrics import estimate, estimates, metrics_of_task
from healthfm_core.evaluation.metrics.resampled import rank_bins
from healthfm_core.evaluation.predictions import Predictions


def people(n: int = 400, subjects: int = 60, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, subjects, n) * 10
    risk = rng.normal(-1.0, 1.0, n) + rng.normal(0, 1, subjects)[subject // 10]
    return Predictions(
        subject=subject,
        site=np.zeros(n, np.int32),
        target=(np.arange(n) % 3).astype(np.int32),
        repeats=(np.arange(n) % 2).astype(np.float32),
        score=(1 / (1 + np.exp(-risk - rng.normal(0, 0.5, n)))).astype(np.float32),
        outcome=rng.random(n) < 1 / (1 + np.exp(-risk)),
    )


def drawn(predictions: Predictions, draws: Draws, replicate: int) -> Predictions:
    """The rows of one replicate, written out."""
    times = draws.weight[replicate][draws.index(predictions.subject)].astype(int)
    rows = np.repeat(np.arange(len(predictions)), times)
    return Predictions(
        **{name: getattr(predictions, name)[rows] for name in Predictions.__dataclass_fields__}
    )


def test_every_draw_is_as_large_as_the_group():
    draws = draw_subjects(np.array([5, 5, 8, 9]), 50, np.random.default_rng(0))
    assert draws.subjects.tolist() == [5, 8, 9]
    assert (draws.weight.sum(axis=1) == 3).all()


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "brier"])
def test_replicates_are_the_metric_of_the_drawn_rows(metric):
    found = people()
    draws = draw_subjects(found.subject, 5, np.random.default_rng(1))
    of = getattr(ranking, metric)
    replicates = estimate(metric, found, draws).replicates
    for i in range(5):
        part = drawn(found, draws, i)
        assert replicates[i] == pytest.approx(of(part.score, part.outcome), abs=1e-6)


def test_macro_replicates_are_the_mean_over_targets():
    found = people(600)
    draws = draw_subjects(found.subject, 3, np.random.default_rng(1))
    replicates = estimate("macro_auroc", found, draws).replicates
    parts = [drawn(found, draws, 0).where(drawn(found, draws, 0).target == t) for t in range(3)]
    mean = np.mean([ranking.auroc(part.score, part.outcome) for part in parts])
    assert replicates[0] == pytest.approx(mean, abs=0.01)


def test_a_slope_replicate_is_close_to_the_fit_of_the_drawn_rows():
    found = people(3000, 300)
    draws = draw_subjects(found.subject, 3, np.random.default_rng(1))
    replicates = estimate("slope", found, draws).replicates
    for i in range(3):
        part = drawn(found, draws, i)
        assert replicates[i] == pytest.approx(recalibrate(part.score, part.outcome)[1], abs=0.02)


def test_binning_many_scores_moves_a_replicate_by_less_than_a_thousandth():
    found = people(6000, 200)
    draws = draw_subjects(found.subject, 4, np.random.default_rng(1))
    assert rank_bins(found.score, 768).max() < 768
    for metric in ("auroc", "average_precision"):
        replicates = estimate(metric, found, draws).replicates
        for i in range(4):
            part = drawn(found, draws, i)
            exact = getattr(ranking, metric)(part.score, part.outcome)
            assert replicates[i] == pytest.approx(exact, abs=1e-3)


def test_the_interval_of_a_mean_has_the_width_theory_gives():
    rng = np.random.default_rng(3)
    n = 2000
    outcome = rng.random(n) < 0.3
    zeros = np.zeros(n, np.float32)
    found = Predictions(
        np.arange(n), zeros.astype(np.int32), zeros.astype(np.int32), zeros, zeros, outcome
    )
    low, high = estimate("brier", found, draw_subjects(found.subject, 1000, rng)).interval()
    wanted = 2 * 1.96 * np.sqrt(outcome.mean() * (1 - outcome.mean()) / n)
    assert high - low == pytest.approx(wanted, rel=0.1)


def test_rows_of_one_subject_rise_and_fall_together():
    """Ten copies of everybody's row tell no more than one does."""
    once = people(200, 200)
    ten = Predictions(
        **{n: np.repeat(getattr(once, n), 10) for n in Predictions.__dataclass_fields__}
    )
    draws = draw_subjects(once.subject, 200, np.random.default_rng(0))
    assert estimate("auroc", ten, draws).interval() == pytest.approx(
        estimate("auroc", once, draws).interval()
    )


def test_a_model_minus_itself_is_zero_with_no_width():
    found = people()
    draws = draw_subjects(found.subject, 20, np.random.default_rng(0))
    own = estimate("auroc", found, draws)
    assert (own - own).interval() == (0.0, 0.0)


def test_a_subject_that_was_not_drawn_from_is_refused():
    draws = draw_subjects(np.array([1, 2]), 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match="did not draw from"):
        draws.index(np.array([3]))


def test_no_rows_give_no_numbers():
    draws = draw_subjects(np.array([1, 2]), 3, np.random.default_rng(0))
    for found in estimates(metrics_of_task("next_visit"), Predictions.empty(), draws).values():
        assert np.isnan(found.value)
        assert np.isnan(found.interval()).all()


@given(st.integers(0, 10_000))
def test_the_interval_of_every_metric_is_in_order_and_holds_most_replicates(seed):
    found = people(120, 30, seed)
    draws = draw_subjects(found.subject, 40, np.random.default_rng(seed))
    for metric, own in estimates(metrics_of_task("next_visit"), found, draws).items():
        low, high = own.interval()
        if np.isfinite(low):
            assert low <= high, metric
