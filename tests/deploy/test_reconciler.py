"""The reconciler submits what is wanted, again after a loss, and stops what is not wanted."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import pytest

from healthfm_core.config.run import RunConfig
from healthfm_core.errors import RunError
from healthfm_server.deploy.flower_superlink import FlowerRun
from healthfm_server.deploy.reconciler import RETRY_PAUSES_S, RunReconciler
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.study_folder import StudyFolder, StudySettings
from healthfm_server.run_folder.held_out_file import HeldOutTold
from tests.deploy.serving import Site


class FakeControl:
    """The SuperLink at its seam: runs by number, and what was asked of it."""

    def __init__(self) -> None:
        self.runs: dict[int, FlowerRun] = {}
        self.started: list[dict] = []
        self.stopped: list[int] = []

    def start(self, config, version):
        self.started.append(dict(config))
        number = len(self.started)
        self.runs[number] = FlowerRun(number, "running", "", "")
        return number

    def stop(self, run_id):
        self.stopped.append(run_id)
        self.end(run_id, "stopped")

    def live(self, folder):
        for number, config in enumerate(self.started, start=1):
            known = self.runs.get(number)
            if known and config["folder"] == folder and known.status != "finished":
                return number
        return None

    def run(self, run_id):
        return self.runs.get(run_id)

    def end(self, run_id, outcome, details=""):
        self.runs[run_id] = FlowerRun(run_id, "finished", outcome, details)


@pytest.fixture
def study(tmp_path):
    settings = StudySettings(study="demo", hosts=("127.0.0.1",))
    return StudyFolder.create(tmp_path / "study", settings)


@pytest.fixture
def control():
    return FakeControl()


@pytest.fixture
def reconciler(study, control):
    return RunReconciler(study, control, study.audit("reconciler"))


@pytest.fixture
def order(study):
    config = RunConfig.model_validate({"federation": {"rounds": 2}})
    return RunOrder.give(study.runs, "first", config, nodes=2)


def complete(order, round_):
    """Leave what a submission leaves after `round_` rounds."""
    folder = order.folder / "checkpoints"
    folder.mkdir(exist_ok=True)
    (order.folder / "config.json").write_text("{}")
    (folder / f"round-{round_:04d}.json").write_text("{}")


def test_a_run_that_a_killed_reconciler_submitted_and_did_not_note_is_taken_up(
    study, reconciler, control, order
):
    before = order.status()
    reconciler.look(0.0)
    order.note(before)  # the kill came between the two
    RunReconciler(study, control, study.audit("reconciler")).look(1.0)
    assert len(control.started) == 1
    assert order.status().flower_run == 1


def test_a_new_run_is_submitted_once(reconciler, control, order):
    reconciler.look(0.0)
    reconciler.look(1.0)
    assert [(c["resume"], c["nodes"]) for c in control.started] == [(False, 2)]
    assert order.status().state == "running"


def test_a_lost_run_goes_on_where_it_was(reconciler, control, order):
    reconciler.look(0.0)
    complete(order, 1)
    control.runs.clear()
    reconciler.look(100.0)
    assert order.status().state == "waiting"
    reconciler.look(100.0 + RETRY_PAUSES_S[0])
    assert [c["resume"] for c in control.started] == [False, True]


def test_without_progress_the_pauses_grow_and_never_end(reconciler, control, order):
    now, pauses = 0.0, []
    for _ in range(len(RETRY_PAUSES_S) + 2):
        reconciler.look(now)
        control.end(len(control.started), "failed")
        reconciler.look(now)
        pauses.append(order.status().not_before - now)
        now = order.status().not_before
    assert pauses == [*RETRY_PAUSES_S, RETRY_PAUSES_S[-1], RETRY_PAUSES_S[-1]]
    assert len(control.started) == len(pauses)


def test_a_failure_that_trying_again_does_not_cure_waits_for_a_person(reconciler, control, order):
    reconciler.look(0.0)
    sentence = "RunError[HF-703]: round-0001.json: it is damaged"
    (order.folder / "failure.json").write_text(json.dumps({"number": 703, "error": sentence}))
    control.end(1, "failed")
    reconciler.look(1.0)
    reconciler.look(1000.0)
    assert (order.status().state, order.status().reason) == ("failed", sentence)
    assert len(control.started) == 1
    order.want("running")
    reconciler.look(1001.0)
    assert len(control.started) == 2


def test_pause_stops_flowers_run_and_resume_submits_it_again(reconciler, control, order):
    reconciler.look(0.0)
    complete(order, 1)
    order.want("paused")
    reconciler.look(1.0)
    assert (control.stopped, order.status().state) == ([1], "paused")
    reconciler.look(100.0)
    assert len(control.started) == 1
    order.want("running")
    reconciler.look(101.0)
    assert [c["resume"] for c in control.started] == [False, True]


def test_a_run_with_all_its_rounds_is_finished_whatever_flower_says(reconciler, control, order):
    reconciler.look(0.0)
    complete(order, 2)
    assert not order.is_complete(), "the sites judge its model on their held-out people yet"
    HeldOutTold(2).save(order.folder)
    control.end(1, "failed", "lost at the last moment")
    reconciler.look(1.0)
    assert order.status() == replace(order.status(), state="finished", reason="")
    reconciler.look(1000.0)
    assert len(control.started) == 1


def test_each_change_is_in_the_audit_log_once(reconciler, study, control, order):
    for now in (0.0, 1.0, 2.0):
        reconciler.look(now)
    events = [row["event"] for row in study.audit("test").rows()]
    assert events == ["run running"]


def test_a_second_run_of_the_same_name_is_refused(study, order):
    with pytest.raises(RunError, match="HF-704"):
        RunOrder.give(study.runs, "first", RunConfig(), nodes=1)
    with pytest.raises(RunError, match="HF-722"):
        RunOrder.find(study.runs, "second")


def test_what_was_deleted_leaves_flowers_database_while_no_run_is_on(
    reconciler, study, order, monkeypatch
):
    asked = []
    monkeypatch.setattr("healthfm_server.deploy.reconciler.compact", asked.append)
    reconciler.look(1000.0)
    assert order.status().state == "running"
    assert asked == []
    order.want("paused")
    reconciler.look(1001.0)
    assert asked == [study.database]
    reconciler.look(1002.0)
    assert asked == [study.database]
    reconciler.look(1040.0)
    assert asked == [study.database] * 2


def test_a_database_in_use_is_left_for_later(reconciler, monkeypatch, caplog):
    def locked(path):
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("healthfm_server.deploy.reconciler.compact", locked)
    reconciler.look(1000.0)
    assert "stays in Flower's database for now (database is locked)" in caplog.text


def test_a_run_for_named_sites_is_for_their_nodes_alone(study, reconciler, control, tmp_path):
    config = RunConfig.model_validate({"federation": {"rounds": 2}})
    order = RunOrder.give(study.runs, "chosen", config, None, ["a", "c"])
    reconciler.look(0.0)
    assert "none of the sites that it is for is admitted" in order.status().reason
    for name in ("a", "b", "c"):
        Site(study, tmp_path / name, name)
    nodes = {name: site.node_id for name, site in study.sites.sites().items()}
    reconciler.look(1.0)
    (started,) = [one for one in control.started if one["folder"].endswith("chosen")]
    assert started["nodes"] == 2
    assert set(started["only"].split(",")) == {str(nodes["a"]), str(nodes["c"])}
    assert order.status().reason == ""
