"""The missing-modality matrix and the curves of corrupted wearing."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.evaluation.analyses.missing_inputs import (
    corrupted,
    corruption_rows,
    missing_matrix,
)
from healthfm_core.evaluation.metrics.ranking import auroc
from healthfm_core.evaluation.predictions import Predictions


def predictions(noise: float, subjects: int = 80) -> Predictions:
    rng = np.random.default_rng(0)
    n = subjects * 4
    outcome = rng.random(n) < 0.4
    score = outcome + noise * rng.normal(size=n)
    zeros = np.zeros(n, np.int32)
    return Predictions(
        np.repeat(np.arange(subjects), 4), zeros, zeros, np.tile([0, 0, 1, 1], subjects).astype(
            np.float32
        ), (1 / (1 + np.exp(-score))).astype(np.float32), outcome,
    )  # fmt: skip


def given(**changes):
    return {"metric": "auroc", "bootstraps": 30, "rng": np.random.default_rng(0)} | changes


def test_a_cell_per_pair_with_its_interval():
    cells = {
        ("ehr+wearable", "ehr+wearable"): predictions(0.5),
        ("ehr+wearable", "ehr"): predictions(1.0),
        ("ehr", "ehr"): predictions(1.0),
    }
    both, fewer, trained_on_fewer = missing_matrix(cells, **given())
    full = cells["ehr+wearable", "ehr+wearable"]
    assert (both.trained, both.given, both.n_subjects) == ("ehr+wearable", "ehr+wearable", 80)
    assert both.value == pytest.approx(auroc(full.score, full.outcome))
    assert both.low < both.value < both.high
    assert both.value > fewer.value
    assert (fewer.low, fewer.high) == (trained_on_fewer.low, trained_on_fewer.high)


def test_new_onsets_alone_may_be_asked_for():
    (cell,) = missing_matrix({("ehr", "ehr"): predictions(1.0)}, **given(subset="new_onset"))
    (whole,) = missing_matrix({("ehr", "ehr"): predictions(1.0)}, **given())
    assert cell.value != whole.value


def test_a_point_per_share_and_kind():
    curves = {("federated", "noised", share): predictions(0.5 + share) for share in (0.0, 0.5, 1.0)}
    found = corruption_rows(curves, **given())
    assert [row.share for row in found] == [0.0, 0.5, 1.0]
    assert found[0].value > found[1].value > found[2].value
    assert {row.kind for row in found} == {"noised"}


WEARING = np.random.default_rng(1).normal(size=(400, 5, 2)).astype(np.float32)
MASK = np.random.default_rng(2).random(WEARING.shape) < 0.8
WEARING[~MASK] = 0


def spoilt(kind, share, **changes):
    return corrupted(WEARING, MASK, kind=kind, share=share, rng=np.random.default_rng(3), **changes)


def test_removed_hours_are_unobserved_and_zero_and_others_are_untouched():
    values, mask = spoilt("removed", 0.3)
    gone = ~mask.any((1, 2))
    assert gone.mean() == pytest.approx(0.3, abs=0.06)
    assert (values[~mask] == 0).all()
    assert (values[~gone] == WEARING[~gone]).all()
    assert (mask[~gone] == MASK[~gone]).all()


def test_noise_falls_on_what_was_observed_in_the_chosen_hours():
    values, mask = spoilt("noised", 0.5, noise_std=2.0)
    assert (mask == MASK).all()
    assert (values[~MASK] == 0).all()
    added = (values - WEARING)[MASK & (values != WEARING)]
    assert added.std() == pytest.approx(2.0, rel=0.1)
    assert (values != WEARING).any((1, 2)).mean() == pytest.approx(0.5, abs=0.06)
    assert values.dtype == np.float32


def test_a_smaller_share_is_part_of_a_larger_one():
    small, large = spoilt("noised", 0.2)[0], spoilt("noised", 0.6)[0]
    hit = small != WEARING
    assert (small[hit] == large[hit]).all()
    fewer, more = spoilt("removed", 0.2)[1], spoilt("removed", 0.6)[1]
    assert (more <= fewer).all()


def test_nothing_and_everything_are_shares_and_more_is_not():
    assert (spoilt("removed", 0.0)[1] == MASK).all()
    assert not spoilt("removed", 1.0)[1].any()
    assert (spoilt("noised", 0.0)[0] == WEARING).all()
    with pytest.raises(ValueError, match="0 to 1"):
        spoilt("removed", 1.1)
