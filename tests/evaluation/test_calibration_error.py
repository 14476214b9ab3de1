"""Calibration errors, slope and intercept on numbers made to order."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.evaluation.metrics.bootstrap import Estimate, draw_subjects
from healthfm_core.evaluation.metrics.calibration_error import (
    calibration_in_the_large,
    ece,
    ece_uniform,
    logit,
    quantile_bin,
    recalibrate,
    reliability,
)
from healthfm_core.evaluation.metrics.report_metrics import estimates
from healthfm_core.evaluation.predictions import Predictions

COUNTS = ("rows_above_20", "people_above_20")
ABOVE = (*COUNTS, "ece_above_20", "slope_above_20", "intercept_above_20")


def above(score: np.ndarray, outcome: np.ndarray) -> dict[str, Estimate]:
    """The metrics above 20 %, every row a person of their own."""
    n = len(score)
    zeros = np.zeros(n, np.int32)
    found = Predictions(np.arange(n), zeros, zeros, np.zeros(n, np.float32), score, outcome)
    return estimates(ABOVE, found, draw_subjects(found.subject, 5, np.random.default_rng(0)))


def calibrated(n: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Rare outcomes (3.3 %) with their true probabilities, as in the design's example."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.35, 10.0, n)
    return p, rng.random(n) < p


def test_the_error_of_one_bin_is_observed_minus_predicted():
    assert ece(np.full(10, 0.2), np.arange(10) < 5) == pytest.approx(0.3)


def test_weighted_and_unweighted_errors_part_on_a_rare_outcome():
    """99 rows right at 0, one wrong at .95: one row in a hundred, or one bin of two."""
    score, outcome = np.r_[np.zeros(99), 0.95], np.zeros(100, np.bool_)
    assert ece(score, outcome) == pytest.approx(0.0095)
    assert ece_uniform(score, outcome) == pytest.approx(0.475)


def test_a_calibrated_model_has_nearly_no_weighted_error():
    score, outcome = calibrated()
    assert ece(score, outcome) < 0.002
    intercept, slope = recalibrate(score, outcome)
    assert slope == pytest.approx(1.0, abs=0.02)
    assert intercept == pytest.approx(0.0, abs=0.06)


def test_slope_and_intercept_undo_a_distortion():
    score, outcome = calibrated()
    distorted = 1 / (1 + np.exp(-(2.0 * logit(score) + 1.0)))
    intercept, slope = recalibrate(distorted, outcome)
    assert slope == pytest.approx(0.5, abs=0.02)
    assert intercept == pytest.approx(-0.5, abs=0.06)


def test_calibration_in_the_large_is_the_shift_of_the_log_odds():
    score = np.full(1000, 0.5)
    outcome = np.arange(1000) < 250
    assert calibration_in_the_large(score, outcome) == pytest.approx(-np.log(3.0))


def test_a_constant_score_has_no_slope():
    assert np.isnan(recalibrate(np.full(4, 0.5), np.array([True, False, True, False]))).all()


def test_a_score_that_separates_the_classes_has_no_slope():
    assert np.isnan(recalibrate(np.r_[0.1, 0.2, 0.8, 0.9], np.arange(4) >= 2)).all()


def test_quantile_bins_hold_equal_counts_and_keep_ties_together():
    assert np.bincount(quantile_bin(np.arange(90) / 90, 15)).tolist() == [6] * 15
    assert len(np.unique(quantile_bin(np.zeros(90), 15))) == 1


def test_reliability_gives_observed_over_expected_per_decile():
    score = np.repeat(np.arange(1, 11) / 20, 100)
    outcome = np.tile(np.arange(100) < 20, 10)
    found = reliability(score, outcome)
    assert found.count.tolist() == [100] * 10
    assert found.observed.tolist() == pytest.approx([0.2] * 10)
    assert found.observed_over_expected[0] == pytest.approx(0.2 / 0.05)


def test_errors_above_a_fifth_speak_only_of_those_rows():
    """Right below 20 %, twice too high above: 50 rows at .8 of which 20 happen."""
    score = np.r_[np.full(100, 0.1), np.full(50, 0.8)].astype(np.float32)
    outcome = np.r_[np.arange(100) < 10, np.arange(50) < 20]
    found = above(score, outcome)
    assert found["rows_above_20"].value == 50
    assert found["ece_above_20"].value == pytest.approx(0.4)
    assert found["intercept_above_20"].value == pytest.approx(-np.log(4.0) - np.log(1.5), abs=1e-4)
    assert np.isnan(found["slope_above_20"].value)


def test_a_slope_above_a_fifth_is_the_slope_of_those_rows():
    score, outcome = calibrated()
    high = score > 0.2
    found = above(score.astype(np.float32), outcome)
    assert found["slope_above_20"].value == pytest.approx(
        recalibrate(score[high], outcome[high])[1], abs=1e-4
    )


def test_without_a_prediction_above_a_fifth_there_is_no_error_there():
    found = above(np.full(10, 0.2, np.float32), np.arange(10) < 2)
    for name in COUNTS:
        assert found[name].value == 0
        assert found[name].interval() == (0.0, 0.0)
    assert np.isnan([found[name].value for name in ABOVE if name not in COUNTS]).all()


def test_people_above_a_fifth_are_counted_once_and_drawn_again_like_others():
    """Of three people one has two rows above, one has one, one has none."""
    subject, score = np.array([1, 1, 2, 2, 3]), np.array([0.3, 0.9, 0.1, 0.5, 0.2], np.float32)
    zeros = np.zeros(5, np.int32)
    rows = Predictions(subject, zeros, zeros, np.zeros(5, np.float32), score, score > 0.4)
    draws = draw_subjects(subject, 6, np.random.default_rng(0))
    found = estimates(COUNTS, rows, draws)
    assert [found[name].value for name in COUNTS] == [3, 2]
    assert (found["people_above_20"].replicates == draws.weight[:, :2].sum(1)).all()
    assert (found["rows_above_20"].replicates == draws.weight @ [2, 1, 0]).all()
