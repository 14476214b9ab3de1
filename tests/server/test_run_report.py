"""The report of a run of real sites: who took part, what they told, what it cost, and when."""

from __future__ import annotations

import html
import json
import math
import os
import re

import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_server.__main__ import main
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.run_report.run_report import RunReport
from healthfm_simulations.engine import run_federation
from tests import three_numbers as small
from tests.page.made_study import EVIL, add_round, judged, make_study, order_run


def read(page):
    """Return what a person reads of a page, with single spaces."""
    body = page.read_text("utf-8").partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def report(study, order, folder):
    """Return a report, what a person reads of it, and what the API would answer."""
    found = RunReport.of(study, order)
    page = found.write(folder)
    return found, read(page), json.loads((folder / "report.json").read_text())


def test_who_took_part_is_counted_over_the_rounds_with_the_reasons(tmp_path):
    study = make_study(tmp_path / "study")
    order = order_run(study)
    add_round(order, 1)
    add_round(order, 2, late=["west"])
    store = add_round(order, 3, refused=["south"], late=["west"])
    store.note("set aside", round=3, site="south", reason="its update is not finite")
    _, said, values = report(study, order, tmp_path / "out")
    rows = {row["site"]: row for row in values["participation"]}
    counts = [rows["south"][name] for name in ("asked", "answered", "late", "refused")]
    assert counts == [3, 2, 0, 1]
    assert [rows["west"][name] for name in ("asked", "answered", "late")] == [3, 1, 2]
    assert rows["north"]["reasons"] == []
    assert "south was left out: its update is not finite" in said
    assert "north 3 3 0 0 0 3.0 s" in said


def test_a_report_of_a_run_that_goes_on_says_of_when_it_is_and_never_reloads_by_itself(tmp_path):
    """Whoever reads it with a screen reader would be thrown back to its beginning."""
    study = make_study(tmp_path / "study")
    order = order_run(study)
    add_round(order, 1)
    found, said, values = report(study, order, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"As of {found.context.as_of}. Load the page again" in page
    assert re.fullmatch(r"2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d UTC", found.context.as_of)
    assert "http-equiv" not in page
    assert "This run goes on: 3 sites, 1 of 5 rounds so far." in said
    assert values["is_final"] is False
    order.note(order.status().__class__(state="finished"))
    found, said, values = report(study, order, tmp_path / "out")
    assert "Load the page again" not in (tmp_path / "out" / "report.html").read_text()
    assert (values["is_final"], found.context.as_of) == (True, None)


def test_epsilon_is_told_by_site_where_a_site_tells_it_and_of_the_sums(tmp_path):
    study = make_study(tmp_path / "study")
    order = order_run(study)
    add_round(order, 1)
    path = order.folder / "history.jsonl"
    row = json.loads(path.read_text())
    row["site_metrics"]["north"]["privacy_epsilon"] = 1.25
    row["privacy"] = {"rho": 0.1, "epsilon": 2.5, "delta": 1e-5, "unit": "subject"}
    path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "round": 2}) + "\n")
    _, said, values = report(study, order, tmp_path / "out")
    told = {row["site"]: row["epsilon"] for row in values["participation"]}
    assert told == {"north": 1.25, "south": None, "west": None}
    assert "north 2 2 0 0 0 3.0 s 1.25" in said
    assert "ε 2.50 at δ 1e-05, unit: one subject" in said


def test_alarms_stand_with_the_round_in_which_they_began(tmp_path):
    study = make_study(tmp_path / "study")
    order = order_run(study)
    add_round(order, 1).note("alarm", round=1, reason="encoder of genomics: 0.01 of the gradient")
    _, said, values = report(study, order, tmp_path / "out")
    assert values["alarms"] == ["Round 1: encoder of genomics: 0.01 of the gradient"]
    assert "Round 1: encoder of genomics" in said


def test_names_stay_text(tmp_path):
    study = make_study(tmp_path / "study", {EVIL: 7, "south": 9})
    order = order_run(study)
    store = add_round(order, 1, asked=(EVIL, "south"), late=[EVIL])
    store.note("set aside", round=1, site=EVIL, reason=EVIL)
    store.note("prepared", site=EVIL, modalities=["ehr"], subjects=40, coverage={})
    RunReport.of(study, order).write(tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<script>" not in text
    assert html.escape(EVIL) in text


def test_a_real_run_is_told_with_its_fingerprints_and_few_people_withheld(tmp_path):
    study = make_study(tmp_path / "study")
    order = RunOrder.give(study.runs, "first", small.config(), None)
    apps = small.apps({"b": "nan"}, round_=2)
    sites = small.three_sites(tmp_path / "sites")
    run_federation(small.config(), sites, order.folder, apps=apps)
    order.note(order.status().__class__(state="finished"))
    found, said, values = report(study, order, tmp_path / "out")
    agreed = RunStore.open(order.folder).study()
    assert agreed is not None
    facts = {fact["what"]: fact["value"] for fact in values["facts"]}
    assert facts["SHA-256 of what the sites agreed on"] == agreed.hash
    marker = json.loads((order.folder / "checkpoints" / "round-0003.json").read_text())
    digest = marker["sha256"]["round-0003.safetensors"]
    assert facts["SHA-256 of the model after round 3"] == digest
    assert facts["state"] == "finished, 3 of 3 rounds"
    assert {row["site"]: row["answered"] for row in values["participation"]} == {
        "a": 3,
        "b": 2,
        "c": 3,
    }
    few = [site for site in found.context.sites if 0 < site.n_subjects < 20]
    assert few, "the small sites have fewer people than are told"
    assert f"{few[0].name} < 20" in said


def test_the_command_says_where_it_is_and_nothing_is_half_written(tmp_path, capsys):
    study = make_study(tmp_path / "study")
    order = order_run(study)
    add_round(order, 1)
    assert main(["report", "first", "--study", str(study.path)]) == 0
    folder = order.folder / "report"
    assert f"report: {folder / 'report.html'}" in capsys.readouterr().out
    names = sorted(os.listdir(folder))
    assert names == ["metrics.json", "report.html", "report.json"], "no draft is left"


@pytest.mark.parametrize("name", ["none", EVIL])
def test_a_run_that_is_not_there_is_said(tmp_path, capsys, name):
    study = make_study(tmp_path / "study")
    assert main(["report", name, "--study", str(study.path)])
    said = capsys.readouterr().err
    assert "HF-722" in said
    assert "Traceback" not in said


def test_held_out_people_are_told_site_by_site_and_over_all_sites(tmp_path):
    study = make_study(tmp_path / "study")
    order = order_run(study)
    add_round(order, 1)
    judged(order, north=(0.8, 300.0, 0.0), south=(0.6, 100.0, 0.0))
    _, said, values = report(study, order, tmp_path / "out")
    rows = {(row["arm"], row["subset"], row["metric"]): row for row in values["held_out"]}
    mean = rows["federated", "overall", "auroc"]
    assert mean["value"] == pytest.approx(0.75)
    half = math.hypot(0.1 * 0.75, 0.1 * 0.25)
    assert (mean["low"], mean["high"]) == pytest.approx((0.75 - half, 0.75 + half))
    assert mean["n_subjects"] == 400
    assert "west told nothing of its held-out people: it did not answer in time" in said
    assert "Site by site" in said
    assert "Withheld by sex: M" in said
    assert "of the model after round 3" in said
    assert values["site_held_out"]["south"][0]["value"] == pytest.approx(0.6)
    assert "Who gains by joining" not in said


def test_who_gains_is_drawn_of_the_sites_that_trained_a_model_of_their_own(tmp_path):
    study = make_study(tmp_path / "study")
    order = order_run(study)
    add_round(order, 1)
    judged(order, north=(0.8, 300.0, 0.05), south=(0.6, 100.0, 0.0))
    _, said, values = report(study, order, tmp_path / "out")
    assert "Who gains by joining" in said
    arms = {row["arm"] for row in values["held_out"]}
    assert arms == {"federated", "federated - local"}, "the two models' people would be others"
    judged(order, north=(0.8, 300.0, 0.05), south=(0.6, 100.0, -0.02))
    _, said, values = report(study, order, tmp_path / "out")
    gain = next(row for row in values["held_out"] if row["arm"] == "federated - local")
    assert gain["value"] == pytest.approx(0.75 * 0.05 - 0.25 * 0.02)
    assert {row["arm"] for row in values["held_out"]} == {
        "federated",
        "local",
        "federated - local",
    }
