"""``healthfm-simulate`` from the command line to the files a researcher opens."""

from __future__ import annotations

import json

import pytest
import yaml

from healthfm_simulations.__main__ import main
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.sites import SimulatedSite

SMALL = [
    "data.cohort.subjects=160",
    "data.cohort.sites=4",
    "data.cohort.years=2",
    "tokens.k_min=5",
    "tokens.max_len=160",
    "federation.evaluate_every=2",
    "model=tiny",
    "model.width=16",
    "model.ffn=32",
    "rounds=2",
    "train.max_steps=2",
    "evaluation.bootstraps=20",
    "simulation.workers=1",
]


def rows_of(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    assert main([*SMALL, f"out={folder}"]) == 0
    return folder


def test_a_run_leaves_report_metrics_configuration_and_checkpoints(finished):
    page = (finished / "report.html").read_text()
    assert "<svg" in page
    shared = page[page.index("What the sites share") :].partition("</section>")[0]
    assert shared.count('<th scope="row"') == 4
    assert yaml.safe_load((finished / "config.yaml").read_text())["federation"]["rounds"] == 2
    checkpoints = finished / "runs" / "fold-0" / "federated" / "checkpoints"
    assert (checkpoints / "round-0002.safetensors").is_file()


def test_metrics_are_rows_of_the_four_arms_in_three_columns(finished):
    rows = rows_of(finished)
    keys = {"arm", "task", "subset", "metric", "value", "low", "high", "n_subjects"}
    assert all(keys <= set(row) for row in rows)
    arms = {row["arm"] for row in rows}
    assert {"federated", "fedavg", "local", "centralised", "ceiling", "linear"} <= arms
    pooled, federated = {"logistic_regression", "gradient_boosting"}, {"federated_regression"}
    assert pooled | federated | {"local_regression", "local_boosting", "reachable"} <= arms
    for baseline in pooled:
        assert f"federated - {baseline}" in arms
    assert {row["subset"] for row in rows} == {"overall", "repeat", "new_onset"}
    for row in rows:
        if row["arm"] == "federated" and row["metric"] == "auroc":
            assert row["low"] <= row["value"] <= row["high"]


def test_arms_score_the_very_same_people_and_are_compared_in_pairs(finished):
    rows = rows_of(finished)
    people = {row["n_subjects"] for row in rows if row["subset"] == "overall"}
    assert len(people) == 1
    differences = {row["arm"] for row in rows if " - " in row["arm"]}
    assert {"federated - fedavg", "federated - local", "federated - centralised"} <= differences


def test_resuming_a_finished_run_gives_the_same_numbers_and_takes_its_settings(finished, capsys):
    before, settings = rows_of(finished), (finished / "config.yaml").read_text()
    capsys.readouterr()
    assert main([f"out={finished}", "resume=true"]) == 0
    assert rows_of(finished) == before
    assert (finished / "config.yaml").read_text() == settings
    assert "160 people at 4 sites" in capsys.readouterr().out


def test_without_a_terminal_each_round_is_a_line(tmp_path, capsys):
    few = ["simulation.arms=[federated,local]", "simulation.workers=1"]
    assert main([*SMALL, *few, f"out={tmp_path / 'out'}"]) == 0
    said = capsys.readouterr().out.splitlines()
    for arm in ("federated", "local"):
        lines = [line for line in said if line.startswith(f"  fold-0/{arm}: round")]
        assert lines == [f"  fold-0/{arm}: round {number} of 2" for number in (1, 2)]


def test_several_seeds_are_told_as_means_with_an_interval_over_the_seeds(tmp_path, capsys):
    """The people of two seeds are others or the same: their number is a seed's, not a sum."""
    few = ["rounds=1", "simulation.replicates=2", "simulation.arms=[federated]"]
    assert main([*SMALL, *few, f"out={tmp_path / 'out'}"]) == 0
    rows = {row["metric"]: row for row in rows_of(tmp_path / "out") if row["arm"] == "federated"}
    each = [
        {row["metric"]: row for row in rows_of(tmp_path / "out" / f"seed-{i}")
         if row["arm"] == "federated" and row["subset"] == rows["auroc"]["subset"]}
        for i in (0, 1)
    ]  # fmt: skip
    first, second = (one["auroc"] for one in each)
    mean = (first["value"] + second["value"]) / 2
    assert rows["auroc"]["value"] == pytest.approx(mean)
    half = 12.7062 * abs(first["value"] - second["value"]) / 2
    assert rows["auroc"]["high"] == pytest.approx(mean + half, rel=1e-4)
    people = round((first["n_subjects"] + second["n_subjects"]) / 2)
    assert rows["auroc"]["n_subjects"] == people
    assert "2 seeds of" in capsys.readouterr().out
    assert "in each of 2 seeds" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("how", "alone"), [("federation=secure", True), ("privacy=distributed", False)]
)
def test_sums_of_sites_are_for_sites_together(tmp_path, capsys, how, alone):
    """Who trains alone has nobody to hide among: without noise it trains in the open."""
    few = ["rounds=1", "data.cohort.sites=3", "simulation.arms=[federated,local]"]
    assert main([*SMALL, *few, how, f"out={tmp_path / 'out'}"]) == 0
    arms = {row["arm"] for row in rows_of(tmp_path / "out")}
    assert {"federated", "linear"} <= arms
    assert ("local" in arms) is alone
    assert ("local: it has nobody to share noise with" in capsys.readouterr().out) is not alone


def test_a_folder_in_use_is_refused(finished, capsys):
    assert main([*SMALL, f"out={finished}"]) == 8
    assert "HF-704" in capsys.readouterr().err


def test_resuming_with_other_settings_is_refused(finished, capsys):
    assert main([*SMALL, f"out={finished}", "resume=true", "train.lr=0.5"]) == 8
    said = capsys.readouterr().err
    assert "HF-702" in said
    assert "train.lr was " in said
    assert "is 0.5 now" in said
    assert said.count(" now") == 1


@pytest.mark.parametrize(
    ("given", "code", "exit_code"),
    [
        (["rounds=2", "resume=true"], "HF-701", 8),
        (["train.learning_rate=1"], "HF-101", 2),
        (["train.lr=fast"], "HF-102", 2),
        (["data=nowhere"], "HF-104", 2),
        (["data=stores"], "HF-103", 2),
        (["data=physionet2012", "data.path=missing"], "HF-301", 4),
        (["data=cohort", "sites=region"], "HF-103", 2),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(
    given, code, exit_code, tmp_path, capsys
):
    folder = tmp_path / "out"
    assert main([*given, f"out={folder}"]) == exit_code
    said = capsys.readouterr().err.strip()
    assert code in said
    assert "Traceback" not in said
    assert not folder.exists()


def test_a_folder_that_was_there_before_stays_where_nothing_came_of_a_run(tmp_path, capsys):
    assert main(["data=physionet2012", "data.path=missing", f"out={tmp_path}"]) == 4
    assert list(tmp_path.iterdir()) == []


def test_every_site_is_left_out_once(tmp_path):
    from healthfm_core.config.compose import compose

    config = compose(["data=nhanes", "evaluation.folds=5"])
    sites = [SimulatedSite(f"s{i}", tmp_path, None) for i in range(10)]
    folds = cross_validation_folds(config, sites)
    assert sorted(site.name for fold in folds for site in fold.test) == [s.name for s in sites]
    for fold in folds:
        assert not {s.name for s in fold.test} & {s.name for s in fold.train}
        assert len(fold.train) + len(fold.test) == 10
