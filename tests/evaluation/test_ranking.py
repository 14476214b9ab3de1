"""Scores against scikit-learn's, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from healthfm_core.evaluation.metrics.ranking import auroc, average_precision, brier, macro
from healthfm_core.evaluation.predictions import Predictions


def scored(score: list[float], outcome: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(score, np.float32), np.array(outcome, np.bool_)


def test_three_pairs_of_four_in_order_are_an_auroc_of_three_quarters():
    assert auroc(*scored([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])) == 0.75


def test_average_precision_of_hits_at_ranks_one_and_three():
    assert average_precision(*scored([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])) == pytest.approx(5 / 6)


def test_a_constant_score_has_auroc_one_half_and_the_prevalence_as_precision():
    score, outcome = scored([0.3] * 5, [1, 0, 0, 0, 0])
    assert auroc(score, outcome) == 0.5
    assert average_precision(score, outcome) == pytest.approx(0.2)


def test_brier_is_the_mean_squared_error():
    assert brier(*scored([0.5, 1.0], [0, 1])) == 0.125


@pytest.mark.parametrize("outcome", [[1, 1], [0, 0]])
def test_without_both_classes_there_is_no_auroc(outcome):
    assert np.isnan(auroc(*scored([0.1, 0.2], outcome)))


def test_without_rows_there_is_no_score():
    empty = Predictions.empty()
    assert np.isnan(
        [f(empty.score, empty.outcome) for f in (auroc, average_precision, brier)]
    ).all()


rows = st.lists(
    st.tuples(st.integers(0, 8).map(lambda i: i / 8), st.booleans()), min_size=2, max_size=60
).filter(lambda found: 0 < sum(y for _, y in found) < len(found))


@given(rows)
def test_equals_scikit_learn_with_ties(found):
    score, outcome = scored([s for s, _ in found], [y for _, y in found])
    assert auroc(score, outcome) == pytest.approx(roc_auc_score(outcome, score))
    assert average_precision(score, outcome) == pytest.approx(
        average_precision_score(outcome, score)
    )
    assert brier(score, outcome) == pytest.approx(brier_score_loss(outcome, score))


@given(rows)
def test_auroc_of_the_opposite_score_is_its_complement(found):
    score, outcome = scored([s for s, _ in found], [y for _, y in found])
    assert auroc(score, outcome) + auroc(-score, outcome) == pytest.approx(1.0)


def test_the_macro_average_leaves_out_targets_with_few_positives():
    n = 40
    target = np.repeat([0, 1], n).astype(np.int32)
    outcome = np.r_[np.arange(n) < 10, np.arange(n) < 9].astype(np.bool_)
    score = np.r_[np.where(outcome[:n], 0.9, 0.1), np.full(n, 0.5)].astype(np.float32)
    zeros = np.zeros(2 * n, np.float32)
    people = np.arange(2 * n)
    found = Predictions(people, zeros.astype(np.int32), target, zeros, score, outcome)
    assert macro(found, "auroc") == 1.0
