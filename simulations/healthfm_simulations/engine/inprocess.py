"""The default engine: a Grid of our own that runs the real apps in this process, site by site."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
    UserConfig,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from healthfm_core.flower.message_internals import Run, set_message_id, take_identity, twin
from healthfm_simulations.engine.nodes import NodeSpec


class InProcessGrid(Grid):
    """Runs a site when its reply is pulled, so that one reply lives at a time.

    Args:
        app: The sites' app.
        nodes: The sites; a node's number is its place from 1.
    """

    def __init__(self, app: ClientApp, nodes: Sequence[NodeSpec]) -> None:
        self._app = app
        self._contexts = {
            i: Context(1, i, node.node_config(), RecordDict(), {})
            for i, node in enumerate(nodes, start=1)
        }
        self._waiting: dict[str, Message] = {}
        self._sent = 0
        self._run = take_identity()

    def set_run(self, run: Run) -> None:
        """Set the run; the grid made its own already."""
        self._run = run

    @property
    def run(self) -> Run:
        """Information on the run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a new message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes' numbers."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages, copied, and return their ids; nothing runs yet."""
        ids = []
        for message in messages:
            self._sent += 1
            set_message_id(message, str(self._sent))
            self._waiting[str(self._sent)] = message
            ids.append(str(self._sent))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies, running each site as its turn comes."""
        for key in message_ids:
            message = self._waiting.pop(key, None)
            if message is not None:
                yield self._deliver(message)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull lazily; sites in one process are never late."""
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        received = Message(copied(message.content), reply_to=message)
        received.metadata.__dict__.update(message.metadata.__dict__)
        received.metadata.created_at = time.time()
        try:
            reply = self._run_app(received, context)
        except Exception as error:  # as Flower does for an app that raises
            reply = Message(Error(2, type(error).__name__), reply_to=received)
        if reply.has_content():
            reply.content = copied(reply.content)
        return reply

    def _run_app(self, message: Message, context: Context) -> Message:
        """Return what the node's app answers."""
        return self._app(message, context)


def copied(content: RecordDict) -> RecordDict:
    """Return `content` in records and arrays of its own.

    Only an array's bytes are shared with the other side, and nobody can write to those.
    """
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays = records[name] = ArrayRecord()
            for key, array in record.items():
                arrays[key] = twin(array)
        elif isinstance(record, MetricRecord):
            records[name] = MetricRecord(dict(record))
        else:
            records[name] = ConfigRecord(dict(record))
    return RecordDict(records)


def run_on(grid: InProcessGrid, server: ServerApp, run_config: UserConfig) -> None:
    """Run `server` against the sites of `grid` to its end, in this process.

    Raises:
        HealthFMError: What the server's app raises.
        KeyboardInterrupt: At Ctrl-C; the run folder is complete up to its last checkpoint.
    """
    server(grid, Context(1, 0, {}, RecordDict(), {**run_config}))
