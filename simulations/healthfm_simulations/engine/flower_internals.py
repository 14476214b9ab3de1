"""The only module of the simulations that imports names Flower does not publish (flwr 1.41)."""

from __future__ import annotations

from flwr.app import Array, Message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["Run", "stamp", "take_identity", "twin"]


def take_identity(run_id: int = 1) -> Run:
    """Say who sends: `Message` reads the sender from the process's task identity."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    return Run.create_empty(run_id)


def stamp(message: Message, message_id: str) -> None:
    """Give `message` its id, which Flower has no public way to set."""
    message.metadata.__dict__["_message_id"] = message_id


def twin(array: Array) -> Array:
    """Return another `Array` over the same bytes, without the checks of its constructor."""
    new = Array.__new__(Array)
    new.__dict__.update(dtype=array.dtype, shape=array.shape, stype=array.stype, data=array.data)
    return new
