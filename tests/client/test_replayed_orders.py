"""A signed training order is for one site, once, and for a time: who kept a copy has nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from flwr.app import Message

from healthfm_client.site.site_home import SiteHome
from healthfm_core.federation import contracting, protocol
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine.inprocess import copied
from tests import enrolled
from tests import three_numbers as small
from tests.client.test_contracts import reasons


class Tape(enrolled.Wire):
    """Keeps a copy of every training order as it went to its site."""

    def __init__(self, sites: list[enrolled.Enrolled], work: small.ClientWork) -> None:
        super().__init__(sites, work)
        self.orders: dict[tuple[int, str], Message] = {}

    def change(self, message: Message) -> None:
        metadata = message.metadata
        if metadata.message_type == protocol.TRAIN:
            kept = Message(copied(message.content), metadata.dst_node_id, protocol.TRAIN, ttl=60.0)
            self.orders[metadata.dst_node_id, metadata.group_id] = kept

    def again(self, node: int, round_: int) -> Message:
        """Deliver a kept order to its site once more, and return the reply."""
        return super()._deliver(self.orders[node, str(round_)])


def private(folder: Path) -> tuple[Path, list[enrolled.Enrolled]]:
    rules = {"mode": "dp", "epsilon": 100.0, "ledger": "ledger.jsonl"}
    return enrolled.three(folder, privacy=rules)


def ledger_of(site: enrolled.Enrolled) -> bytes:
    return (SiteHome(site.home).path / "ledger.jsonl").read_bytes()


def test_an_order_that_was_given_before_is_refused_and_costs_no_privacy(tmp_path: Path) -> None:
    study, sites = private(tmp_path)
    work = small.ClientWork()
    grid = Tape(sites, work)
    enrolled.run(grid, study, tmp_path / "run")
    spent, trained = ledger_of(sites[1]), len(work.private)
    for round_ in (1, 2, 3):
        reply = grid.again(2, round_)
        assert reply.has_error()
        assert reply.error.code == 824
    assert ledger_of(sites[1]) == spent
    assert len(work.private) == trained


def test_a_restarted_site_and_a_resubmitted_run_remember_the_orders_given(tmp_path: Path) -> None:
    """The second submission has a Flower context of its own, and the same study."""
    study, sites = private(tmp_path)
    first = Tape(sites, small.ClientWork())
    enrolled.run(first, study, tmp_path / "run")
    (lost,) = (tmp_path / "run").rglob("round-0003.json")
    lost.unlink()
    second = Tape(sites, small.ClientWork())
    store = enrolled.run(second, study, tmp_path / "run")
    assert store.history()[2]["answered"] == ["a", "b", "c"], "the round's new order is taken"
    spent = ledger_of(sites[1])
    second.orders = first.orders
    reply = second.again(2, 3)
    assert reply.has_error()
    assert reply.error.code == 824
    assert ledger_of(sites[1]) == spent


def test_an_order_for_another_site_is_refused(tmp_path: Path) -> None:
    study, sites = private(tmp_path)

    class Crossed(Tape):
        """Node 2 gets what is node 3's."""

        def change(self, message: Message) -> None:
            super().change(message)
            if message.metadata.message_type == protocol.TRAIN and (
                message.metadata.dst_node_id == 2
            ):
                other = next(
                    sent
                    for sent in self.sent
                    if sent.metadata.message_type == protocol.TRAIN
                    and sent.metadata.dst_node_id == 3
                    and sent.metadata.group_id == message.metadata.group_id
                )
                message.content = copied(other.content)

    grid = Crossed(sites, small.ClientWork())
    store = enrolled.run(grid, study, tmp_path / "run")
    assert "HF-823" in reasons(store)["b"]
    assert all(row["answered"] == ["a", "c"] for row in store.history())


def test_an_order_that_was_held_back_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders last as long as the coordinator waits for their answers, and two minutes."""
    study, sites = private(tmp_path)
    real = contracting.now_utc

    class HeldBack(Tape):
        def _deliver(self, message: Message) -> Message:
            late = message.metadata.dst_node_id == 2 and (
                message.metadata.message_type == protocol.TRAIN
            )
            later = timedelta(days=2 if late else 0)
            monkeypatch.setattr(contracting, "now_utc", lambda: real() + later)
            try:
                return super()._deliver(message)
            finally:
                monkeypatch.setattr(contracting, "now_utc", real)

    store = enrolled.run(HeldBack(sites, small.ClientWork()), study, tmp_path / "run")
    assert "HF-825" in reasons(store)["b"]
    assert len(RunStore(tmp_path / "run", keep=9).history()) == 3


@pytest.mark.parametrize("field", ["site", "nonce", "expires"])
@pytest.mark.parametrize("missing", [True, False])
def test_whom_and_when_an_order_is_for_cannot_be_changed(
    tmp_path: Path, field: str, missing: bool
) -> None:
    study, sites = private(tmp_path)

    class Altered(Tape):
        def change(self, message: Message) -> None:
            metadata = message.metadata
            if (metadata.dst_node_id, metadata.message_type) != (2, protocol.TRAIN):
                return
            order = message.content.config_records[protocol.ORDER]
            if missing:
                del order[field]
            else:
                order[field] = str(order[field]).translate(str.maketrans("0123", "1230")) + "0"

    store = enrolled.run(Altered(sites, small.ClientWork()), study, tmp_path / "run")
    assert "HF-814" in reasons(store)["b"]
