"""Replies one by one, out of one question: the ServerApp's names that Flower does not publish.

Flower's grid answers a question for several messages with all of them in memory, and a question
for each costs its SuperLink a dozen milliseconds, ten times a second and site. Here one question
tells which replies are there, and each is fetched when the one before was dealt with.
`tests/deploy/test_flower_facts.py` holds what is used here against Flower.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from typing import Any, Final

from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as KnownMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    pull_and_inflate_object_from_tree,
)
from flwr.superlink.grid.http_grid import HttpGrid

SOON_S: Final = 0.05
"""Before a piece that is still on its way is asked for again; Flower's own pause is 1 s."""


def replies(grid: Grid, asked: Sequence[str]) -> Iterator[Message]:
    """Yield the replies to the messages `asked` that are there now, each fetched when its turn is.

    Args:
        grid: Flower's; one that is not the deployment's is asked for each message by itself.
        asked: Ids of messages.
    """
    if not isinstance(grid, HttpGrid):
        for one in asked:
            yield from grid.pull_messages([one])
        return
    client = grid._runtime_client
    found = client.PullMessages(PullAppMessagesRequest(message_ids=asked))
    for known, tree in zip(found.messages_list, found.message_object_trees, strict=True):
        yield _fetched(grid, client, known, tree)
        gc.collect()  # messages lie in circles of references: each would hold a model till later


def _fetched(grid: HttpGrid, client: Any, known: KnownMessage, tree: ObjectTree) -> Message:
    """Return a reply with its contents, or an error of its sender's where they do not come."""
    run_id = grid.run.run_id
    try:
        message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(client.PullObject, grid.node, run_id),
            make_confirm_message_received_fn_protobuf(
                client.ConfirmMessageReceived, grid.node, run_id
            ),
            return_type=Message,
            initial_backoff=SOON_S,
        )
    except ObjectPullError:
        error = Error(ErrorCode.MESSAGE_UNAVAILABLE, "its reply broke off on the way")
        message = make_message(message_from_proto(known).metadata, error=error)
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message
