"""Every local run leaves what each arm said of each test person, and whoever reads it gets the
report's own figures."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import duckdb
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.evaluation import Predictions
from healthfm_simulations.__main__ import main
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.arm_metrics import CollectedPredictions
from healthfm_simulations.scoring.predictions_file import PREDICTIONS_FILE, PredictionsFile
from healthfm_simulations.sites import SimulatedSite
from tests.simulations.labelled_stores import NOW_US, TASK, write_hospitals
from tests.training.test_loop import SETTINGS

QUICK = ["rounds=1", "federation.evaluate_every=0", "evaluation.bootstraps=5"]
QUICK += ["train.max_steps=2", "simulation.workers=1"]
LABEL = [f"evaluation.task={TASK}", "train.objectives.label=1", "train.objectives.next_visit=0"]
SMALL = ["model=tiny", "model.width=16", "model.ffn=16", "tokens.k_min=2"]


def run(out: Path, *overrides: str) -> Path:
    assert main([*overrides, *QUICK, f"out={out}"]) == 0
    return out / PREDICTIONS_FILE


def metrics(out: Path) -> dict[tuple[str, str, str], float]:
    rows = json.loads((out / "metrics.json").read_text())
    return {(row["arm"], row["subset"], row["metric"]): row["value"] for row in rows}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Three hospitals, and a run over them that is also shown single modalities."""
    stores = write_hospitals(tmp_path_factory.mktemp("hospitals"))
    out = tmp_path_factory.mktemp("run") / "out"
    shown = ["evaluation.inputs=[ehr,wearable]"]
    named = f"data.stores=[{','.join(map(str, stores))}]"
    run(out, "data=stores", named, *SMALL, *LABEL, *shown)
    return stores, out


def test_the_report_s_figures_come_out_of_the_file(labelled):
    _, out = labelled
    told = metrics(out)
    rows = duckdb.sql(
        "select arm, inputs, list(score), list(outcome) "
        f"from '{out / PREDICTIONS_FILE}' group by all"
    ).fetchall()
    found = {(arm, inputs): roc_auc_score(outcome, score) for arm, inputs, score, outcome in rows}
    assert {arm for arm, inputs in found if inputs == "all"} >= {
        *("federated", "local", "centralised"),
        *("logistic_regression", "gradient_boosting", "federated_regression", "local_boosting"),
    }
    for (arm, inputs), auroc in found.items():
        subset = "overall" if inputs == "all" else inputs
        assert told[arm, subset, "auroc"] == pytest.approx(auroc, abs=1e-6), (arm, inputs)


def test_a_row_names_its_site_person_and_time(labelled):
    stores, out = labelled
    rows = duckdb.sql(
        "select site::varchar, list(distinct subject_id order by subject_id), "
        "list(distinct epoch_us(prediction_time)), list(distinct fold), count(target) "
        f"from '{out / PREDICTIONS_FILE}' where arm = 'gradient_boosting' "
        "group by site order by site"
    ).fetchall()
    assert [site for site, *_ in rows] == ["north", "south", "west"]
    for (_, people, times, folds, targets), path in zip(rows, stores, strict=True):
        assert people == SiteStore.open(path).subjects("held_out").tolist()
        assert (times, folds, targets) == ([NOW_US], ["fold-0"], 0)
    outcomes = duckdb.sql(
        f"select count(*) from '{out / PREDICTIONS_FILE}' p "
        f"join '{stores[0]}/labels/{TASK}.parquet' l using (subject_id, prediction_time) "
        "where p.outcome <> l.boolean_value"
    ).fetchall()
    assert outcomes == [(0,)]


def test_it_is_its_owner_s_alone(labelled):
    _, out = labelled
    assert stat.S_IMODE((out / PREDICTIONS_FILE).stat().st_mode) == 0o600


def test_next_visits_have_a_row_for_each_target_and_time(tmp_path):
    file = run(tmp_path / "out", *SETTINGS, "simulation.arms=[federated]")
    told = metrics(tmp_path / "out")
    targets, times = duckdb.sql(
        "select list(distinct target order by target), count(distinct prediction_time) "
        f"from '{file}'"
    ).fetchall()[0]
    assert len(targets) > 5
    assert all(name.startswith("DX//") or "//" in name or name.isupper() for name in targets)
    assert times > 5
    per_arm = duckdb.sql(f"select arm, count(*) from '{file}' group by arm").fetchall()
    assert len({count for _, count in per_arm}) == 1, "every arm and baseline answers the same rows"
    assert {"federated", "ceiling", "marginal", "logistic_regression"} <= {a for a, _ in per_arm}
    assert ("federated", "overall", "auroc") in told


def test_folds_and_single_sites_models_are_told_apart(labelled, tmp_path):
    stores, _ = labelled
    named = f"data.stores=[{','.join(map(str, stores))}]"
    protocol = ["evaluation.protocol=leave_sites_out", "evaluation.folds=3"]
    arms = ["simulation.arms=[federated,local]", "simulation.baselines=false"]
    file = run(tmp_path / "out", "data=stores", named, *SMALL, *LABEL, *protocol, *arms)
    rows = duckdb.sql(
        f"select fold, arm, count(distinct site) from '{file}' group by all"
    ).fetchall()
    by_fold = {fold: {arm for f, arm, _ in rows if f == fold} for fold, _, _ in rows}
    assert len(by_fold) == 3
    assert all(count == 1 for *_, count in rows), "a fold tests the one site that it leaves out"
    assert all(len(arms) == 3 for arms in by_fold.values()), "federated, and a model of each other"
    everyone = sum(len(SiteStore.open(path).subjects()) for path in stores)
    people = duckdb.sql(f"select count(distinct subject_id) from '{file}' where arm='federated'")
    assert people.fetchall() == [(everyone,)]


def test_a_run_that_ends_early_leaves_no_half_a_file(labelled, tmp_path, monkeypatch):
    stores, _ = labelled

    def fails(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("healthfm_simulations.simulation_run.collect", fails)
    named = f"data.stores=[{','.join(map(str, stores))}]"
    out = tmp_path / "out"
    assert main(["data=stores", named, *SMALL, *LABEL, *QUICK, f"out={out}"]) != 0
    assert not list(out.glob("*redictions*"))
    assert not list(out.glob(".predictions*"))


def test_a_time_that_is_not_known_is_null(labelled, tmp_path):
    (store, *_), _ = labelled
    one = np.array([[0.5]], np.float32)
    said = Predictions.of_queries(np.array([3]), np.zeros(1, np.int32), one, one > 0, one)
    collected = CollectedPredictions()
    collected.add("all", "arm", said)
    site = SimulatedSite("north", store, None)
    with PredictionsFile(tmp_path, [site]) as file:
        file.add(collected, CrossValidationFold("fold-0", (site,), (site,), None))
    (row,) = duckdb.sql(f"select * from '{tmp_path / PREDICTIONS_FILE}'").fetchall()
    whom = int(SiteStore.open(store).subjects()[3])
    assert row == ("north", whom, None, "fold-0", "arm", "all", None, 0.5, True)
