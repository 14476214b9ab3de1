"""The ledger of scorings: the same test people, counted run by run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from healthfm_core.config.compose import compose
from healthfm_core.errors import RunError
from healthfm_simulations.__main__ import main
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.scoring.scoring_ledger import fingerprint, ledger_of, note_scoring
from healthfm_simulations.sites import prepare_sites
from tests.simulations.test_simulate_command import SMALL

FEW = [*SMALL, "rounds=1", "simulation.arms=[federated]", "data.cohort.subjects=120"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    config = compose(FEW)
    sites = prepare_sites(config, tmp_path_factory.mktemp("sites"))
    return config, sites, cross_validation_folds(config, sites)


def test_another_run_counts_and_the_same_run_resumed_does_not(cohort, tmp_path: Path) -> None:
    config, _, folds = cohort
    runs = tmp_path / "runs"
    assert "scored once" in note_scoring(config, folds, runs / "a")
    assert "scored once" in note_scoring(config, folds, runs / "a")
    assert "scored by 2 runs" in note_scoring(config, folds, runs / "deeper" / "b")
    assert "scored by 3 runs" in note_scoring(config, folds, runs / "c")
    tried_again = config.model_copy(update={"seed": config.seed + 1})
    assert "scored by 4 runs" in note_scoring(tried_again, folds, runs / "c")
    assert ledger_of(runs / "deeper" / "b") == runs / "test-scorings.json"


def test_who_is_scored_and_on_what_decides_and_no_setting_does(cohort) -> None:
    config, sites, folds = cohort
    same = compose([*FEW, "train.lr=0.5", "model.width=32", "rounds=3", "seed=7"])
    assert fingerprint(same, folds) == fingerprint(config, folds)
    by_site = compose([*FEW, "evaluation.protocol=leave_sites_out", "evaluation.folds=2"])
    others = cross_validation_folds(by_site, sites)
    assert fingerprint(by_site, others) != fingerprint(config, folds)
    task = compose([*FEW, "evaluation.task=death", "train.objectives.label=1"])
    assert fingerprint(task, folds) != fingerprint(config, folds)


def test_the_ledger_names_nobody(cohort, tmp_path: Path) -> None:
    config, sites, folds = cohort
    note_scoring(config, folds, tmp_path / "runs" / "a")
    text = (tmp_path / "runs" / "test-scorings.json").read_text()
    assert [len(key) for key in json.loads(text)] == [16]
    subjects = [str(s) for site in sites for s in site.view().subjects() if s > 99_999]
    assert not [subject for subject in subjects if subject in text]


def test_a_damaged_ledger_is_told(cohort, tmp_path: Path) -> None:
    config, _, folds = cohort
    (tmp_path / "test-scorings.json").write_text("[1]")
    with pytest.raises(RunError, match=r"HF-703.*ledger"):
        note_scoring(config, folds, tmp_path / "a")


def test_two_runs_say_it_in_terminal_and_report(tmp_path: Path, capsys) -> None:
    for name, said in (("a", "scored once on this machine"), ("b", "scored by 2 runs")):
        out = tmp_path / "runs" / name
        assert main([*FEW, f"out={out}"]) == 0
        assert said in " ".join(capsys.readouterr().out.split())
        assert said in (out / "report.html").read_text()
