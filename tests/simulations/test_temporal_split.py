"""The last months of every record held out: what is cut, who trains on it, what is asked."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from healthfm_core.config import CohortConfig
from healthfm_core.config.compose import compose
from healthfm_core.data.store.events import ids, times_us
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_core.trained import TrainedModel
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.__main__ import main
from healthfm_simulations.cohort import generate, write_sites
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.partition import RecordCuts, early_store
from healthfm_simulations.scoring.model_scores import Model, judged_targets, score
from healthfm_simulations.secondary.forecasts import forecast
from healthfm_simulations.sites import prepare_sites
from tests.simulations.test_simulate_command import SMALL

DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("late")
    config = CohortConfig(subjects=60, sites=1, without_wearable=0, without_genomics=0)
    (whole,) = write_sites(generate(config, 0), folder)
    return SiteStore.open(whole), SiteStore.open(early_store(whole, folder / "early", 182.5))


def last_times(store) -> dict[int, int]:
    rows = store.events().filter(pc.is_valid(store.events()["time"]))
    subject, time = ids(rows), times_us(rows)
    return {int(s): int(time[subject == s].max()) for s in np.unique(subject)}


def test_nothing_of_the_last_months_is_left_and_nothing_before_them_is_gone(stores):
    whole, early = stores
    cut = {s: t - round(182.5 * DAY_US) for s, t in last_times(whole).items()}
    rows = whole.events()
    kept = [t is None or t <= cut[s] for s, t in zip(ids(rows).tolist(),
            rows["time"].cast(pa.int64()).to_pylist(), strict=True)]  # fmt: skip
    assert 0.5 < np.mean(kept) < 0.98
    assert early.events().num_rows == sum(kept)
    assert all(time <= cut[s] for s, time in last_times(early).items())


def test_wearing_that_ended_late_is_gone_and_scores_and_splits_stay(stores):
    whole, early = stores
    cut = {s: t - round(182.5 * DAY_US) for s, t in last_times(whole).items()}
    rows = early.wearable()
    length = [len(v) for v in rows["value"].to_pylist()]
    end = times_us(rows, "start") + (np.array(length) * 900e6).astype(np.int64)
    assert all(e <= cut[s] for s, e in zip(ids(rows).tolist(), end.tolist(), strict=True))
    assert 0 < rows.num_rows < whole.wearable().num_rows
    assert early.modalities == whole.modalities
    for split in ("train", "tuning", "held_out"):
        assert early.subjects(split).tolist() == whole.subjects(split).tolist()
    early.check()


def test_a_time_is_early_up_to_the_cut_itself():
    cuts = RecordCuts(np.array([3, 7]), np.array([100, 200]))
    found = cuts.is_early(np.array([3, 3, 7, 9]), np.array([100, 101, 150, 999]))
    assert found.tolist() == [True, False, True, True]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    given = [*SMALL, "rounds=1", "evaluation.protocol=late", "simulation.arms=[federated,local]"]
    given += ["train.objectives.time_to_event=1", "evaluation.horizons_days=[180]"]
    assert main([*given, f"out={folder}"]) == 0
    return folder, compose([*given, f"out={folder}", "resume=true"])


def test_the_arms_train_on_the_early_part_and_are_asked_about_the_late_one(finished):
    folder, config = finished
    (fold,) = cross_validation_folds(config, prepare_sites(config, folder / "sites"))
    assert {site.path.parent.name for site in fold.train} == {"early"}
    assert {site.path.parent.name for site in fold.test} == {"sites"}
    assert not fold.tests_newcomers
    assert fold.trained_as(fold.test[1]) == fold.train[1]
    rows = json.loads((folder / "metrics.json").read_text())
    asked = [row for row in rows if row["task"] == "next_visit" and row["subset"] == "overall"]
    people = {row["n_subjects"] for row in asked}
    assert len(people) == 1
    assert 40 < people.pop() <= 160  # everybody with a visit to ask about, not a split of them
    assert "federated - local" in {row["arm"] for row in rows}


def test_no_query_lies_before_the_cut(finished):
    folder, config = finished
    sites = prepare_sites(config, folder / "sites")
    (fold,) = cross_validation_folds(config, sites)
    run = RunStore.open(folder / "runs" / "fold-0" / "federated")
    scored = score(Model(run.study(), run.checkpoints.load().parameters), fold, sites, config)
    for index, site in enumerate(sites):
        here = scored.site == index
        cuts = RecordCuts.of(SiteStore.open(site.path), 182.5)
        assert here.any()
        assert not cuts.is_early(scored.subject_id[here], scored.time_us[here]).any()


def test_a_forecast_is_asked_for_once_where_the_held_out_end_begins(finished):
    """Asked as of the last visit, the time up to the cut would count as without events."""
    folder, config = finished
    sites = prepare_sites(config, folder / "sites")
    (fold,) = cross_validation_folds(config, sites)
    run = RunStore.open(folder / "runs" / "fold-0" / "federated")
    study, parameters = run.study(), run.checkpoints.load().parameters
    model = Model(study, parameters, with_site_intercepts=True)
    found = forecast(model, fold, sites, config)
    followed = found.followed
    assert len(np.unique(followed.subject)) == len(followed.subject) > 40
    np.testing.assert_allclose(followed.followed_days, 182.5, atol=0.01)
    assert 0 < (followed.next_days <= 180).mean() < 1
    judged = judged_targets(study.vocabulary.targets, config)
    for index, site in enumerate(sites):
        store = SiteStore.open(site.path)
        cuts = RecordCuts.of(store, 182.5)
        at = pa.table({"subject_id": cuts.subject_id, "prediction_time": cuts.time_us})
        at = at.set_column(1, "prediction_time", at["prediction_time"].cast(pa.timestamp("us")))
        asked = TrainedModel(study, parameters, 1).risks_at(store, horizon_days=180.0, at=at)
        risks = {p.tobytes() for p in np.round(asked.probability[:, judged], 4)}
        here = followed.site == index
        mine = [p.tobytes() for p in np.round(found.risks["hazard"][0][here], 4)]
        assert sum(row in risks for row in mine) >= 0.9 * len(mine) > 0  # a digit may be rounded
    tasks = {row["task"] for row in json.loads((folder / "metrics.json").read_text())}
    assert "within_180_days" in tasks


@pytest.mark.parametrize(
    "wrong",
    [
        ["evaluation.task=in_hospital_mortality"],
        ["evaluation.horizons_days=[180,183]"],
        ["evaluation.horizons_days=[180]", "evaluation.horizon_queries=one_per_person"],
        ["evaluation.horizons_days=[180]", "evaluation.estimators=[hazard,query]"],
        ["evaluation.probes_days=[90]"],
        ["evaluation.physiology=true"],
    ],
)
def test_what_cannot_be_asked_of_a_record_s_end_is_refused(wrong):
    given = ["train.objectives.time_to_event=1", "evaluation.protocol=late"]
    with pytest.raises(ConfigError, match="HF-103"):
        compose([*given, *wrong])
