from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.data.store.labels import check_labels, died_within, label_table
from healthfm_core.errors import StoreError


def test_who_dies_early_is_known_and_who_leaves_early_alive_is_not():
    months = np.array([10.0, 10.0, 60.0, 60.0, 61.0, np.nan])
    died = np.array([True, False, True, False, True, False])
    outcome, known = died_within(months, died, 60.0)
    assert outcome.tolist() == [True, False, True, False, False, False]
    assert known.tolist() == [True, False, True, True, True, False]


def test_two_labels_of_one_moment_are_refused():
    table = label_table(np.array([1, 1]), np.array([5, 5]), np.array([True, False]))
    with pytest.raises(StoreError, match="HF-204"):
        check_labels(table, np.array([1]), "labels/x")
    table = label_table(np.array([1, 1]), np.array([5, 6]), np.array([True, False]))
    assert check_labels(table, np.array([1]), "labels/x").num_rows == 2


def test_a_label_without_its_time_is_refused():
    table = label_table(np.array([1]), np.array([5]), np.array([True]))
    with pytest.raises(StoreError, match=r"HF-201.*prediction_time"):
        check_labels(table.drop_columns(["prediction_time"]), np.array([1]), "labels/x")
