"""The API: every state of the status, by role, described as it is."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from healthfm_core.local_page.page_access import API
from healthfm_server.deploy.run_orders import ACTIONS
from healthfm_server.run_folder.held_out_file import HeldOutTold
from tests.page.made_study import (
    NODES,
    add_round,
    make_study,
    order_run,
    served_page,
    set_online,
    wait_for,
    write_report,
)


@pytest.fixture
def study(tmp_path):
    return make_study(tmp_path / "study")


@pytest.fixture
def page(study):
    with served_page(study) as asking:
        yield asking


@pytest.fixture
def viewer(study, page):
    return page.bearer(study.tokens.add("ada", "viewer"))


def read(client, path):
    answer = client.get(f"{API}{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def paths(description):
    reads = [path for path, methods in description["paths"].items() if "get" in methods]
    return [path.replace("{name}", "first") for path in reads]


def test_without_a_token_nothing_is_told_and_the_wrong_role_is_refused(study, page, viewer):
    write_report(study, order_run(study))
    enrolment = page.bearer(study.tokens.add("eve", "enrolment"))
    for path in paths(read(viewer, "/openapi.json")):
        told = page.client().get(path)
        assert (told.status_code, set(told.json())) == (401, {"error"})
        assert page.bearer("x" * 43).get(path).status_code == 401
        assert enrolment.get(path).status_code == 403
        assert viewer.get(path).status_code == 200, path
    refused = study.audit("test").rows("page refused")
    assert {(row["reason"], row["token"]) for row in refused} == {
        ("no token, or one that is not known", ""),
        ("wrong role", "eve"),
    }


def test_a_revoked_token_is_refused_from_the_next_call_on(study, viewer):
    assert viewer.get(f"{API}/status").status_code == 200
    study.tokens.revoke("ada")
    assert viewer.get(f"{API}/status").status_code == 401


def test_the_status_is_the_one_that_the_command_prints(study, viewer):
    order_run(study)
    add_round(order_run(study, "second"), 1, late=["west"], alarms=["Something: 3"])
    command = [sys.executable, "-m", "healthfm_server", "status", "--json", "--study"]
    done = subprocess.run([*command, study.path], capture_output=True, text=True, check=True)
    printed, told = json.loads(done.stdout), read(viewer, "/status")
    assert told == printed
    assert told["runs"][1]["alarms"] == ["Something: 3"]
    assert told["runs"][1]["set_aside"] == {"west": "it did not answer in time"}
    assert read(viewer, "/runs") == {"runs": told["runs"]}
    assert read(viewer, "/sites") == {"sites": told["sites"], "requests": []}


@pytest.mark.parametrize("wanted", sorted(ACTIONS.values()))
def test_each_state_of_a_run_is_told(study, page, viewer, wanted, monkeypatch):
    monkeypatch.setattr(page.page.view, "processes", running)
    order = order_run(study)
    for state in ("waiting", "running", "paused", "stopped", "finished", "failed"):
        order.want(wanted)
        order.note(order.status().__class__(state=state, flower_run=9, reason="because"))
        told = read(viewer, "/runs/first")
        assert (told["state"], told["wanted"], told["reason"]) == (state, wanted, "because")


def running():
    return dict.fromkeys(("superlink", "executor", "reconciler", "gateway"), "RUNNING pid 1")


def test_a_run_of_a_study_that_is_down_is_told_as_interrupted(study, viewer):
    order_run(study)
    told = read(viewer, "/runs/first")
    assert (told["state"], told["waits_for"], told["sites_now"]) == ("interrupted", None, [])


def test_in_a_round_each_site_is_told_as_what_it_does(study, page, viewer, monkeypatch):
    monkeypatch.setattr(page.page.view, "processes", running)
    order = order_run(study)
    add_round(order, 1)
    everybody = sorted(NODES.values())
    wait_for(order, "answers", "2", everybody, everybody)
    set_online(study, connected=["north", "south"], taken=["north"])
    assert states(read(viewer, "/runs/first")) == {
        "north": "computing",
        "south": "asked",
        "west": "offline",
    }
    set_online(study, connected=NODES, taken=NODES)
    wait_for(order, "answers", "2", [NODES["west"]], everybody)
    store = add_round(order, 2)
    store.note("set aside", round=1, site="north", reason="of another round")
    store.note("set aside", round=2, site="south", reason="its update is not finite")
    told = read(viewer, "/runs/first")
    assert (told["open_round"], told["waits_for"]["sites"]) == (2, ["west"])
    assert states(told) == {"north": "answered", "south": "refused", "west": "computing"}
    reasons = {one["site"]: one["reason"] for one in told["sites_now"]}
    assert reasons == {"north": "", "south": "its update is not finite", "west": ""}


def states(told):
    return {one["site"]: one["state"] for one in told["sites_now"]}


def test_before_round_1_who_is_waited_for_is_told(study, page, viewer, monkeypatch):
    monkeypatch.setattr(page.page.view, "processes", running)
    order = order_run(study)
    set_online(study, connected=["north", "west"])
    wait_for(order, "connections", "start", [NODES["north"]])
    assert states(read(viewer, "/runs/first")) == {
        "north": "connected",
        "south": "offline",
        "west": "offline",
    }
    wait_for(order, "approval", "statistics", [NODES["south"], NODES["west"]], NODES.values())
    told = read(viewer, "/runs/first")
    assert states(told) == {
        "north": "answered",
        "south": "offline",
        "west": "waits for approval",
    }
    assert told["waits_for"]["what"] == "approval"


def test_history_is_told_a_page_at_a_time(study, viewer):
    order = order_run(study)
    for number in (1, 2, 3):
        add_round(order, number)
    rows = read(viewer, "/runs/first/history?after=1&limit=1")["rows"]
    assert [row["round"] for row in rows] == [2]
    assert rows[0]["site_metrics"]["north"]["tuning_auroc"] == 0.51
    assert len(read(viewer, "/runs/first/history")["rows"]) == 3


def test_a_history_that_begins_anew_is_read_anew(study, viewer):
    order = order_run(study)
    for number in (1, 2, 3):
        store = add_round(order, number)
    assert len(read(viewer, "/runs/first/history")["rows"]) == 3
    store.forget_after(1)
    rows = read(viewer, "/runs/first/history")["rows"]
    assert [row["round"] for row in rows] == [1]


def test_the_log_is_told_from_its_end(study, viewer):
    for number in range(5):
        study.audit("test").note("made up", {"number": number})
    first = read(viewer, "/log?limit=2")["lines"]
    assert [row["number"] for row in first] == [4, 3]
    second = read(viewer, f"/log?limit=2&before={first[-1]['n']}")["lines"]
    assert [row["number"] for row in second] == [2, 1]


def test_what_is_not_there_or_no_number_is_said_with_its_code(study, viewer):
    missing = viewer.get(f"{API}/runs/none/history")
    assert (missing.status_code, missing.json()["code"]) == (404, "HF-722")
    wrong = viewer.get(f"{API}/log?limit=many")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "HF-831")


def test_answers_are_as_they_are_described(study, page, viewer, monkeypatch):
    monkeypatch.setattr(page.page.view, "processes", running)
    order = order_run(study)
    add_round(order, 1)
    everybody = sorted(NODES.values())
    wait_for(order, "answers", "2", everybody, everybody)
    set_online(study, connected=NODES)
    shown = {"auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9, "n_subjects": 40.0}
    told = {f"held_out/overall/{name}": value for name, value in shown.items()}
    HeldOutTold(1, tuple(everybody), dict.fromkeys(everybody, told)).save(order.folder)
    write_report(study, order)
    described = read(viewer, "/openapi.json")
    assert described["openapi"] == "3.1.0"
    reads = {path: m for path, m in described["paths"].items() if "get" in m}
    assert len(reads) == 10
    for path, methods in reads.items():
        told = viewer.get(path.replace("{name}", "first")).json()
        answer = methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert list(misfits(told, answer, described["components"]["schemas"], path)) == []


def misfits(value, schema, schemas, where):
    """Yield what of a value is not as a schema of ours says."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if "oneOf" in schema:
        found = [list(misfits(value, one, schemas, where)) for one in schema["oneOf"]]
        yield from [] if [] in found else [f"{where}: none fits"]
        return
    if "enum" in schema:
        yield from [] if value in schema["enum"] else [f"{where}: {value}"]
        return
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer"}
    kind = names.get(type(value), "null" if value is None else "number")
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if kind not in kinds and not (kind == "integer" and "number" in kinds):
        yield f"{where}: {kind}"
        return
    if "properties" in schema:
        if set(value) != set(schema["properties"]) or set(schema["required"]) != set(value):
            yield f"{where}: {sorted(set(value) ^ set(schema['properties']))}"
        for name, of in schema["properties"].items():
            yield from misfits(value[name], of, schemas, f"{where}.{name}")
    elif isinstance(schema.get("additionalProperties"), dict):
        for name, one in value.items():
            yield from misfits(one, schema["additionalProperties"], schemas, f"{where}.{name}")
    elif kind == "array":
        for one in value:
            yield from misfits(one, schema["items"], schemas, where)
