"""What the coordinator reads: who is connected, what a run waits for, when nothing can happen."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import namedtuple
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Error, RecordDict

from healthfm_core.config.run import RunConfig
from healthfm_core.federation.input_overlap import (
    INPUTS,
    HeldAndShared,
    InputOverlap,
    SiteInputs,
)
from healthfm_core.flower.message_internals import ErrorCode
from healthfm_server.__main__ import main
from healthfm_server.clock import SYSTEM_CLOCK
from healthfm_server.deploy import study_status as status_module
from healthfm_server.deploy.reconciler import RunReconciler
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.site_calls import GONE_S, SILENT_S, STALE_S, CallTimes
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.deploy.study_status import run_status, status_lines, study_status
from healthfm_server.run_folder import run_waiting
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.run_folder.run_waiting import Waiting
from healthfm_server.study_setup import setup as before_round_1
from healthfm_server.study_setup.connected_nodes import wait_for_nodes
from healthfm_server.study_setup.setup import WAITS_FOR_APPROVAL, StudySetup
from healthfm_server.transport import exchange as exchange_module
from healthfm_server.transport.exchange import Exchange, Timeouts
from tests.deploy.serving import Site
from tests.deploy.test_reconciler import FakeControl, complete

NORTH, SOUTH = 7, 2**63 + 5
"""Numbers of two nodes; Flower's go up to 2⁶⁴."""
CONFIG = RunConfig.model_validate({"federation": {"rounds": 2}})


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setattr(run_waiting, "NOTED_S", 0.0)
    settings = StudySettings(study="demo", hosts=("127.0.0.1",))
    made = StudyFolder.create(tmp_path / "study", settings)
    for name, node in (("north", NORTH), ("south", SOUTH)):
        admit(made, tmp_path, name, node)
    return made


def admit(study, tmp_path, name, node):
    Site(study, tmp_path / name, name)
    rows = json.loads(study.sites.path.read_text())
    own = [row for row in rows if row["name"] == name]
    own[0]["node_id"] = node
    study.sites.path.write_text(json.dumps(rows))


@pytest.fixture
def order(study):
    made = RunOrder.give(study.runs, "first", CONFIG, None)
    made.note(replace(made.status(), state="running", flower_run=1, submissions=1))
    return made


def told(study):
    return list(status_lines(study_status(study)))


def test_while_sites_are_missing_the_status_names_them_and_says_waiting(study, order):
    class Grid:
        nodes = ([NORTH], [NORTH], [NORTH, SOUTH])
        looks = 0

        def get_node_ids(self):
            if self.looks == 2:  # what a person reads meanwhile
                self.read = run_status(order, study.sites.sites()), told(study)
            self.looks += 1
            return self.nodes[min(self.looks, 3) - 1]

    grid = Grid()
    nodes = wait_for_nodes(grid, 2, CONFIG.federation, 60.0, lambda: False, order.folder)
    (facts, lines), waits = grid.read, grid.read[0]["waits_for"]
    assert (nodes, facts["state"]) == ([NORTH, SOUTH], "waiting")
    assert (waits["what"], waits["sites"]) == ("connections", ["south"])
    assert "run first: waiting, 0 of 2 rounds" in lines
    assert any("1 of 2 sites are connected" in line and "for south" in line for line in lines)
    assert run_status(order, study.sites.sites())["waits_for"] is None


def test_while_nobody_has_approved_the_status_says_where_and_not_running(study, order, monkeypatch):
    monkeypatch.setattr(before_round_1, "FIRST_PAUSE_S", 0.01)
    read = []

    class Asked:
        """The exchange at its seam: at first both sites ask a person."""

        times = 0
        clock = SYSTEM_CLOCK

        def __call__(self, contents, kind, phase, timeouts):
            self.times += 1
            for node in contents:
                waits = self.times == 1 or (self.times == 2 and node == SOUTH)
                yield reply(node, WAITS_FOR_APPROVAL if waits else None)

        def rest(self, seconds):
            read.append(run_status(order, study.sites.sites()))

    setup = StudySetup(Asked(), RunStore(order.folder, 1), Timeouts(60.0, 60.0), None, None)
    replies = setup._replies([NORTH, SOUTH], "query.statistics", ConfigRecord, "statistics", 60.0)
    assert [r.metadata.src_node_id for r in replies] == [NORTH, SOUTH]
    assert [facts["waits_for"]["sites"] for facts in read] == [["north", "south"], ["south"]]
    assert {facts["state"] for facts in read} == {"waiting"}
    assert "until a person approves it at south" in read[1]["waits_for"]["sentence"]
    assert Waiting.read(order.folder) is None


def test_a_site_whose_connection_was_lost_just_now_is_asked_again(study, order, monkeypatch):
    """It was killed, and started again while a run that was paused began again."""
    monkeypatch.setattr(before_round_1, "FIRST_PAUSE_S", 0.01)
    read = []

    class Asked:
        """The exchange at its seam: south comes back for the third question."""

        times = 0
        clock = SYSTEM_CLOCK

        def __call__(self, contents, kind, phase, timeouts):
            self.times += 1
            for node in contents:
                is_away = node == SOUTH and self.times < 3
                yield reply(node, ErrorCode.NODE_UNAVAILABLE if is_away else None)

        def rest(self, seconds):
            read.append(run_status(order, study.sites.sites())["waits_for"])

    asked, store = Asked(), RunStore(order.folder, 1)
    setup = StudySetup(asked, store, Timeouts(60.0, 60.0), None, None)
    found = list(setup._replies([NORTH, SOUTH], "query.statistics", ConfigRecord, "prepare", 60.0))
    assert [r.metadata.src_node_id for r in found if not r.has_error()] == [NORTH, SOUTH]
    assert [(waits["what"], waits["sites"]) for waits in read] == [("connections", ["south"])] * 2
    assert [e["event"] for e in store.events()] == ["waits for a connection"]
    assert Waiting.read(order.folder) is None

    asked.times = -1000
    found = list(setup._replies([NORTH, SOUTH], "query.statistics", ConfigRecord, "prepare", 0.0))
    assert [r.has_error() for r in found] == [False, True], "gather_s says how long"


def reply(node, code):
    error = None if code is None else Error(code, "asks")
    metadata = SimpleNamespace(src_node_id=node)
    return SimpleNamespace(metadata=metadata, has_error=lambda: error is not None, error=error)


def test_in_a_round_the_status_names_who_has_not_answered(study, order, monkeypatch):
    read, came = [], iter([[], ["a"], [], ["b"]])

    class Grid:
        def push_messages(self, messages):
            return ["a", "b"]

    def pull(grid, most, folder):
        read.append(run_status(order, study.sites.sites())["waits_for"])
        for number in next(came):
            metadata = SimpleNamespace(reply_to_message_id=number)
            yield SimpleNamespace(metadata=metadata, has_error=lambda: False)

    monkeypatch.setattr(exchange_module, "replies", pull)
    monkeypatch.setattr(exchange_module, "Message", lambda *_, **__: None)  # it wants Flower's run
    exchange = Exchange(Grid(), order.folder)
    orders = {NORTH: RecordDict(), SOUTH: RecordDict()}
    assert len(list(exchange(orders, "train", "2", Timeouts(60.0, 60.0)))) == 2
    assert [waits and waits["sites"] for waits in read] == [
        None,
        ["north", "south"],
        ["south"],
        ["south"],
    ]
    assert read[-1]["sentence"].startswith("round 2: 1 of 2 sites answered; asked since ")
    assert run_status(order, study.sites.sites())["waits_for"] is None


def test_who_is_connected_now_is_told_by_heartbeats_not_by_the_last_connection(study):
    with closing(sqlite3.connect(study.database)) as opened, opened:
        opened.execute("CREATE TABLE node (node_id INTEGER, online_until REAL)")
        rows = [(NORTH, time.time() + 60), (SOUTH - 2**64, time.time() - 3600)]
        opened.executemany("INSERT INTO node VALUES (?, ?)", rows)
    north, south = study_status(study)["sites"]
    assert (north["connected"], south["connected"]) == (True, False)
    lines = told(study)
    assert any(line.startswith("site north:") and line.endswith(", connected") for line in lines)
    assert any("site south: admitted; ehr, not connected; last seen 2" in line for line in lines)


def test_a_site_that_has_not_called_for_seconds_is_not_told_as_connected(study):
    now = float(int(time.time()))
    with closing(sqlite3.connect(study.database)) as opened, opened:
        opened.execute("CREATE TABLE node (node_id INTEGER, online_until REAL)")
        rows = [(NORTH, now + 60), (SOUTH - 2**64, now + 60)]
        opened.executemany("INSERT INTO node VALUES (?, ?)", rows)
    study.process.mkdir()
    silent = {"north": now - 1.0, "south": now - SILENT_S - 1.0}

    def connected(at, began, sites, connections=None):
        study.calls.write_text(CallTimes(at, began, sites, connections).to_json())
        return [site["connected"] for site in study_status(study)["sites"]]

    assert connected(now, now - 60, silent) == [True, False]
    assert study_status(study)["sites"][1]["last_seen"].startswith(
        datetime.fromtimestamp(now - SILENT_S - 1.0, UTC).isoformat(timespec="seconds")
    )
    assert connected(now, now - 60, {}) == [False, False]
    assert connected(now, now - 1.0, {}) == [True, True]  # the gateway has just begun
    assert connected(now - STALE_S - 1, now - 60, {}) == [True, True]  # and has ended
    killed = {"north": now - 1.0, "south": now - GONE_S - 0.5}
    assert connected(now, now - 60, killed, ["north", "south"]) == [True, True]
    assert connected(now, now - 60, killed, ["north"]) == [True, False]
    assert connected(now, now - 60, killed, []) == [True, False]  # north may be between two calls


def test_a_database_that_is_busy_leaves_it_open_who_is_connected(study):
    study.database.write_bytes(b"this is no database" * 100)
    assert [site["connected"] for site in study_status(study)["sites"]] == [None, None]
    assert any("not known now" in line for line in told(study))


def test_a_full_disk_of_the_coordinator_is_an_alarm(study, monkeypatch):
    assert study_status(study)["alarms"] == []
    usage = namedtuple("usage", "total used free")(1, 1, 5 * 2**20)
    monkeypatch.setattr(status_module.shutil, "disk_usage", lambda path: usage)
    assert any(line.startswith("ALARM: the disk of") and "5 MiB" in line for line in told(study))


def test_no_run_is_told_as_running_while_the_study_is_down(study, order, capsys):
    assert main(["status", "--study", str(study.path)]) == 0
    printed = capsys.readouterr().out
    assert "run first: interrupted, 0 of 2 rounds" in printed
    assert "the study is down; start it with: healthfm-server up" in printed


def test_which_channels_and_scores_the_sites_share_is_told_to_people_and_programs(
    study, order, capsys
):
    has, lacks = HeldAndShared(2, 1), HeldAndShared(1, 0)
    sites = {
        "north": SiteInputs(has, {"genomics": has}, {"band": ("HR", "STEPS")}, {"band": ("HR",)}),
        "south": SiteInputs(lacks, {"genomics": lacks}, {"ring": ("SLEEP",)}, {}),
    }
    held = InputOverlap(HeldAndShared(3, 1), {"genomics": HeldAndShared(3, 1)}, sites)
    RunStore(order.folder, keep=1).note(INPUTS, **held.to_event())
    lines = told(study)
    assert "  Wearable channels: 1 of the study's 3 at more than one site" in lines
    assert "  Scores: 1 of 3 at more than one site; fewest of these at south, 0" in lines
    assert main(["status", "--study", str(study.path), "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["inputs"].pop("said") == [line.strip() for line in lines if " at more than" in line]
    assert InputOverlap.from_event(run["inputs"]) == held


def test_a_run_that_tells_nothing_of_them_has_a_status(study, order):
    assert run_status(order, study.sites.sites())["inputs"] is None
    assert not [line for line in told(study) if " at more than" in line]


def test_why_a_try_failed_stays_told_until_the_next_has_come_further(study, order):
    control = FakeControl()
    order.note(replace(order.status(), state="waiting", flower_run=0, submissions=0))
    reconciler = RunReconciler(study, control, study.audit("reconciler"))
    reconciler.look(0.0)
    sentence = "ProtocolError[HF-403]: prepare: 0 of 2 sites gave a usable answer (HF-505: site)"
    (order.folder / "failure.json").write_text(json.dumps({"number": 403, "error": sentence}))
    control.end(1, "failed")
    reconciler.look(1.0)
    reconciler.look(100.0)
    reconciler.look(101.0)
    assert order.status().state == "running"
    assert f"  the last try ended: {sentence}" in told(study)
    complete(order, 1)
    reconciler.look(102.0)
    assert order.status().reason == ""


def test_a_run_ordered_before_admissions_waits_for_all_that_are_admitted_by_then(tmp_path):
    settings = StudySettings(study="demo", hosts=("127.0.0.1",))
    study = StudyFolder.create(tmp_path / "study", settings)
    order = RunOrder.give(study.runs, "first", CONFIG, None)
    control = FakeControl()
    reconciler = RunReconciler(study, control, study.audit("reconciler"))
    reconciler.look(0.0)
    assert (control.started, order.status().state) == ([], "waiting")
    assert "no site is admitted yet" in order.status().reason
    for name in ("north", "south", "west"):
        Site(study, tmp_path / name, name)
    study.sites.revoke("west")
    reconciler.look(1.0)
    assert [config["nodes"] for config in control.started] == [2]
    assert order.status().reason == ""
