"""The SuperNode and its worker: Flower's loop, modules whose names are replaced, and the calls."""

from __future__ import annotations

from typing import Any, Final

import flwr.supercore.corestate.in_memory_corestate as tasks_module
import flwr.supercore.heartbeat as heartbeat_module
import flwr.supernode.fleet_http_connection as connection_module
import flwr.supernode.start_client_internal as node_module
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    pull_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

__all__ = [
    "PIECE_FETCHERS",
    "AcquireTaskRequest",
    "ErrorCode",
    "FleetHttpClient",
    "HeartbeatSender",
    "NodeStateFactory",
    "ObjectStoreFactory",
    "RunNotRunningException",
    "RuntimeHttpClient",
    "RuntimeTokenHttpInterceptor",
    "RuntimeVersionHttpInterceptor",
    "SubStatus",
    "SuperExecAuthHttpInterceptor",
    "TaskType",
    "connection_module",
    "create_app",
    "heartbeat_module",
    "make_simple_http_retry_invoker",
    "make_task_heartbeat_fn_http",
    "node_module",
    "pull_task_input",
    "push_message",
    "push_task_output",
    "tasks_module",
]

PIECE_FETCHERS: Final[tuple[Any, ...]] = (pull_objects, pull_and_inflate_object_from_tree)
"""Flower's functions that fetch a message piece by piece, and ask again for what is late."""
