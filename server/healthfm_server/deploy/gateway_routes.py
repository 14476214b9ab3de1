"""Our own routes of the public port: each needs a token with a role, or a certificate."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from healthfm_core.errors import HealthFMError
from healthfm_core.federation import protocol
from healthfm_core.prometheus_text import MEDIA_TYPE
from healthfm_core.trust import files
from healthfm_core.trust.archive import MOST_BYTES
from healthfm_core.trust.request import read_request
from healthfm_core.trust.site_registry import AdmittedSite
from healthfm_server.deploy.access_tokens import AccessToken, Role
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.gateway_tls import PEER
from healthfm_server.deploy.kit_renewal import Renewals
from healthfm_server.deploy.root_rotation import note_shown
from healthfm_server.deploy.run_orders import ACTIONS, RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.study_metrics import study_metrics
from healthfm_server.deploy.study_status import study_status
from healthfm_server.deploy.told_gains import MOST_BYTES as LARGEST_GAIN
from healthfm_server.deploy.told_gains import take_gain

MAY: Final[dict[Role, frozenset[str]]] = {
    "coordinator": frozenset({"look", "order", "enrol"}),
    "viewer": frozenset({"look"}),
    "enrolment": frozenset({"enrol"}),
}
MOST_WAITING: Final = 1000
"""Requests that may wait to be signed; more are refused, so that nobody fills the disk."""


class OwnRoutes:
    """Status, orders and enrolment.

    Args:
        study: The study.
        log: The audit log.
    """

    def __init__(self, study: StudyFolder, log: AuditLog) -> None:
        self._study = study
        self._log = log
        self._renewals = Renewals(study)
        self._release = {
            "study": study.settings.study,
            "release": version("healthfm"),
            "protocol": protocol.VERSION,
        }

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/v1/healthfm/hello", self.hello, methods=["GET"]),
            Route("/v1/healthfm/status", self.status, methods=["GET"]),
            Route("/v1/healthfm/runs/{name}/{action}", self.order, methods=["POST"]),
            Route("/v1/healthfm/enrolment", self.enrolment, methods=["POST"]),
            Route("/v1/healthfm/renewal", self.renewal, methods=["POST"]),
            Route("/v1/healthfm/gain", self.gain, methods=["POST"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def hello(self, request: Request) -> Response:
        """Answer a site with a certificate, or whoever has a token, with this server's release."""
        site = self._site(request)
        if site is not None:
            await run_in_threadpool(note_shown, self._study, site.name, request.scope[PEER].root)
            root = await run_in_threadpool(self._study.root_fingerprint)
            return JSONResponse({**self._release, "site": site.name, "root": root})
        token = self._token(request, "look")
        if isinstance(token, Response):
            return token
        return JSONResponse({**self._release, "token": token.name})

    async def status(self, request: Request) -> Response:
        """Answer what `healthfm-server status` prints."""
        token = self._token(request, "look")
        if isinstance(token, Response):
            return token
        return JSONResponse(await run_in_threadpool(study_status, self._study))

    async def metrics(self, request: Request) -> Response:
        """Answer the study's figures as Prometheus reads them."""
        token = self._token(request, "look")
        if isinstance(token, Response):
            return token
        figures = await run_in_threadpool(study_metrics, self._study)
        return Response(figures, media_type=MEDIA_TYPE)

    async def order(self, request: Request) -> Response:
        """Pause, resume or stop a run."""
        token = self._token(request, "order")
        if isinstance(token, Response):
            return token
        action = request.path_params["action"]
        if action not in ACTIONS:
            return Response("an action is pause, resume or stop", 404)
        order = RunOrder.find(self._study.runs, request.path_params["name"])
        await run_in_threadpool(order.want, ACTIONS[action])
        self._log.note(f"run {action}", {"run": order.name, "by": token.name})
        return JSONResponse({"run": order.name, "wanted": order.wanted})

    async def renewal(self, request: Request) -> Response:
        """Return a site's new kit, or accept its request for one."""
        site = self._site(request)
        if site is None:
            return Response("no certificate of a site", 401)
        data = await _body(request)
        if data is None:
            return Response("too large", 413)
        kit = await run_in_threadpool(self._renewals.ask, site, data)
        return Response(status_code=202) if kit is None else Response(kit)

    async def gain(self, request: Request) -> Response:
        """Keep what a site tells of its own model beside a run's."""
        site = self._site(request)
        if site is None:
            return Response("no certificate of a site", 401)
        data = await _body(request, LARGEST_GAIN)
        if data is None:
            return Response("too large", 413)
        order = await run_in_threadpool(take_gain, self._study, site.name, data)
        self._log.note("gain told", {"site": site.name, "run": order.name})
        return JSONResponse({"run": order.name})

    def _site(self, request: Request) -> AdmittedSite | None:
        """Return the site that calls; None where it is no site or was revoked."""
        peer = request.scope.get(PEER)
        site = self._study.sites.sites().get(peer.name) if peer else None
        return None if site is None or site.revoked else site

    async def enrolment(self, request: Request) -> Response:
        """Accept a site's request, for the coordinator to look at and sign."""
        token = self._token(request, "enrol")
        if isinstance(token, Response):
            return token
        folder = self._study.path / "requests"
        waiting = len(list(folder.glob("*.zip"))) if folder.is_dir() else 0
        data = await _body(request) if waiting < MOST_WAITING else None
        if data is None:
            return Response("too large, or too many requests wait", 413)
        try:
            asked = read_request(data)
        except HealthFMError as error:
            return JSONResponse({"error": str(error)}, 400)
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        files.write_new(folder / f"{asked.site}-{stamp}.zip", data)
        self._log.note("request received", {"site": asked.site, "by": token.name})
        return JSONResponse({"site": asked.site, "fingerprints": asked.fingerprints()})

    def _token(self, request: Request, deed: str) -> AccessToken | Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        token = self._study.tokens.of(given) if scheme.lower() == "bearer" and given else None
        if token is not None and deed in MAY[token.role]:
            return token
        details = {
            "from": request.client.host if request.client else "",
            "path": request.scope["path"][:200],
            "reason": "no token" if not given else "wrong token" if not token else "wrong role",
            "token": token.name if token else "",
        }
        self._log.note_refusal("call refused", details)
        status = 401 if token is None else 403
        return Response(str(details["reason"]), status, {"www-authenticate": "Bearer"})


async def _body(request: Request, most: int = MOST_BYTES) -> bytes | None:
    """Return a request's body; None where it is larger than it may be: than an archive may."""
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            return None
    return data
