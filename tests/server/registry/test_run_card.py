"""The model card's part on the run: who took part, how it did, what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_core.federation.protocol import VERSION, Study
from healthfm_server.registry.run_card import run_card
from healthfm_server.run_folder.durable_files import append_row
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import run_federation
from tests import three_numbers as small


def row(number: int, answered: list[str], **metrics: float) -> dict[str, Any]:
    return {"round": number, "answered": answered, "metrics": metrics, "site_metrics": {}}


def card(folder: Path, rows: list[dict[str, Any]], round_: int) -> str:
    """Return what the card says of a run folder with these rows of history."""
    config = small.config(rounds=9)
    store = RunStore.create(folder / "first", config)
    for site in ("north", "south"):
        store.note("prepared", site=site, modalities=["ehr"], subjects=40)
    study = Study(VERSION, "0123abcd", config, small.VOCABULARY, ("ehr",))
    for each in rows:
        append_row(store.folder / "history.jsonl", each)
    return "\n".join(run_card(store, study, round_))


def test_sites_stand_by_name_with_the_rounds_that_are_in_the_model(tmp_path: Path) -> None:
    rows = [row(1, ["north", "south"]), row(2, ["north"]), row(3, ["north", "south"])]
    said = card(tmp_path, rows, 2)
    assert "Run `first`, id `0123abcd`: 2 rounds are in this\nmodel, of 9" in said
    assert "| north | ehr | 2 of 2 |" in said
    assert "| south | ehr | 1 of 2 |" in said
    assert "No site told how the model does" in said
    assert "ε" not in said


def test_metrics_are_of_the_model_that_the_sites_received(tmp_path: Path) -> None:
    """Row r scores the model after round r - 1; the last model of a run is not scored."""
    told = [(0.5, 100.0), (0.7, 130.0), (0.6, 110.0)]
    rows = [
        row(n, ["north"], tuning_auroc=auroc, tuning_subjects=people, tuning_evil=1.0)
        for n, (auroc, people) in enumerate(told, 1)
    ]
    said = card(tmp_path, rows, 3)
    assert "| tuning_auroc | not scored | 0.600 (round 2) | 0.700 (round 1) |" in said
    assert "| tuning_subjects | not scored | 110 |  |" in said
    assert "tuning_evil" not in said, "no name that a site invented is on the card"


def test_epsilon_is_what_the_rounds_in_the_model_cost(tmp_path: Path) -> None:
    rows = [row(1, ["north"]), row(2, ["north"]), row(3, ["north"])]
    for each in rows:
        spent = float(each["round"])
        each["privacy"] = {"rho": 0.1, "epsilon": spent, "delta": 1e-5, "unit": "subject"}
        each["site_metrics"] = {"north": {"privacy_epsilon": spent / 2}}
    said = card(tmp_path, rows, 2)
    assert "ε 2.00 at δ 1e-05,\nunit: one subject." in said
    assert "Largest ε that a site told of its people in these rounds: 1.00." in said


@pytest.mark.parametrize("round_", [1, 2])
def test_a_real_run_has_its_sites_on_the_card(tmp_path: Path, round_: int) -> None:
    apps = small.apps({"b": "nan"}, round_=2)
    run_federation(small.config(), small.three_sites(tmp_path / "sites"), tmp_path / "r", apps=apps)
    store = RunStore.open(tmp_path / "r")
    study = store.study()
    assert study is not None
    said = "\n".join(run_card(store, study, round_))
    assert f"| b | ehr | 1 of {round_} |" in said, "its second update was refused"
    assert f"| a | ehr, wearable | {round_} of {round_} |" in said
