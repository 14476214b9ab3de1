"""Replies one by one, out of one question.

Flower's grid answers a question for several messages with all of them in memory, and a question
for each costs its SuperLink a dozen milliseconds, ten times a second and site. Here one question
tells which replies are there, and each is fetched when the one before was dealt with. Its arrays
come piece by piece and go to a file as they come: Flower's own way holds every piece three times.
What it needs of Flower's insides is in `healthfm_core.flower.grid_internals`.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from flwr.app import Array, Error, Message
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from healthfm_core.flower.grid_internals import (
    HttpGrid,
    InflatableObject,
    KnownMessage,
    ObjectPullError,
    PullAppMessagesRequest,
    get_object_body,
    get_object_children_ids_from_object_content,
    get_object_type_from_object_content,
    inflate_object_from_contents,
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    pull_objects,
    runtime_client,
)
from healthfm_core.flower.message_internals import (
    SUPERLINK_NODE_ID,
    ArrayChunk,
    ErrorCode,
    make_message,
    message_from_proto,
    set_message_id,
    set_sender,
)
from healthfm_server.transport.array_file import ReplyFile

SOON_S: Final = 0.05
"""Before a piece that is still on its way is asked for again; Flower's own pause is 1 s."""


Pull = Callable[[str], bytes]
"""Returns a piece of a message, by its id."""


def replies(grid: Grid, asked: Mapping[str, int], folder: Path) -> Iterator[Message]:
    """Yield the replies to the messages `asked` that are there now, each fetched when its turn is.

    Args:
        grid: Flower's; one that is not the deployment's is asked for each message by itself.
        asked: Id of a message → bytes that the arrays of its reply may have at most.
        folder: On whose disk a reply's arrays lie as long as the reply is held.
    """
    if not isinstance(grid, HttpGrid):
        for one in asked:
            yield from grid.pull_messages([one])
        return
    client = runtime_client(grid)
    pulled = client.PullMessages(PullAppMessagesRequest(message_ids=list(asked)))
    for known, tree in zip(pulled.messages_list, pulled.message_object_trees, strict=True):
        most = asked[known.metadata.reply_to_message_id]
        yield _fetched(grid, client, known, tree.object_id, ReplyFile(folder, most))
        gc.collect()  # messages lie in circles of references: each would hold a model till later


def of_node(reply: Message, node: int) -> Message:
    """Return an error; one that the SuperLink makes for a node it lost becomes that node's."""
    if reply.metadata.src_node_id == SUPERLINK_NODE_ID:
        set_sender(reply, node)
    return reply


def _fetched(
    grid: HttpGrid, client: Any, known: KnownMessage, number: str, file: ReplyFile
) -> Message:
    """Return a reply with its contents, or an error of its sender's where they cannot be had."""
    run_id = grid.run.run_id
    confirm = make_confirm_message_received_fn_protobuf(
        client.ConfirmMessageReceived, grid.node, run_id
    )
    from_link = make_pull_object_fn_protobuf(client.PullObject, grid.node, run_id)

    def pull(piece: str) -> bytes:
        return pull_objects([piece], from_link, initial_backoff=SOON_S)[piece]

    try:
        with file as spool:
            message = _Reply(pull, spool).whole(number)
        confirm(number)
    except ObjectPullError:
        message = _error(known, "its reply broke off on the way")
    except (ValueError, KeyError, TypeError, IndexError, DecodeError, RecursionError):
        message = _error(known, "its reply cannot be read")
    set_message_id(message, number)
    return message


def _error(known: KnownMessage, reason: str) -> Message:
    error = Error(ErrorCode.MESSAGE_UNAVAILABLE, reason)
    return make_message(message_from_proto(known).metadata, error=error)


class _Reply:
    """A reply on its way: its records in memory, what its arrays hold in a file."""

    def __init__(self, pull: Pull, spool: ReplyFile) -> None:
        self._pull = pull
        self._spool = spool
        self._records: dict[str, bytes] = {}
        self._arrays: dict[str, InflatableObject] = {}
        self._places: dict[bytes, slice] = {}

    def whole(self, number: str) -> Message:
        """Return the reply, once all of it is here."""
        self._gather(number)
        message = inflate_object_from_contents(number, self._records, objects=self._arrays)
        if not isinstance(message, Message):
            raise TypeError("it is no message")
        view = self._spool.view()
        records = message.content.array_records.values() if message.has_content() else ()
        for array in (array for record in records for array in record.values()):
            array.data = cast(bytes, view[self._places[array.data]])
        return message

    def _gather(self, number: str) -> None:
        content = self._pull(number)
        if get_object_type_from_object_content(content) == Array.__qualname__:
            self._arrays[number] = self._spooled(number, content)
            return
        self._records[number] = content
        for child in get_object_children_ids_from_object_content(content):
            self._gather(child)

    def _spooled(self, number: str, content: bytes) -> Array:
        """Fetch an array's pieces in their order; return it with its own id for contents."""
        about = json.loads(get_object_body(content, Array))
        ids = get_object_children_ids_from_object_content(content)
        start, known = self._spool.size, dict[int, tuple[int, int]]()
        for index in about["arraychunk_ids"]:
            if index in known:  # equal pieces come once
                self._spool.append_copy(*known[index])
                continue
            piece = get_object_body(self._pull(ids[index]), ArrayChunk)
            known[index] = self._spool.size, len(piece)
            self._spool.append(piece)
        self._places[number.encode()] = slice(start, self._spool.size)
        return Array(about["dtype"], tuple(about["shape"]), about["stype"], number.encode())
