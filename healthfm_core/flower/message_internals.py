"""Messages: what Flower lets nobody set, and how one is taken apart for the wire."""

from __future__ import annotations

from flwr.app import Array, Message
from flwr.app.message import make_message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "SUPERLINK_NODE_ID",
    "ArrayChunk",
    "ErrorCode",
    "Run",
    "make_message",
    "message_from_proto",
    "set_message_id",
    "set_sender",
    "take_identity",
    "twin",
]


def set_message_id(message: Message, message_id: str) -> None:
    """Give `message` its id, which Flower has no public way to set."""
    message.metadata.__dict__["_message_id"] = message_id


def set_sender(message: Message, node: int) -> None:
    """Say which node `message` comes from, which Flower has no public way to set."""
    message.metadata.__dict__["_src_node_id"] = node


def take_identity(run_id: int = 1) -> Run:
    """Say who sends: `Message` reads the sender from the process's task identity."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    return Run.create_empty(run_id)


def twin(array: Array) -> Array:
    """Return another `Array` over the same bytes, without the checks of its constructor."""
    new = Array.__new__(Array)
    new.__dict__.update(dtype=array.dtype, shape=array.shape, stype=array.stype, data=array.data)
    return new
