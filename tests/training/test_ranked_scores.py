"""AUROC and average precision of scores that are sorted a part at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from healthfm_core.arrays import Bool, Float32
from healthfm_core.training.ranked_scores import RankedScores


def scored(kind: str, size: int = 5000) -> tuple[Float32, Bool]:
    rng = np.random.default_rng(3)
    outcome = rng.random(size) < 0.1
    score = (rng.normal(size=size) + outcome).astype(np.float32)
    if kind == "ties":
        score = np.round(score).astype(np.float32)
    if kind == "zeros":
        score = np.where(rng.random(size) < 0.5, np.float32(0.0), np.float32(-0.0))
    return score, outcome


@pytest.mark.parametrize("kind", ["distinct", "ties", "zeros"])
@pytest.mark.parametrize("at_once", [1 << 20, 700, 1])
def test_they_are_those_of_all_scores_at_once(kind: str, at_once: int):
    score, outcome = scored(kind, size=60 if at_once == 1 else 5000)
    with RankedScores(at_once) as ranked:
        for low in range(0, len(score), 37):
            ranked.add(score[low : low + 37], outcome[low : low + 37])
        found = ranked.metrics()
    assert found["auroc"] == pytest.approx(roc_auc_score(outcome, score), rel=1e-12)
    wanted = average_precision_score(outcome, score)
    assert found["average_precision"] == pytest.approx(wanted, rel=1e-12)


def test_nothing_is_told_without_a_case_or_without_another():
    for outcome in (np.zeros(3, np.bool_), np.ones(3, np.bool_), np.zeros(0, np.bool_)):
        with RankedScores() as ranked:
            ranked.add(np.arange(len(outcome), dtype=np.float32), outcome)
            assert ranked.metrics() == {}


def test_a_few_scores_touch_no_disk_and_many_leave_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    score, outcome = scored("distinct")
    with RankedScores() as few:
        few.add(score, outcome)
        few.metrics()
        assert not list(tmp_path.iterdir())
    with RankedScores(at_once=1000) as many:
        many.add(score, outcome)
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        many.metrics()
    assert not list(tmp_path.iterdir())
