"""Flower's SuperLink as a study runs it, and the control of its runs.

The open-source SuperLink authenticates nobody. So ours listens on loopback only, wants a token for
everything that starts or stops a run, and gives a ServerApp only to an executor that knows its
secret. What it needs of Flower's insides is in
`healthfm_core.flower.superlink_internals`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from fastapi import FastAPI

from healthfm_core.flower.superlink_internals import (
    ACCESS_TOKEN_KEY,
    HEARTBEAT_DEFAULT_INTERVAL,
    NOOP_FLWR_AID,
    TRANSPORT_TYPE_GRPC_RERE,
    AccountAuthCredentials,
    AccountAuthLoginDetails,
    AccountInfo,
    Actor,
    ApiErrorCode,
    ControlAuthnPlugin,
    ControlHttpClient,
    Event,
    EventLogWriterPlugin,
    Fab,
    FlowerError,
    LinkState,
    ListRunsRequest,
    LogEntry,
    NodeStatus,
    ProtobufCall,
    ProtobufRequestContext,
    StartRunRequest,
    StopRunRequest,
    SuperLinkLifespan,
    SuperLinkLifespanConfig,
    build_fab_from_files,
    create_app,
    get_federation_manager,
    get_objectstore_linkstate_factories,
    public_key_to_bytes,
    user_config_to_proto,
)
from healthfm_server.deploy.study_folder import LOOPBACK

ENDED: Final = "finished"

_flowers = logging.getLogger("flwr")
_flowers.handlers.clear()  # it would write every line twice, and in colours
_flowers.setLevel(logging.INFO)

Account = Callable[[str], str | None]
"""Token → whose it is, None where it may not control."""

Note = Callable[[str, Mapping[str, str]], None]
"""Takes an event and its details for the audit log."""

_BUNDLE: Final = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "healthfm"
version = "{version}"
dependencies = []

[tool.flwr.app]
publisher = "healthfm"

[tool.flwr.app.components]
serverapp = "healthfm_server.app:app"
clientapp = "healthfm_client.app:app"

[tool.flwr.app.config]
config = ""
folder = ""
study = ""
resume = false
nodes = 1
only = ""
"""


@dataclass(frozen=True)
class SuperLinkSettings:
    """What a SuperLink is started with.

    Attributes:
        database: File that keeps its state over a restart.
        secret: What an executor proves it knows before it gets a ServerApp.
        port: On loopback.
        account: Says whose a token is.
        note: Writes the audit log.
    """

    database: Path
    secret: bytes
    port: int
    account: Account
    note: Note


def superlink_app(settings: SuperLinkSettings) -> FastAPI:
    """Return the SuperLink as an ASGI application, for loopback only."""
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=LOOPBACK,
        port=settings.port,
        insecure=True,
        certificates=None,
        superexec_auth_secret=settings.secret,
        authn_plugin=_Tokens(settings.account, settings.note),
        event_log_plugin=_Audit(settings.note),
        fleet_event_log_plugin=None,
        enable_event_log=True,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(settings.database),
        isolation="process",
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


def register_node(database: Path, key: EllipticCurvePublicKey) -> int:
    """Return the number of the node with `key`, registered in `database` if it is not yet.

    The SuperLink may run meanwhile or not.
    """
    state, encoded = _state(database), public_key_to_bytes(key)
    known = state.get_node_id_by_public_key(encoded)
    if known is not None:
        return int(known)
    return int(
        state.create_node(
            owner_aid=NOOP_FLWR_AID,
            owner_name=NOOP_FLWR_AID,
            public_key=encoded,
            heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL,
        )
    )


def forget_node(database: Path, node_id: int) -> None:
    """Remove a node's registration, if it has one."""
    state = _state(database)
    known = state.get_node_info(node_ids=[node_id])
    if any(info.status != NodeStatus.UNREGISTERED for info in known):
        state.delete_node(owner_aid=NOOP_FLWR_AID, node_id=node_id)


def _state(database: Path) -> LinkState:
    manager = get_federation_manager()
    _, factory = get_objectstore_linkstate_factories(str(database), manager)
    return factory.state()


@dataclass(frozen=True)
class FlowerRun:
    """A run as the SuperLink has it.

    Attributes:
        run_id: Its number.
        status: ``pending``, ``starting``, ``running`` or ``finished``.
        outcome: Of a finished run: ``completed``, ``failed`` or ``stopped``.
        details: What the SuperLink says of it.
    """

    run_id: int
    status: str
    outcome: str
    details: str


class Control:
    """Starts, stops and lists runs of the SuperLink on loopback.

    Args:
        port: Where it listens.
        token: A token that may control.

    Its methods raise `httpx.HTTPError` where the SuperLink cannot be reached or refuses.
    """

    def __init__(self, port: int, token: str) -> None:
        self._client = ControlHttpClient(
            f"http://{LOOPBACK}:{port}", interceptors=(_Bearer(token),), timeout=20.0
        )

    def start(self, config: Mapping[str, str | int | float | bool], version: str) -> int:
        """Start a run of the installed apps and return its number.

        The bundle holds no code: a site and this server run what they installed themselves.
        """
        files: dict[str, bytes | Path] = {
            "pyproject.toml": _BUNDLE.format(version=version).encode()
        }
        content, _ = build_fab_from_files(files)
        request = StartRunRequest(
            fab=Fab(content=content), override_config=user_config_to_proto(dict(config))
        )
        return int(self._client.StartRun(request).run_id)

    def stop(self, run_id: int) -> None:
        """Stop a run; its nodes learn of it at their next call."""
        self._client.StopRun(StopRunRequest(run_id=run_id))

    def run(self, run_id: int) -> FlowerRun | None:
        """Return a run, None where the SuperLink knows none of that number."""
        run = self._client.ListRuns(ListRunsRequest(limit=200)).run_dict.get(run_id)
        if run is None:
            return None
        status = run.status
        return FlowerRun(run_id, status.status, status.sub_status, status.details)

    def live(self, folder: str) -> int | None:
        """Return a run that works in `folder` or is about to, None where there is none."""
        runs = self._client.ListRuns(ListRunsRequest(limit=200)).run_dict.values()
        live = (
            int(run.run_id)
            for run in runs
            if run.status.status != ENDED and run.override_config["folder"].string == folder
        )
        return next(live, None)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class _Bearer:
    """Puts the token into each call of `Control`."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers["authorization"] = f"Bearer {self._token}"
        return call_next(context)


class _Tokens(ControlAuthnPlugin):
    """Refuses control without a token."""

    def __init__(self, account: Account, note: Note) -> None:
        self._account = account
        self._note = note

    def get_login_details(self) -> AccountAuthLoginDetails | None:
        """There is no login: tokens are given by the coordinator's command line."""
        return None

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Return whether a call's token may control, and whose it is."""
        given = [value for key, value in metadata if key == ACCESS_TOKEN_KEY]
        who = self._account(str(given[0])) if given else None
        if who is None:
            self._note("control refused", {"reason": "wrong token" if given else "no token"})
            return False, None
        return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_FLWR_AID)

    def get_auth_tokens(self, device_code: str) -> AccountAuthCredentials | None:
        """Refuse: tokens are given by the coordinator's command line."""
        raise FlowerError(ApiErrorCode.NO_ACCOUNT_AUTH, "Tokens are given by healthfm-server token")

    def refresh_tokens(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[Sequence[tuple[str, str | bytes]] | None, AccountInfo | None]:
        """Refresh nothing: a token holds until it is revoked."""
        return None, None


class _Audit(EventLogWriterPlugin):
    """Writes each change made through Control to the audit log; reads are left out."""

    def __init__(self, note: Note) -> None:
        self._note = note

    def compose_log_before_event(
        self, request: Any, context: Any, account_info: AccountInfo | None, method_name: str
    ) -> LogEntry:
        """Return an entry that is not written."""
        return LogEntry("", Actor(None, None, ""), Event(method_name, None, None), "")

    def compose_log_after_event(
        self,
        request: Any,
        context: Any,
        account_info: AccountInfo | None,
        method_name: str,
        response: Any,
    ) -> LogEntry:
        """Return the entry of a call that has its answer."""
        run_id = getattr(response, "run_id", None) or getattr(request, "run_id", None)
        outcome = type(response).__name__ if isinstance(response, BaseException) else "done"
        client = context.client.host if getattr(context, "client", None) else ""
        return LogEntry("", Actor(None, None, client), Event(method_name, run_id, None), outcome)

    def write_log(self, log_entry: LogEntry) -> None:
        """Write an entry that has an outcome and is no read."""
        what = log_entry.event.action.rsplit("/", 1)[-1]
        if log_entry.status and not what.startswith(("list-", "stream-", "get-")):
            details = {"outcome": log_entry.status, "from": log_entry.actor.ip_address}
            self._note(f"control {what}", {**details, "run": str(log_entry.event.run_id or "")})
