"""Replies that were found by `tests.message_fuzz`: none ends a run or reaches what others see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MetricRecord

from healthfm_client.transport.site_array_records import to_record
from healthfm_core.federation import protocol
from healthfm_server.run_folder.run_store import RunStore
from tests import enrolled
from tests.three_numbers import counts_of

Change = Callable[[Message], None]


class Hostile(enrolled.Wire):
    """Changes the replies to one kind of message from some nodes."""

    def __init__(
        self, nodes: list[enrolled.Enrolled], kind: str, change: Change, of: frozenset[int]
    ) -> None:
        super().__init__(nodes)
        self._kind, self._change, self._of = kind, change, of

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        metadata = message.metadata
        if metadata.message_type == self._kind and metadata.dst_node_id in self._of:
            self._change(reply)
        return reply


def endless(reply: Message) -> None:
    reply.content.config_records[protocol.SITE]["subjects"] = float("inf")


def nested(reply: Message) -> None:
    reply.content.config_records[protocol.SITE]["modalities"] = "[" * 100_000


def without_counts(reply: Message) -> None:
    reply.content[protocol.ARRAYS] = to_record({"subjects": np.ones(1, np.int64)})


def more_people_than_it_has(reply: Message) -> None:
    reply.content[protocol.ARRAYS] = to_record(counts_of(21, ["ehr"]))


def record_of(reply: Message) -> MetricRecord:
    return reply.content.metric_records[protocol.METRICS]


def enormous(reply: Message) -> None:
    record_of(reply)["loss_pull"] = 1.5e308


def many(reply: Message) -> None:
    for number in range(2000):
        record_of(reply)[f"loss_{number}"] = 1.0


def nobody_asked(reply: Message) -> None:
    record_of(reply)["advertisement"] = 1.0
    record_of(reply)["loss_" + "x" * 1000] = 1.0


def run(folder: Path, kind: str, change: Change, of: frozenset[int] = frozenset({2})) -> RunStore:
    study, sites = enrolled.three(folder)
    return enrolled.run(Hostile(sites, kind, change, of), study, folder / "run")


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        (protocol.STATISTICS, endless, "HF-402"),
        (protocol.STATISTICS, nested, "HF-402"),
        (protocol.STATISTICS, without_counts, "HF-402"),
        (protocol.STATISTICS, more_people_than_it_has, "counts more people than the site has"),
        (protocol.PREPARE, endless, "HF-402"),
        (protocol.TRAIN, many, "2001 metrics"),
    ],
)
def test_a_reply_that_cannot_be_read_costs_the_site_that_sent_it_and_no_other(
    tmp_path: Path, kind: str, change: Change, reason: str
) -> None:
    store = run(tmp_path, kind, change)
    set_aside = [e["reason"] for e in store.events() if e["event"] == "set aside"]
    assert reason in set_aside[0]
    assert [{"a", "c"} <= set(row["answered"]) for row in store.history()] == [True] * 3


def test_metrics_too_large_for_a_mean_are_left_out_of_it(tmp_path: Path) -> None:
    store = run(tmp_path, protocol.TRAIN, enormous, frozenset({2, 3}))
    assert [row["metrics"]["loss_pull"] for row in store.history()] == [1.0] * 3


def test_metrics_that_nobody_asked_for_are_not_kept(tmp_path: Path) -> None:
    store = run(tmp_path, protocol.TRAIN, nobody_asked)
    kept = {name for row in store.history() for name in row["site_metrics"]["b"]}
    assert kept == {"loss_pull"}
