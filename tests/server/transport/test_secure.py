"""Masked rounds against a grid that loses replies, and what the coordinator gets to see."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from scipy import stats

import tests.quiet_flower  # noqa: F401
from healthfm_client.app import make_app as make_client_app
from healthfm_core.errors import PrivacyError
from healthfm_core.federation import protocol
from healthfm_core.privacy import secure_aggregation as secure
from healthfm_server.app import make_app as make_server_app
from healthfm_server.run_folder.run_store import RunStore
from healthfm_server.transport.array_records import read
from healthfm_simulations.engine import NodeSpec
from healthfm_simulations.engine.inprocess import InProcessGrid
from tests import three_numbers as small
from tests.virtual_clock import virtual_clock

KINDS = (protocol.KEYS, protocol.SHARES, protocol.TRAIN, protocol.UNMASK)


class Watching(InProcessGrid):
    """Real apps behind a connection that loses what a test says and writes down the rest.

    Attributes:
        lost: (node, kind, round) of the replies that never come.
        seen: Every (question, reply) that came through.
    """

    def __init__(
        self, nodes: list[NodeSpec], lost: set[tuple[int, str, str]] = frozenset()
    ) -> None:
        super().__init__(make_client_app(small.ClientWork()), nodes)
        self.lost = lost
        self.seen: list[tuple[Message, Message]] = []

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        self.seen.append((message, reply))
        return reply

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Deliver what is not lost."""
        for reply in super().pull_messages(message_ids):
            meta = reply.metadata
            if (meta.src_node_id, meta.message_type, meta.group_id) not in self.lost:
                yield reply


def sites(folder: Path, modalities: list[tuple[str, ...]]) -> list[NodeSpec]:
    return [
        small.site(folder, f"s{i}", pull=float(i), n=10 + i, modalities=held)
        for i, held in enumerate(modalities)
    ]


def run(grid: InProcessGrid, folder: Path, nodes: int, **federation: Any) -> RunStore:
    secure = {"enabled": True, "message_timeout_s": 30.0}
    given = {"aggregation": {"secure": secure}, "ttl_s": 10.0}
    config = small.config(**{**given, "deadline_s": 60.0, "keep_checkpoints": 9, **federation})
    run_config = {"config": config.model_dump_json(), "folder": str(folder), "nodes": nodes}
    with virtual_clock():
        make_server_app(small.ServerWork())(grid, Context(1, 0, {}, RecordDict(), run_config))
    return RunStore(folder, keep=9)


BOTH, EHR = ("ehr", "wearable"), ("ehr",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_site_that_dies_between_two_exchanges_costs_its_own_part_only(
    tmp_path: Path, kind: str
) -> None:
    nodes = sites(tmp_path / "sites", [BOTH, EHR, BOTH, EHR, BOTH])
    store = run(Watching(nodes, {(2, kind, "2")}), tmp_path / "run", 5)
    whole = run(Watching(nodes), tmp_path / "whole", 5)
    there = [row["answered"] for row in store.history()]
    alive = ["s0", "s1", "s2", "s3", "s4"]
    gone = alive if kind == protocol.UNMASK else ["s0", "s2", "s3", "s4"]
    assert there == [alive, gone, alive]
    weight = store.history()[1]["groups"]["backbone"]["weight"]
    assert weight == sum(10 + int(name[1]) for name in gone)
    after, before = store.checkpoints.load(1), whole.checkpoints.load(1)
    for name, value in before.parameters.items():
        np.testing.assert_allclose(after.parameters[name], value, atol=2e-6)


def test_a_site_that_forgets_its_session_cannot_be_asked_for_shares(tmp_path: Path) -> None:
    class Forgetful(Watching):
        def _deliver(self, message: Message) -> Message:
            meta = message.metadata
            if (meta.message_type, meta.dst_node_id, meta.group_id) == (protocol.UNMASK, 3, "2"):
                del self._contexts[3].state["secure_aggregation"]
            return super()._deliver(message)

    nodes = sites(tmp_path / "sites", [BOTH, EHR, BOTH, EHR, BOTH])
    store = run(Forgetful(nodes), tmp_path / "run", 5)
    rows = store.history()
    assert [len(row["answered"]) for row in rows] == [5, 5, 4]  # its keys are no longer known
    assert "another key than the one known" in rows[2]["set_aside"]["s2"]


def messages_of(grid: Watching, kind: str) -> list[tuple[Message, Message]]:
    return [pair for pair in grid.seen if pair[0].metadata.message_type == kind]


def asked_again(grid: Watching, pair: tuple[Message, Message], **change: str) -> Message:
    """Send a message of the transcript once more, to the same site."""
    question, _ = pair
    meta = question.metadata
    content = question.content
    if change:
        record = content.config_records[protocol.SECURE_MESSAGE]
        content = RecordDict({protocol.SECURE_MESSAGE: ConfigRecord({**record, **change})})
    grid.push_messages([Message(content, meta.dst_node_id, meta.message_type, group_id="9")])
    return next(iter(InProcessGrid.pull_messages(grid, [str(grid._sent)])))


def test_a_coordinator_that_asks_for_other_shares_afterwards_is_refused(tmp_path: Path) -> None:
    nodes = sites(tmp_path / "sites", [BOTH, EHR, BOTH, EHR])
    grid = Watching(nodes, {(2, protocol.UNMASK, "3")})
    run(grid, tmp_path / "run", 4)
    names = ["s0", "s1", "s2", "s3"]
    last = messages_of(grid, protocol.UNMASK)[-1]
    other = secure.UnmaskRequest(tuple(names[:3]), ("s3",)).to_json()
    assert "HF-612" in asked_again(grid, last, json=other).error.reason
    same = asked_again(grid, last).content.config_records[protocol.SECURE_MESSAGE]
    assert same == last[1].content.config_records[protocol.SECURE_MESSAGE]
    for kind in (protocol.KEYS, protocol.SHARES, protocol.TRAIN):
        assert "HF-612" in asked_again(grid, messages_of(grid, kind)[-1]).error.reason


def test_an_opened_session_leaves_no_secret_and_no_earlier_round_is_begun(tmp_path: Path) -> None:
    nodes = sites(tmp_path / "sites", [BOTH, EHR, BOTH])
    grid = Watching(nodes)
    run(grid, tmp_path / "run", 3)
    state = json.loads(str(grid._contexts[1].state["secure_aggregation"]["json"]))
    opened = [(one["purpose"], one["number"], one["senders"]) for one in state["sums"]]
    all_sites = ["s0", "s1", "s2"]
    statistics = [("statistics", number, all_sites) for number in (0, 1)]
    assert opened == statistics + [("round", number, all_sites) for number in (1, 2, 3)]
    assert state["session"] == ""
    asked = messages_of(grid, protocol.KEYS)[-1]
    terms = secure.Terms.from_json(
        str(asked[0].content.config_records[protocol.SECURE_MESSAGE]["json"])
    )
    for number, refused in ((2, True), (3, False), (4, False)):
        fresh = secure.Terms(**{**_fields(terms), "number": number, "nonce": f"{number:02}"})
        text, session = fresh.to_json(), fresh.session.hex()
        reply = asked_again(grid, asked, json=text, session=session)
        assert reply.has_error() == refused
    with pytest.raises(PrivacyError, match="HF-611"):
        run(Watching(nodes[:2]), tmp_path / "two", 2)


def _fields(terms: secure.Terms) -> dict[str, Any]:
    return json.loads(terms.to_json())


def transcript(folder: Path, modalities: list[tuple[str, ...]], runs: int) -> Any:
    """Return what each site sent in a training round, as bytes a coordinator sees."""
    sent: dict[int, list[np.ndarray]] = {}
    shape: dict[int, set[Any]] = {}
    for i in range(runs):
        nodes = sites(folder / f"sites-{i}", modalities)
        grid = Watching(nodes)
        run(grid, folder / f"run-{i}", len(nodes), rounds=1)
        for question, reply in grid.seen:
            node = question.metadata.dst_node_id
            kind = question.metadata.message_type
            down = {name: list(record) for name, record in question.content.items()}
            up = {
                name: [(key, array.dtype, tuple(array.shape)) for key, array in record.items()]
                for name, record in reply.content.array_records.items()
            }
            shape.setdefault(node, set()).add((kind, json.dumps([down, up], default=str)))
            if kind != protocol.TRAIN:
                continue
            arrays = reply.content.array_records[protocol.ARRAYS]
            for array in read(arrays).values():
                sent.setdefault(node, []).append(array.copy().view(np.uint32))
    return {node: np.concatenate(arrays) for node, arrays in sent.items()}, shape


BY_CHANCE = 1e-9
"""Keys come from the operating system: no false alarm in the lifetime of this project."""


def test_what_the_coordinator_sees_does_not_depend_on_who_has_which_modality(
    tmp_path: Path,
) -> None:
    """The same sums of weights, other holders: messages of one form, arrays of uniform noise."""
    one, form = transcript(tmp_path / "one", [BOTH, EHR, EHR, BOTH], runs=3)
    other, form_too = transcript(tmp_path / "other", [EHR, BOTH, BOTH, EHR], runs=3)
    assert form == form_too
    assert len({json.dumps(sorted(kinds)) for kinds in form.values()}) == 1
    for node in one:
        assert len(np.unique(np.concatenate([one[node], other[node]]))) >= 0.99 * 2 * len(one[node])
        for words in (one[node], other[node]):
            assert stats.kstest(words / 2.0**32, "uniform").pvalue > BY_CHANCE
            bits = np.unpackbits(words.view(np.uint8)).mean()
            assert abs(bits - 0.5) < 5 * 0.5 / np.sqrt(32 * len(words))
        assert stats.ks_2samp(one[node], other[node]).pvalue > BY_CHANCE
