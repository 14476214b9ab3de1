"""The round loop against a grid that is late, forgetful, doubled, or lies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message

import tests.quiet_flower
from healthfm_client.app import make_app as make_client_app
from healthfm_core.errors import HealthFMError, ProtocolError, RunError
from healthfm_core.federation import protocol
from healthfm_server.app import make_app as make_server_app
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.study_setup.registered_sites import read_site
from healthfm_simulations.engine import NodeSpec, run_federation
from healthfm_simulations.engine.inprocess import InProcessGrid
from tests import three_numbers as small
from tests.virtual_clock import virtual_clock

assert tests.quiet_flower


class FaultyGrid(InProcessGrid):
    """Real apps behind a connection that does to a reply what a test says.

    Attributes:
        fault: (node, kind, nth message of that kind) → what happens to the reply.
    """

    def __init__(self, nodes: list[NodeSpec], fault: dict[tuple[int, str, int], str]) -> None:
        super().__init__(make_client_app(small.ClientWork()), nodes)
        self.fault = fault
        self.seen: dict[tuple[int, str], int] = {}
        self.held: list[Message] = []
        self.late: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; what was held back in the round before is on its way now."""
        self.late, self.held = self.held, []
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Deliver the replies, those of an earlier round that came late first."""
        late, self.late = self.late, []
        yield from late
        for reply in super().pull_messages(message_ids):
            node, kind = reply.metadata.src_node_id, reply.metadata.message_type
            count = self.seen[node, kind] = self.seen.get((node, kind), 0) + 1
            match self.fault.get((node, kind, count)):
                case "late":
                    self.held.append(reply)
                case "lost":
                    pass
                case "twice":
                    yield reply
                    yield reply
                case "error":
                    error = Message(Error(8), reply_to=_question(reply))
                    error.metadata.__dict__["_reply_to_message_id"] = (
                        reply.metadata.reply_to_message_id
                    )
                    yield error
                case "gone":
                    asked = _question(reply).metadata
                    asked.__dict__["_message_id"] = reply.metadata.reply_to_message_id
                    yield create_message_error_unavailable_res_message(asked, "node_unavail")
                case "empty":
                    reply.content = RecordDict()
                    yield reply
                case "text":
                    reply.content[protocol.WEIGHTS] = ConfigRecord({"backbone": "many"})
                    yield reply
                case "list":
                    reply.content[protocol.WEIGHTS] = MetricRecord({"backbone": [1.0, 2.0]})
                    yield reply
                case _:
                    yield reply


def _question(reply: Message) -> Message:
    return Message(RecordDict(), reply.metadata.src_node_id, reply.metadata.message_type)


def _run(grid: InProcessGrid, folder: Path, nodes: int = 3, **federation: Any) -> RunStore:
    config = small.config(**{"deadline_s": 60.0, "keep_checkpoints": 9, **federation})
    run_config = {"config": config.model_dump_json(), "folder": str(folder), "nodes": nodes}
    app = make_server_app(small.ServerWork())
    with virtual_clock():
        app(grid, Context(1, 0, {}, RecordDict(), run_config))
    return RunStore(folder, keep=9)


@pytest.mark.parametrize("fault", ["lost", "error", "empty", "text", "list"])
def test_a_reply_that_does_not_come_or_is_none_costs_the_round_that_site_only(
    tmp_path: Path, fault: str
) -> None:
    grid = FaultyGrid(small.three_sites(tmp_path), {(2, protocol.TRAIN, 2): fault})
    store = _run(grid, tmp_path / "run", ttl_s=30.0)
    assert [row["answered"] for row in store.history()] == [
        ["a", "b", "c"],
        ["a", "c"],
        list("abc"),
    ]
    assert store.history()[1]["set_aside"]["b"]


def test_a_node_that_the_superlink_lost_is_named_with_the_reason(tmp_path: Path) -> None:
    """The SuperLink answers in its own name; that was dropped, and the site said to be late."""
    grid = FaultyGrid(small.three_sites(tmp_path), {(2, protocol.TRAIN, 1): "gone"})
    first = _run(grid, tmp_path / "run").history()[0]
    assert first["answered"] == ["a", "c"]
    assert "Node Unavailable" in first["set_aside"]["b"]


def test_an_alarm_is_in_every_row_and_on_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Layer 0 forgets everything: its longest half-life is {} days."
    monkeypatch.setattr(
        "healthfm_server.round_history.alarms", lambda rows: [said.format(rows[-1]["round"])]
    )
    store = _run(FaultyGrid(small.three_sites(tmp_path), {}), tmp_path / "run")
    assert [row["alarms"] for row in store.history()] == [[said.format(n)] for n in (1, 2, 3)]
    noted = [event for event in store.events() if event["event"] == "alarm"]
    assert [(event["round"], event["reason"]) for event in noted] == [(1, said.format(1))]


def test_a_reply_that_comes_twice_counts_once(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path)
    store = _run(FaultyGrid(nodes, {(1, protocol.TRAIN, 1): "twice"}), tmp_path / "run")
    whole = _run(FaultyGrid(nodes, {}), tmp_path / "whole")
    one, other = store.checkpoints.load(), whole.checkpoints.load()
    assert one is not None
    assert other is not None
    assert one.parameters["backbone.w"].tobytes() == other.parameters["backbone.w"].tobytes()


def test_a_straggler_is_left_out_until_its_work_comes_or_expires(tmp_path: Path) -> None:
    grid = FaultyGrid(small.three_sites(tmp_path), {(2, protocol.TRAIN, 1): "lost"})
    store = _run(grid, tmp_path / "run", ttl_s=3600.0)
    reasons = [row["set_aside"].get("b") for row in store.history()]
    assert reasons == ["it did not answer in time", "it was busy", "it was busy"]


def test_a_late_reply_frees_the_straggler_and_is_not_folded(tmp_path: Path) -> None:
    grid = FaultyGrid(small.three_sites(tmp_path), {(2, protocol.TRAIN, 1): "late"})
    store = _run(grid, tmp_path / "run", ttl_s=3600.0, rounds=4)
    answered = ["b" in row["answered"] for row in store.history()]
    assert answered == [False, False, True, True]
    for row in store.history():
        assert row["groups"]["backbone"]["sites"] == len(row["answered"])


def test_a_site_that_forgot_the_study_gets_it_again(tmp_path: Path) -> None:
    from healthfm_client import prepared_study

    class Forgetful(FaultyGrid):
        def _deliver(self, message: Message) -> Message:
            if message.metadata.dst_node_id == 2 and message.metadata.group_id == "2":
                self._contexts[2].state = RecordDict()
                prepared_study._loaded.clear()
            return super()._deliver(message)

    store = _run(Forgetful(small.three_sites(tmp_path), {}), tmp_path / "run")
    history = store.history()
    assert "HF-404" in history[1]["set_aside"]["b"]
    assert history[2]["answered"] == ["a", "b", "c"]


def test_sites_that_never_answer_end_the_run_before_round_1(tmp_path: Path) -> None:
    fault = {(1, protocol.STATISTICS, 1): "lost", (2, protocol.STATISTICS, 1): "error"}
    with pytest.raises(ProtocolError, match=r"HF-403.*statistics: 1 of 3 sites"):
        _run(FaultyGrid(small.three_sites(tmp_path), fault), tmp_path / "run")


def test_nodes_that_never_connect_end_the_run(tmp_path: Path) -> None:
    grid = FaultyGrid(small.three_sites(tmp_path), {})
    with pytest.raises(ProtocolError, match=r"HF-403.*3 nodes are connected.*waits for 4 of 8"):
        _run(grid, tmp_path / "run", nodes=8)


def test_the_quorum_of_the_nodes_begins_without_the_others(tmp_path: Path) -> None:
    grid = FaultyGrid(small.three_sites(tmp_path), {})
    store = _run(grid, tmp_path / "run", nodes=4)
    assert store.history()[0]["answered"] == ["a", "b", "c"]


def test_two_nodes_of_one_site_count_once(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path)
    store = _run(FaultyGrid([*nodes, nodes[0]], {}), tmp_path / "run", nodes=4)
    assert store.history()[0]["asked"] == ["a", "b", "c"]
    assert any(e.get("reason") == "another node has its name" for e in store.events())


def test_a_run_told_to_stop_stops_between_replies(tmp_path: Path) -> None:
    config = small.config().model_dump_json()
    app = make_server_app(small.ServerWork(), stopped=lambda: True)
    context = Context(
        1, 0, {}, RecordDict(), {"config": config, "folder": str(tmp_path / "run"), "nodes": 3}
    )
    with pytest.raises(RunError, match="HF-705"):
        app(FaultyGrid(small.three_sites(tmp_path), {}), context)


def test_a_group_under_its_own_quorum_waits_while_the_others_go_on(tmp_path: Path) -> None:
    nodes = [
        small.site(tmp_path, name, pull=1.0, modalities=("ehr", "wearable")) for name in ("a", "b")
    ]
    nodes += [small.site(tmp_path, name, pull=2.0) for name in ("c", "d", "e")]
    apps = small.apps({"a": "nan"}, round_=2)
    config = small.config(quorum=0.6, keep_checkpoints=9)
    run_federation(config, nodes, tmp_path / "run", apps=apps)
    store = RunStore(tmp_path / "run", 9)
    one, two = store.checkpoints.load(1), store.checkpoints.load(2)
    assert one is not None
    assert two is not None
    name = "encoders.wearable.w"
    assert one.parameters[name].tobytes() == two.parameters[name].tobytes()
    assert one.parameters["backbone.w"].tobytes() != two.parameters["backbone.w"].tobytes()
    kept = [e for e in store.events() if e["event"] == "group kept"]
    assert {e["group"] for e in kept} == {"wearable", "head/masked_wearable"}
    assert kept[0]["reason"] == "1 of 2 sites moved it"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 99}, "HF-401"),
        ({"site": ""}, "HF-402"),
        ({"site": "a\nb"}, "HF-402"),
        ({"site": "a" * 65}, "HF-402"),
        ({"modalities": '["imaging"]'}, "HF-402"),
        ({"modalities": "ehr"}, "HF-402"),
        ({"subjects": 0}, "HF-402"),
        ({"subjects": 2**50}, "HF-402"),
        ({"subjects": "many"}, "HF-402"),
        ({"node": "8"}, "HF-820"),
        ({"node": 7.0}, "HF-820"),
    ],
)
def test_a_site_record_that_does_not_fit_is_refused(change: dict[str, Any], code: str) -> None:
    good = {"version": protocol.VERSION, "site": "a", "modalities": '["ehr"]', "subjects": 5}
    record = good | {"node": "7"}
    assert read_site(record, 7).n_subjects == 5
    with pytest.raises(HealthFMError, match=code):
        read_site(record | change, 7)
