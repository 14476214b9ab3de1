"""Flat predictions and their subsets."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.evaluation.predictions import Predictions


def two_queries() -> Predictions:
    return Predictions.of_queries(
        subject=np.array([7, 9]),
        site=np.array([0, 1], np.int32),
        score=np.array([[0.1, 0.2], [0.3, 0.4]], np.float32),
        outcome=np.array([[True, False], [False, True]]),
        repeats=np.array([[0, 2], [1, 0]], np.float32),
    )


def test_a_query_of_two_targets_gives_two_rows():
    found = two_queries()
    assert found.subject.tolist() == [7, 7, 9, 9]
    assert found.target.tolist() == [0, 1, 0, 1]
    assert found.n_subjects == 2


def test_new_onsets_are_codes_never_seen_and_repeats_the_rest():
    found = two_queries()
    assert found.subset("new_onset").score.tolist() == pytest.approx([0.1, 0.4])
    assert found.subset("repeat").score.tolist() == pytest.approx([0.2, 0.3])
    assert len(found.subset("overall")) == 4


def test_concatenation_keeps_the_order_and_of_nothing_is_empty():
    found = two_queries()
    assert Predictions.concatenate([found, found]).subject.tolist() == [7, 7, 9, 9] * 2
    assert len(Predictions.concatenate([])) == 0


def test_columns_of_different_length_are_refused():
    found = two_queries()
    with pytest.raises(ValueError, match="differ in length"):
        Predictions(
            found.subject[:1], found.site, found.target, found.repeats, found.score, found.outcome
        )
