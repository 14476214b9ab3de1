"""A curve to a site's own rates: fitted on some people, judged on others, refused on too few."""

from __future__ import annotations

import json
import shutil
import stat

import numpy as np
import pyarrow.parquet as pq
import pytest

from healthfm_client.__main__ import main
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.splits import split_table
from healthfm_core.data.store.store_writer import add_labels
from healthfm_core.errors import IngestError
from healthfm_core.predict.prediction_task import PredictionTask
from healthfm_core.predict.site_calibration import CalibrationCurve, Judged, SiteCalibration


def drawn(n: int, seed: int):
    """The model's numbers, and what happens at rates with log odds 2·x − 1 of its own x."""
    rng = np.random.default_rng(seed)
    x = rng.normal(-1.0, 1.0, n)
    outcome = rng.random(n) < 1 / (1 + np.exp(-(2 * x - 1)))
    return (1 / (1 + np.exp(-x))).astype(np.float32), outcome


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_curve_undoes_what_is_known_to_be_wrong(method):
    curve = CalibrationCurve.fit(method, *drawn(20_000, 0))
    if method == "platt":
        assert (curve.intercept, curve.slope) == pytest.approx((-1.0, 2.0), abs=0.1)
    score, outcome = drawn(4000, 1)
    judged = Judged.of(curve, np.arange(4000), score, outcome, np.random.default_rng(0))
    assert judged.brier_before[0] == pytest.approx(((score - outcome) ** 2).mean(), rel=1e-5)
    assert judged.brier_after[0] == pytest.approx(((curve(score) - outcome) ** 2).mean())
    assert judged.brier_change[2] < 0
    assert judged.ece_after[0] < 0.03 < judged.ece_before[1]
    assert (np.diff(curve(np.sort(score))) >= 0).all()
    assert np.isnan(curve(np.array([np.nan], np.float32))).all()


@pytest.mark.parametrize(("method", "fewest"), [("platt", 20), ("isotonic", 100)])
def test_too_few_of_either_kind_are_refused(method, fewest):
    score, outcome = np.linspace(0.1, 0.9, 400), np.arange(400) % 2 == 0
    cases, rest = np.flatnonzero(outcome), np.flatnonzero(~outcome)
    for a, b in ((cases, rest), (rest, cases)):
        rows = np.concatenate([a[: fewest - 1], b])
        with pytest.raises(IngestError, match=f"HF-352.*fewer than {fewest}"):
            CalibrationCurve.fit(method, score[rows], outcome[rows])
    rows = np.concatenate([cases[-fewest:], rest])
    CalibrationCurve.fit(method, score[rows], outcome[rows])


def test_outcomes_that_run_against_the_model_are_refused():
    score, outcome = drawn(1000, 0)
    with pytest.raises(IngestError, match=r"HF-352.*rarer"):
        CalibrationCurve.fit("platt", score, ~outcome)


@pytest.fixture
def own(labelled, tmp_path):
    """A site with outcomes that rise with the model's number; half tuning, half held out."""
    model, store = labelled
    folder = tmp_path / "store"
    shutil.copytree(store.path, folder)
    who = store.subjects()
    split = np.where(np.arange(len(who)) % 2, "tuning", "held_out")
    pq.write_table(split_table(who, split), folder / "metadata" / "subject_splits.parquet")
    at = store.labels("soon")
    found = model.label_probabilities(store, at=at)
    rank = np.argsort(np.argsort(found.probability[:, 0])) / len(found.subject_id)
    happened = np.random.default_rng(0).random(len(rank)) < rank
    table = label_table(found.subject_id, found.time_us, happened)
    add_labels(folder, "own", table)
    return model, folder, str(store.path.parent / "model")


def test_a_site_calibrates_and_then_predicts_by_it(own, tmp_path, capsys):
    model, folder, at = own
    out, risks = tmp_path / "calibration.json", tmp_path / "risks.parquet"
    call = ["predict", at, str(folder), "--task=soon"]
    assert main([*call, "--calibrate=own", f"--out={out}"]) == 0
    said = capsys.readouterr().out
    assert "platt on 160 rows of tuning people" in said
    assert "on 160 rows of held-out people" in said
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert main([*call, "--at=own", f"--calibration={out}", f"--out={risks}"]) == 0
    assert "by platt on 160 rows of its own" in capsys.readouterr().out
    table = pq.read_table(risks)
    text = out.read_text()
    calibration = SiteCalibration.from_json(text, model, PredictionTask.of(model, "soon"), "it")
    raw = table["uncalibrated_probability"].to_numpy().astype(np.float32)
    told = table["predicted_boolean_probability"].to_numpy()
    assert np.array_equal(told, calibration.curve(raw))
    assert not np.array_equal(told, raw)
    split = dict(pq.read_table(folder / "metadata" / "subject_splits.parquet").to_pydict().items())
    tuning = {w for w, s in zip(split["subject_id"], split["split"], strict=True) if s == "tuning"}
    rows = np.isin(table["subject_id"].to_numpy(), list(tuning))
    happened = table["boolean_value"].to_numpy(zero_copy_only=False).astype(bool)
    assert calibration.curve == CalibrationCurve.fit("platt", raw[rows], happened[rows])


def test_a_calibration_of_something_else_is_refused(own, tmp_path, capsys):
    _, folder, at = own
    out, risks = tmp_path / "calibration.json", tmp_path / "risks.parquet"
    call = ["predict", at, str(folder), "--task=soon"]
    assert main([*call, "--calibrate=own", f"--out={out}"]) == 0
    raw = json.loads(out.read_text())
    changed = {
        "another model": raw | {"study_sha256": "0"},
        "another task": raw | {"task": "probability of the label later"},
        "cannot be read": {"format": 2},
    }
    for seen, content in changed.items():
        other = tmp_path / "other.json"
        other.write_text(json.dumps(content))
        assert main([*call, f"--calibration={other}", f"--out={risks}"]) == 4
        error = capsys.readouterr().err
        assert "HF-353" in error
        assert seen in error
    assert main([*call, f"--calibration={tmp_path / 'none'}", f"--out={risks}"]) == 4
    assert "HF-353" in capsys.readouterr().err
    both = ["--calibrate=own", "--at=own", f"--out={risks}"]
    assert main([*call, *both]) == 4
    assert "HF-354" in capsys.readouterr().err
    assert not risks.exists()
