"""A ServerApp's way to the SuperLink: its client, and pieces of messages by their ids."""

from __future__ import annotations

from typing import Any

from flwr.proto.message_pb2 import Message as KnownMessage
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_object_body,
    get_object_children_ids_from_object_content,
    get_object_type_from_object_content,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.superlink.grid.http_grid import HttpGrid

__all__ = [
    "HttpGrid",
    "InflatableObject",
    "KnownMessage",
    "ObjectPullError",
    "PullAppMessagesRequest",
    "get_object_body",
    "get_object_children_ids_from_object_content",
    "get_object_type_from_object_content",
    "inflate_object_from_contents",
    "make_confirm_message_received_fn_protobuf",
    "make_pull_object_fn_protobuf",
    "pull_objects",
    "runtime_client",
]


def runtime_client(grid: HttpGrid) -> Any:
    """Return the client by which `grid` asks the SuperLink."""
    return grid._runtime_client
