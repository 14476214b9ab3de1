"""The node's part that Flower has no setting for, in Flower's own loop."""

from __future__ import annotations

from types import SimpleNamespace

import flwr.supernode.start_client_internal as node_module
import pytest
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import RunNotRunningException
from flwr.supernode.nodestate import NodeStateFactory

from healthfm_client.runtime.flower_processes import _stop_watch


@pytest.mark.parametrize(
    ("fails", "ended"), [("pull_object", [7]), ("confirm_message_received", [7]), (None, [])]
)
def test_a_run_that_ends_while_its_message_comes_is_told_to_the_worker(fails, ended):
    """Else the worker, who has the message's task already, waits for pieces that never come."""

    def call(name):
        def of_run(run_id, piece):
            assert (run_id, piece) in {(7, "piece"), (7, "message")}
            if name == fails:
                raise RunNotRunningException
            return b"content"

        return of_run

    about = SimpleNamespace(run_id=7, message_id="message", message_type="train", group_id="2")
    run = SimpleNamespace(primary_task_type=None, fab_hash="hash")
    stored, left = {}, ["message"]
    told: list[int] = []
    with _stop_watch(told.append):
        found = node_module._pull_and_store_message(
            state=SimpleNamespace(
                get_run=lambda _: run,
                create_task=lambda **_: 1,
                store_message=lambda _: None,
                delete_messages=lambda message_ids: [left.remove(one) for one in message_ids],
            ),
            object_store=SimpleNamespace(
                preregister=lambda *_: ["piece"],
                put=stored.__setitem__,
                delete=lambda _: stored.clear(),
            ),
            node_config={},
            receive=lambda: (SimpleNamespace(metadata=about), None),
            get_run=None,
            get_fab=None,
            pull_object=call("pull_object"),
            confirm_message_received=call("confirm_message_received"),
            trusted_entities=None,
        )
    assert told == ended
    assert found == (None if ended else 7)
    assert left == ([] if ended else ["message"])
    assert stored == ({} if ended else {"piece": b"content"})


def test_a_second_reply_to_a_message_is_not_sent_for_the_next_one():
    """Else every reply comes one message late: no later run gets an answer in time."""
    factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    state, store = factory.state(), factory.objectstore_factory.store()
    sent: list[tuple[str, str]] = []

    def send(reply, tree, seconds):
        sent.append((reply.metadata.reply_to_message_id, reply.error.reason))
        return set(), "session"

    def replied(number, reason):
        about = Metadata(7, number, 1, 2, "", "", 0.0, 60.0, "train")
        reply = Message(Error(0, reason), reply_to=make_message(about, error=Error(0, "")))
        node_module._insert_message(reply, state, store)

    def received(number):
        about = SimpleNamespace(run_id=7, message_id=number, message_type="train", group_id="2")
        nothing = dict.fromkeys(("get_run", "get_fab", "trusted_entities"))
        node_module._pull_and_store_message(
            state=SimpleNamespace(
                get_run=lambda _: SimpleNamespace(primary_task_type=None, fab_hash="hash"),
                create_task=lambda **_: 1,
                store_message=lambda _: None,
            ),
            object_store=SimpleNamespace(preregister=lambda *_: []),
            node_config={},
            receive=lambda: (SimpleNamespace(metadata=about), None),
            pull_object=None,
            confirm_message_received=lambda *_: None,
            **nothing,
        )

    def pushed():
        node_module._push_messages(state=state, object_store=store, send=send, push_object=None)

    with _stop_watch(lambda _: None):
        received("first")
        replied("first", "the worker's")
        pushed()
        replied("first", "the run was stopped")
        received("second")
        replied("second", "the worker's")
        pushed()
    assert sent == [("first", "the worker's"), ("second", "the worker's")]
    assert not state.get_messages_legacy(is_reply=True)
    assert len(store) == 0
