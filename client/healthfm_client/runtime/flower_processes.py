"""A site's node and its worker, as Flower has them, without what a site does not want of them.

A site runs two processes of Flower's making: the node, which speaks to the coordinator, and the
worker, which computes. Flower's own worker installs the coordinator's bundle and starts a Python
for every message. Ours answers with the app that the site installed, in one process that keeps its
data, and never looks into the bundle.
"""

from __future__ import annotations

import logging
import math
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, Self

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from healthfm_client.runtime.late_replies import RepliesToOneMessage
from healthfm_core.flower.supernode_internals import (
    PIECE_FETCHERS,
    AcquireTaskRequest,
    ErrorCode,
    FleetHttpClient,
    HeartbeatSender,
    NodeStateFactory,
    ObjectStoreFactory,
    RunNotRunningException,
    RuntimeHttpClient,
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SubStatus,
    SuperExecAuthHttpInterceptor,
    TaskType,
    connection_module,
    create_app,
    heartbeat_module,
    make_simple_http_retry_invoker,
    make_task_heartbeat_fn_http,
    node_module,
    pull_task_input,
    push_message,
    push_task_output,
    tasks_module,
)

LOOPBACK: Final = "127.0.0.1"
POLL_AFTER_REPLY_S: Final = 0.25
"""Between two questions to the coordinator right after an answer; Flower's own pause is 3 s."""
POLL_BACKOFF: Final = 0.05
"""Later, the share of the time since that answer: who waits longer asks less often."""
PIECE_RETRY_S: Final = 0.05
"""Before a piece of a message that is still on its way is asked for again; Flower's own is 1 s."""
HEARTBEAT_S: Final = 10
"""A worker that shows no life for twice this long is given up; Flower's own is 30 s."""
WORKER_POLL_S: Final = 0.1
"""Between two looks of the worker at the node, both on this machine."""
STOP_POLL_S: Final = 2.0
"""Between two questions whether the run that is computed still runs."""

_log = logging.getLogger(__name__)
_flowers = logging.getLogger("flwr")
_flowers.handlers.clear()  # it would write every line twice, and in colours
_flowers.setLevel(logging.INFO)


@dataclass(frozen=True)
class NodeSettings:
    """What a node is started with.

    Attributes:
        address: ``host:port`` of the coordinator.
        tls: Shows the site's certificate and trusts the study's roots alone.
        key: Flower's node key.
        secret: What the worker proves it knows.
        port: On loopback, where the worker finds the node.
        config: The site's settings for the app.
        stopped: Takes the number of a run that was stopped, so that computing for it ends.
        answered: Called each time the coordinator has answered.
    """

    address: str
    tls: ssl.SSLContext
    key: EllipticCurvePrivateKey
    secret: bytes
    port: int
    config: dict[str, str | int | float | bool]
    stopped: Callable[[int], None]
    answered: Callable[[], None]


def run_node(settings: NodeSettings) -> None:
    """Be the site's node until the connection is refused for good; who called starts it again."""
    factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    _serve_worker(factory, settings)
    with (
        _with_certificate(settings.tls, settings.answered),
        _fast_polling(),
        _fast_piece_retries(),
        _stop_watch(settings.stopped),
        _replaced(tasks_module, "HEARTBEAT_DEFAULT_INTERVAL", HEARTBEAT_S),
    ):
        node_module.start_client_internal(
            state_factory=factory,
            server_address=settings.address,
            node_config=settings.config,
            root_certificates=None,
            insecure=False,
            authentication_keys=(settings.key, settings.key.public_key()),
            isolation="process",
            superexec_auth_secret=settings.secret,
            runtime_api_address=f"{LOOPBACK}:{settings.port}",
            runtime_dependency_install=False,
        )


def _serve_worker(factory: NodeStateFactory, settings: NodeSettings) -> None:
    app = create_app(state_factory=factory, superexec_auth_secret=settings.secret)
    config = uvicorn.Config(
        app, host=LOOPBACK, port=settings.port, access_log=False, log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="for-the-worker", daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.05)
    if not server.started:
        raise OSError(f"port {settings.port} on loopback cannot be listened on")


@contextmanager
def _with_certificate(tls: ssl.SSLContext, answered: Callable[[], None]) -> Iterator[None]:
    """Let Flower's client show the site's certificate, and tell of answers: it has no settings."""

    class Client(FleetHttpClient):
        @classmethod
        def from_server_address(
            cls,
            server_address: str,
            insecure: bool,
            root_certificates: bytes | str | None,
            interceptors: Any,
            *,
            retry_invoker: Any = None,
        ) -> Self:
            url = f"https://{server_address}"
            return cls(url, interceptors=interceptors, verify=tls, retry_invoker=retry_invoker)

        def _unary_unary(self, **call: Any) -> Any:
            answer = super()._unary_unary(**call)
            answered()
            return answer

    with _replaced(connection_module, "FleetHttpClient", Client):
        yield


@contextmanager
def _fast_polling() -> Iterator[None]:
    """Let the node ask often while a run is on: Flower's pauses are not settable."""
    told = -math.inf

    def sleep(seconds: float) -> None:
        nonlocal told
        if seconds < node_pause_s(math.inf):  # it waits for the worker: a message is answered
            told = time.monotonic()
        time.sleep(min(seconds, node_pause_s(time.monotonic() - told)))

    with _replaced(node_module, "time", SimpleNamespace(sleep=sleep)):
        yield


def node_pause_s(waited_s: float) -> float:
    """Return the node's pause between two questions, so long after its last answer."""
    return min(max(POLL_AFTER_REPLY_S, POLL_BACKOFF * waited_s), 3.0)


@contextmanager
def _fast_piece_retries() -> Iterator[None]:
    """Let pieces of a message that are not there yet be asked for again soon."""
    before = [function.__kwdefaults__ for function in PIECE_FETCHERS]
    for function in PIECE_FETCHERS:
        function.__kwdefaults__ = {**function.__kwdefaults__, "initial_backoff": PIECE_RETRY_S}
    try:
        yield
    finally:
        for function, defaults in zip(PIECE_FETCHERS, before, strict=True):
            function.__kwdefaults__ = defaults


@contextmanager
def _stop_watch(stopped: Callable[[int], None]) -> Iterator[None]:
    """Ask, while a message is worked on, whether its run still runs; if not, let go of it.

    A run can end while pieces of its message are on their way. The worker, who is told of a message
    before it is whole, would wait for them for hours. Where the message stays behind, Flower makes
    an error of it once the worker is gone, and from then on sends every reply one message late.
    """
    pull, push = node_module._pull_and_store_message, node_module._push_messages
    at_work: list[tuple[Message, Callable[[int], Any]]] = []

    def pull_and_note(**given: Any) -> int | None:
        receive = given["receive"]

        def note() -> Any:
            received = receive()
            if received is not None:
                at_work[:] = [(received[0], given["get_run"])]
            return received

        names = ("pull_object", "confirm_message_received")
        ended: list[int] = []
        calls = {name: _noting_ended_runs(given[name], ended) for name in names}
        received_id = pull(**{**given, **calls, "receive": note})
        if ended:
            number = at_work[0][0].metadata.message_id
            given["state"].delete_messages(message_ids=[number])
            given["object_store"].delete(number)
            stopped(ended[0])
        return received_id

    def push_and_watch(**given: Any) -> None:
        done = threading.Event()
        watcher = threading.Thread(
            target=_watch, args=(done, *at_work[0], stopped, given), daemon=True
        )
        watcher.start()
        number, store = at_work[0][0].metadata.message_id, given["object_store"]
        try:
            push(**{**given, "state": RepliesToOneMessage(number, given["state"], store)})
        finally:
            done.set()

    with (
        _replaced(node_module, "_pull_and_store_message", pull_and_note),
        _replaced(node_module, "_push_messages", push_and_watch),
    ):
        yield


def _noting_ended_runs(call: Callable[..., Any], ended: list[int]) -> Callable[..., Any]:
    """Return `call` of a run, which notes a run that does not run any more."""

    def of_run(run_id: int, *rest: Any) -> Any:
        try:
            return call(run_id, *rest)
        except RunNotRunningException:
            ended.append(run_id)
            raise

    return of_run


def _watch(
    done: threading.Event,
    message: Message,
    get_run: Callable[[int], Any],
    stopped: Callable[[int], None],
    given: dict[str, Any],
) -> None:
    while not done.wait(STOP_POLL_S):
        try:
            get_run(message.metadata.run_id)
        except RunNotRunningException:
            stopped(message.metadata.run_id)
            error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "the run was stopped")
            reply = Message(error, reply_to=message)
            node_module._insert_message(reply, given["state"], given["object_store"])
            return


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


class Worker:
    """Computes what the node has received, one message after the other, in this process.

    Args:
        port: On loopback, where the node is.
        secret: What the node wants to see known.
        app: The site's own, installed app.
    """

    def __init__(self, port: int, secret: bytes, app: ClientApp) -> None:
        self._address = f"{LOOPBACK}:{port}"
        self._app = app
        self._tasks = self._client(
            SuperExecAuthHttpInterceptor(
                master_secret=secret,
                protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"}),
            )
        )
        self.run_id: int | None = None

    def run(self) -> None:
        """Work until killed."""
        with (
            _replaced(heartbeat_module, "HEARTBEAT_DEFAULT_INTERVAL", HEARTBEAT_S),
            _fast_piece_retries(),
        ):
            while True:
                if not self.work():
                    time.sleep(WORKER_POLL_S)

    def work(self) -> bool:
        """Answer one message if there is one; say whether there was."""
        acquired = self._tasks.AcquireTask(
            AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        )
        if not (acquired.HasField("task") and acquired.token):
            return False
        self.run_id = int(acquired.task.run_id)
        try:
            self._answer(acquired.token)
        finally:
            self.run_id = None
        return True

    def _answer(self, token: str) -> None:
        client = self._client(RuntimeTokenHttpInterceptor(token))
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
        heartbeat.start()
        context, status, details = None, SubStatus.FAILED, "it did not finish"
        try:
            message, context, _, _ = pull_task_input(client)
            push_message(client, self._computed(message, context), context)
            status, details = SubStatus.COMPLETED, ""
        except Exception as error:
            _log.exception("a message could not be answered")
            details = type(error).__name__
        finally:
            push_task_output(client, context, status, details)
            heartbeat.stop()
            client.close()

    def _computed(self, message: Message, context: Context) -> Message:
        begun, what = time.monotonic(), message.metadata
        said = f"{what.message_type} of round {what.group_id} of run {what.run_id}"
        _log.info("%s begun", said)
        reply = self._app(message, context)
        seconds = time.monotonic() - begun
        _log.info("%s answered, %.2f s of computing", said, seconds)
        return reply

    def _client(self, interceptor: Any) -> RuntimeHttpClient:
        return RuntimeHttpClient.from_server_address(
            server_address=self._address,
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), interceptor],
            retry_invoker=make_simple_http_retry_invoker(),
        )
