"""What Prometheus reads of a study: its own parser understands it, and nobody is counted in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_metrics import WAITS, study_metrics
from healthfm_server.page.openapi import WAIT
from tests.page.made_study import (
    EVIL,
    NODES,
    add_round,
    make_study,
    order_run,
    set_online,
    wait_for,
)

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"


def figures(study):
    """Return name and labels → value, as Prometheus reads them."""
    return parsed(study_metrics(study).decode())


def parsed(text):
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    found = {(s.name, *sorted(s.labels.items())): s.value for s in samples}
    assert len(found) == len(samples), "no series is there twice"
    return found


@pytest.fixture
def study(tmp_path):
    study = make_study(tmp_path / "study")
    order = order_run(study)
    add_round(order, 1)
    add_round(order, 2, late=("west",), alarms=("something",))
    return study


def test_it_says_how_the_sites_and_the_runs_stand(study):
    set_online(study, ("north",))
    order = RunOrder.find(study.runs, "first")
    wait_for(order, "answers", "3", [NODES["south"], NODES["west"]])
    found = figures(study)
    first = ("run", "first")
    assert found["healthfm_site_connected", ("site", "north")] == 1
    assert found["healthfm_site_connected", ("site", "west")] == 0
    assert found["healthfm_run_rounds_done", first] == 2
    assert found["healthfm_run_rounds", first] == 5
    assert found["healthfm_run_answered_sites", first] == 2
    assert found["healthfm_run_set_aside_sites", first] == 1
    assert found["healthfm_run_alarms", first] == 1
    assert found["healthfm_run_state", first, ("state", "running")] == 1
    assert found["healthfm_run_state", first, ("state", "paused")] == 0
    assert found["healthfm_run_waiting_sites", first, ("what", "answers")] == 2
    assert found["healthfm_run_metric", ("metric", "tuning_auroc"), first] == pytest.approx(0.52)
    assert found[("healthfm_disk_free_bytes",)] > 0
    ends = study.certificate_ends().timestamp()
    assert found[("healthfm_certificate_end_timestamp_seconds",)] == ends


def test_counts_of_people_what_a_site_told_and_what_is_no_number_are_left_out(study):
    path = study.runs / "first" / "history.jsonl"
    row = json.loads(path.read_text().splitlines()[-1])
    row["metrics"] |= {"tuning_subjects": 17.0, "loss_codes": float("nan")}
    row["site_metrics"]["north"]["tuning_auroc"] = 0.7654321
    path.write_text(json.dumps(row) + "\n")
    text = study_metrics(study).decode()
    assert "subjects" not in text
    assert "loss_codes" not in text
    assert "765432" not in text
    assert "tuning_auroc" in text


def test_a_name_that_nobody_may_have_is_text_all_the_same(tmp_path):
    study = make_study(tmp_path / "study", {f'{EVIL}"\n\\': 7})
    set_online(study, ())
    found = figures(study)
    assert found["healthfm_site_connected", ("site", f'{EVIL}"\n\\')] == 0


def test_what_a_run_may_wait_for_is_what_the_api_says():
    assert set(WAITS) == set(WAIT["properties"]["what"]["enum"])


def test_the_dashboard_asks_for_series_that_there_are(study):
    set_online(study, ("north",))
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    named = {name for one in asked for name in re.findall(r"healthfm_\w+", one)}
    known = {name for name, *_ in figures(study)}
    assert len(asked) > 8
    assert named <= known
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
