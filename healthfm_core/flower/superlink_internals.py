"""The SuperLink: its app, its plugins, its records of nodes, and the calls that control runs."""

from __future__ import annotations

from flwr.cli.build import build_fab_from_files
from flwr.common.constant import (
    ACCESS_TOKEN_KEY,
    HEARTBEAT_DEFAULT_INTERVAL,
    NOOP_FLWR_AID,
    TRANSPORT_TYPE_GRPC_RERE,
)
from flwr.common.event_log_plugin import EventLogWriterPlugin
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.auth.typing import AccountAuthCredentials, AccountAuthLoginDetails, AccountInfo
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.event_log.typing import Actor, Event, LogEntry
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.superlink.auth_plugin import ControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import (
    SuperLinkLifespanConfig,
    get_federation_manager,
    get_objectstore_linkstate_factories,
)
from flwr.superlink.main import create_app

__all__ = [
    "ACCESS_TOKEN_KEY",
    "HEARTBEAT_DEFAULT_INTERVAL",
    "NOOP_FLWR_AID",
    "TRANSPORT_TYPE_GRPC_RERE",
    "AccountAuthCredentials",
    "AccountAuthLoginDetails",
    "AccountInfo",
    "Actor",
    "ApiErrorCode",
    "ControlAuthnPlugin",
    "ControlHttpClient",
    "Event",
    "EventLogWriterPlugin",
    "Fab",
    "FlowerError",
    "LinkState",
    "ListRunsRequest",
    "LogEntry",
    "NodeStatus",
    "ProtobufCall",
    "ProtobufRequestContext",
    "StartRunRequest",
    "StopRunRequest",
    "SuperLinkLifespan",
    "SuperLinkLifespanConfig",
    "build_fab_from_files",
    "create_app",
    "get_federation_manager",
    "get_objectstore_linkstate_factories",
    "public_key_to_bytes",
    "user_config_to_proto",
]
