"""The one public port: Flower's Fleet API for sites with a certificate, and our own few routes.

Everything else of the SuperLink (starting runs, listing nodes, sending apps) stays on loopback and
cannot be reached from here: any other path is answered as one that does not exist. A site's
certificate and its Flower node key have to belong together.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import httpx
import uvicorn
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    load_pem_public_key,
    load_ssh_public_key,
)
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from healthfm_core.errors import HealthFMError
from healthfm_core.trust import fingerprint
from healthfm_core.trust.site_registry import AdmittedSite
from healthfm_server.deploy.audit_log import WINDOW_S, AuditLog
from healthfm_server.deploy.caller_limits import CallerLimits, Pace
from healthfm_server.deploy.gateway_routes import OwnRoutes
from healthfm_server.deploy.gateway_tls import PEER, GatewayTLSContext, Peer, PeerProtocol
from healthfm_server.deploy.public_port import PublicPort, raise_descriptors
from healthfm_server.deploy.site_calls import WRITE_S, SiteCalls
from healthfm_server.deploy.study_folder import LOOPBACK, StudyFolder
from healthfm_server.deploy.study_status import CONNECTED

FOLLOW_S: Final = 1.0
"""Seconds between two looks at certificate and revocation list."""
NODE_KEY_HEADER: Final = "flwr-public-key"
FLEET: Final = "/v1/fleet/"
Answer = Callable[[Request], Awaitable[Response]]
CALLS: Final = (
    *("activate-node", "deactivate-node", "send-node-heartbeat", "get-run", "get-fab"),
    *("pull-messages", "push-messages", "push-object", "pull-object", "confirm-message-received"),
)
"""The calls of a Flower node that knows its key; it registers by its kit, never by a call."""
PASSED_ON: Final = frozenset(
    {
        *("accept", "accept-encoding", "content-encoding", "content-length", "content-type"),
        *(NODE_KEY_HEADER, "flwr-signature", "flwr-timestamp"),
        *("flwr-package-name", "flwr-package-version", "flwr-component-name"),
    }
)
"""Headers of a call that the SuperLink needs; whatever else a caller invents stays here."""
_DROPPED: Final = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}


class TooLargeError(Exception):
    """A body is longer than it may be."""


class Fleet:
    """Forwards a site's calls to the SuperLink, as a stream in both directions.

    Args:
        study: Whose sites may call.
        log: The audit log.
        client: Speaks to the SuperLink.
        limits: How fast a site may call.
    """

    def __init__(
        self, study: StudyFolder, log: AuditLog, client: httpx.AsyncClient, limits: CallerLimits
    ) -> None:
        self._study = study
        self._log = log
        self.client = client
        self._limits = limits
        self._paces: dict[str, Pace] = {}
        self._most_bytes = study.settings.most_body_mb * 1024 * 1024
        self._sites: dict[str, AdmittedSite] = {}
        self._stamp = 0
        self._noted: dict[tuple[str, str], float] = {}
        self.calls = SiteCalls(study.calls)

    async def __call__(self, request: Request) -> Response:
        """Answer one call."""
        peer: Peer | None = request.scope.get(PEER)
        reason = self._why_not(peer, request)
        if peer is None or reason is not None:
            return self._refuse(request, peer, 401, reason or "no certificate")
        self.calls.note(peer.name)
        wait_s = self._pace_of(peer.name).take(time.monotonic())
        if wait_s:
            await asyncio.sleep(wait_s)
        try:
            if int(request.headers.get("content-length", 0)) > self._most_bytes:
                raise TooLargeError
            return await self._forward(request, peer)
        except TooLargeError:
            return self._refuse(request, peer, 413, "body too large")
        except httpx.TransportError:
            return Response("the coordinator is starting", 503, {"retry-after": "2"})
        except ClientDisconnect:
            return Response("the body was cut short", 400)

    def _why_not(self, peer: Peer | None, request: Request) -> str | None:
        if peer is None:
            return "no certificate"
        site = self._registered().get(peer.name)
        if site is None:
            return "unknown site"
        if site.revoked:
            return "revoked site"
        if not _same_key(request.headers.get(NODE_KEY_HEADER, ""), site):
            return "another site's node key"
        return None

    def admits(self, peer: Peer) -> bool:
        """Return whether a certificate's holder is a site that may call."""
        site = self._registered().get(peer.name)
        return site is not None and not site.revoked

    def _pace_of(self, site: str) -> Pace:
        limits, now = self._limits, time.monotonic()
        made = Pace(limits.site_calls_per_s, float(limits.site_burst), now)
        return self._paces.setdefault(site, made)

    def _registered(self) -> dict[str, AdmittedSite]:
        """Return the sites, read again when their file has changed: a revocation works at once."""
        path = self._study.sites.path
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        if stamp != self._stamp:
            self._sites, self._stamp = self._study.sites.sites(), stamp
        return self._sites

    async def _forward(self, request: Request, peer: Peer) -> Response:
        headers = [(k, v) for k, v in request.headers.items() if k in PASSED_ON]
        path = request.scope["path"]
        passed = self.client.build_request(
            "POST", path, headers=headers, content=self._limited(request, peer)
        )
        answer = await self.client.send(passed, stream=True)
        if path == FLEET + "activate-node":
            event = CONNECTED if answer.is_success else "site refused by Flower"
            self._note_now_and_then(event, peer.name, _who(request, peer), answer.status_code)
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _DROPPED}
        pieces = self._taken(answer.aiter_raw(), peer)
        return StreamingResponse(
            pieces, answer.status_code, kept, background=BackgroundTask(answer.aclose)
        )

    async def _taken(self, pieces: AsyncIterator[bytes], peer: Peer) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.calls.note(peer.name)
            yield piece

    def _note_now_and_then(
        self, event: str, site: str, details: dict[str, str], status: int
    ) -> None:
        """Note an event of a site's unless it was noted just now: its node may call without end."""
        now = time.monotonic()
        if now - self._noted.get((event, site), -math.inf) >= WINDOW_S:
            self._noted[event, site] = now
            self._log.note(event, details | {"status": str(status)})

    async def _limited(self, request: Request, peer: Peer) -> AsyncIterator[bytes]:
        seen = 0
        async for piece in request.stream():
            self.calls.note(peer.name)
            seen += len(piece)
            if seen > self._most_bytes:
                raise TooLargeError
            yield piece

    def _refuse(self, request: Request, peer: Peer | None, status: int, reason: str) -> Response:
        details = _who(request, peer) | {"path": request.scope["path"][:200], "reason": reason}
        self._log.note_refusal("call refused", details)
        return Response(reason, status)


def superlink_client(study: StudyFolder, limits: CallerLimits) -> httpx.AsyncClient:
    """Return what speaks to the SuperLink on loopback."""
    most = min(1000, limits.unknown)  # both are open files of this process
    return httpx.AsyncClient(
        base_url=f"http://{LOOPBACK}:{study.settings.superlink_port}",
        trust_env=False,
        timeout=httpx.Timeout(60.0, connect=2.0),
        limits=httpx.Limits(max_connections=most, max_keepalive_connections=100),
    )


def make_gateway(study: StudyFolder, log: AuditLog, fleet: Fleet) -> Starlette:
    """Return the application of the public port."""

    def refuse(request: Request, event: str, reason: str, status: int) -> Response:
        path = request.scope["raw_path"][:200].decode("ascii", "replace")
        details = _who(request, request.scope.get(PEER)) | {"path": path, "reason": reason}
        log.note_refusal(event, details)
        return Response(reason, status)

    async def unpublished(request: Request, error: Exception | None = None) -> Response:
        return refuse(request, "path refused", "there is nothing here", 404)

    async def ambiguous(request: Request) -> Response:
        return refuse(request, "call refused", "two lengths", 400)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with fleet.client:
            yield
        await run_in_threadpool(log.close)

    app = Starlette(
        routes=[
            *(Route(FLEET + call, fleet.__call__, methods=["POST"]) for call in CALLS),
            *OwnRoutes(study, log).routes(),
        ],
        middleware=[Middleware(_OneReading, unpublished=unpublished, ambiguous=ambiguous)],
        exception_handlers={404: unpublished, 405: unpublished, HealthFMError: _explained},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would answer with an address of the caller's choice
    return app


class _OneReading:
    """Lets only requests through that can be read in one way, here and behind the gateway.

    A path has to be as it stands on the wire, with nothing encoded, and a body has one length.
    """

    def __init__(self, app: ASGIApp, unpublished: Answer, ambiguous: Answer) -> None:
        self._app = app
        self._unpublished = unpublished
        self._ambiguous = ambiguous

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = [name for name, _ in scope["headers"]]
            answer: Answer | None = None
            if scope["raw_path"] != scope["path"].encode() or "/." in scope["path"]:
                answer = self._unpublished
            elif b"transfer-encoding" in names and b"content-length" in names:
                answer = self._ambiguous
            if answer is not None:
                response = await answer(Request(scope, receive))
                response.headers["connection"] = "close"
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _explained(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


def _who(request: Request, peer: Peer | None) -> dict[str, str]:
    address = request.client.host if request.client else ""
    return {"from": address, "site": peer.name if peer else ""}


def _same_key(header: str, site: AdmittedSite) -> bool:
    """Whether the node key of a call's header is the registered one of `site`."""
    try:
        given = load_pem_public_key(base64.b64decode(header, validate=True))
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        return False
    known = load_ssh_public_key(site.node.encode())
    return fingerprint.same(fingerprint.of_key(given), fingerprint.of_key(known))


def serve(study: StudyFolder) -> None:
    """Serve the public port until killed."""
    log = study.background_audit("gateway")
    limits = study.settings.limits.within(raise_descriptors())
    asyncio.run(serve_port(study, log, limits))


async def serve_port(
    study: StudyFolder,
    log: AuditLog,
    limits: CallerLimits,
    started: Callable[[uvicorn.Server, GatewayTLSContext, PublicPort], None] | None = None,
) -> None:
    """Serve the public port until the server is told to end.

    Args:
        study: Whose port it is.
        log: The audit log.
        limits: How many callers, how fast.
        started: Is told when the port takes connections.

    Raises:
        OSError: The address cannot be listened on.
    """
    context = GatewayTLSContext.of(study.server / "identity.pem", study.server / "trust.pem")
    fleet = Fleet(study, log, superlink_client(study, limits), limits)
    config = uvicorn.Config(
        make_gateway(study, log, fleet),
        http=PeerProtocol,
        loop="asyncio",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=32 * 1024,
        timeout_keep_alive=75,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    port = PublicPort(server, context, log, limits, fleet.admits)
    tasks = _follow(context), port.sweep(), _write_calls(fleet.calls, port)
    beside = [asyncio.create_task(task) for task in tasks]
    try:
        for row in study.audit("gateway").rows(CONNECTED, newest=2):
            port.remember(row["from"], row["at"])
        port.listen(study.settings.bind, study.settings.port)
        if started is not None:
            started(server, context, port)
        await serving
    finally:
        server.should_exit = True
        port.close()
        for task in beside:
            task.cancel()
        await serving


async def _follow(context: GatewayTLSContext) -> None:
    """Load a new certificate or revocation list; one that cannot be read is tried again."""
    while True:
        await asyncio.sleep(FOLLOW_S)
        try:
            context.follow()
        except OSError as error:
            logging.getLogger(__name__).warning("the certificate cannot be read: %s", error)


async def _write_calls(calls: SiteCalls, port: PublicPort) -> None:
    """Write every second when the sites called; where the disk refuses, it is tried again."""
    while True:
        try:
            await run_in_threadpool(calls.write, port.callers.sites())
        except OSError as error:
            logging.getLogger(__name__).warning("the sites' calls cannot be written: %s", error)
        await asyncio.sleep(WRITE_S)
