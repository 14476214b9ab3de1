"""A coordinator that is killed between asking for a sum and writing the round."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Message

from healthfm_core.federation import protocol
from healthfm_server.transport.kept_sum import KEPT_FILE
from tests import enrolled
from tests.server.transport.coordinators import enrolled_sites

ALL = ["a", "b", "c", "d", "e"]
SUMS = {"secure": {"enabled": True, "message_timeout_s": 30.0, "ring_bits": 64}}


class Killed(BaseException):
    """What ends a process at once."""


class Kills(enrolled.Wire):
    """The coordinator dies after the sites of round 2 have answered what opens the sum."""

    answers = 0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Deliver what comes before the last of them."""
        for reply in super().pull_messages(message_ids):
            meta = reply.metadata
            self.answers += (meta.message_type, meta.group_id) == (protocol.UNMASK, "2")
            if self.answers == len(ALL):
                raise Killed
            yield reply


class Lacks(enrolled.Wire):
    """A site that is away for good after the coordinator was killed."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Deliver nothing of site e."""
        for reply in super().pull_messages(message_ids):
            if reply.metadata.src_node_id != 5:
                yield reply


def killed(folder: Path) -> tuple[Path, list[enrolled.Enrolled]]:
    study, nodes = enrolled_sites(folder, ALL)
    with pytest.raises(Killed):
        enrolled.run(Kills(nodes), study, folder / "run", aggregation=SUMS, quorum=0.5)
    assert (folder / "run" / KEPT_FILE).is_file()
    return study, nodes


def test_the_sum_that_was_asked_for_is_opened_once_it_is_back(tmp_path: Path) -> None:
    """All processes are new, and so is Flower's run: contexts, nodes' memory, coordinator."""
    study, nodes = killed(tmp_path)
    grid = enrolled.Wire(nodes)
    store = enrolled.run(grid, study, tmp_path / "run", aggregation=SUMS, quorum=0.5)
    rows = store.history()
    assert [row["answered"] for row in rows] == [ALL] * 3
    trained = [m for m in grid.sent if m.metadata.message_type == protocol.TRAIN]
    assert {m.metadata.group_id for m in trained} == {"3"}, "nobody trained for round 2 again"
    whole = enrolled_sites(tmp_path / "whole", ALL)
    unbroken = enrolled.run(
        enrolled.Wire(whole[1]), whole[0], tmp_path / "whole" / "run", aggregation=SUMS, quorum=0.5
    )
    one, other = store.checkpoints.load(), unbroken.checkpoints.load()
    assert one is not None
    assert other is not None
    for name, value in other.parameters.items():
        assert one.parameters[name].tobytes() == value.tobytes()


def test_a_site_that_is_away_by_then_costs_no_round_and_no_secret(tmp_path: Path) -> None:
    """Four of five sites still open the sum of five."""
    study, nodes = killed(tmp_path)
    store = enrolled.run(Lacks(nodes), study, tmp_path / "run", aggregation=SUMS, quorum=0.5)
    assert [row["answered"] for row in store.history()] == [ALL, ALL, ALL[:4]]


def test_a_round_whose_sum_is_lost_closes_without_an_update_where_a_site_is_away(
    tmp_path: Path,
) -> None:
    study, nodes = killed(tmp_path)
    (tmp_path / "run" / KEPT_FILE).unlink()
    store = enrolled.run(Lacks(nodes), study, tmp_path / "run", aggregation=SUMS, quorum=0.5)
    closed = [e for e in store.events() if e["event"] == "round without an update"]
    assert [e["round"] for e in closed] == [2]
    assert "HF-614" in closed[0]["reason"]
    rows = store.history()
    assert [sorted(row["groups"]) for row in rows][1] == []
    assert rows[2]["groups"], "the next round goes on"
    before, after = store.checkpoints.load(1), store.checkpoints.load(2)
    assert before is not None
    assert after is not None
    for name, value in before.parameters.items():
        assert after.parameters[name].tobytes() == value.tobytes()
