"""What every answer of the page has, and which requests it takes no notice of.

A page on loopback is reached by every site that the same browser shows: by a name that points to
this machine (DNS rebinding), by a form that another page sends (cross-site request forgery), in a
frame. So the host has to be loopback's, a change has to come from a page of ours, and the browser
is told what an answer may load and who may show it.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
"""By which the page may be asked for, with any port: ``ssh -L`` gives it another."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'self'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
SAFE: Final = frozenset({"GET", "HEAD"})


class OnlyFromHere:
    """Answers requests to loopback's names alone, and changes asked for by our own pages alone.

    Args:
        app: What answers the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = _why_not(scope["method"], Headers(scope=scope))
        answer = self._app if refusal is None else refusal
        await answer(scope, receive, with_headers)


def _why_not(method: str, headers: Headers) -> PlainTextResponse | None:
    host = headers.get("host", "")
    if _name_of(host) not in HOSTS:
        return PlainTextResponse("this page answers to 127.0.0.1 and localhost alone", 421)
    if method in SAFE:
        return None
    if headers.get("origin", f"http://{host}") != f"http://{host}":
        return PlainTextResponse("another page's request", 403)
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return PlainTextResponse("another page's request", 403)
    return None


def _name_of(host: str) -> str | None:
    """Return the name in a Host header, without its port; None where it is no such header."""
    try:
        return None if "@" in host else urlsplit(f"//{host}").hostname
    except ValueError:
        return None
