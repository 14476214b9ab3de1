"""Who may see and do what on the page and in its API: the roles are the tokens'."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from healthfm_server.deploy.access_tokens import AccessToken, AccessTokens
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.gateway_routes import MAY
from healthfm_server.page.page_sessions import PageSessions, Session

Deed = Literal["look", "order"]
"""``look`` reads; ``order`` starts, pauses and stops runs, admits and revokes sites."""

API: Final = "/api/v1"


@dataclass(frozen=True)
class Visitor:
    """Who asks.

    Attributes:
        token: What the visitor showed, or what the session was begun with.
        session: Of the browser; None where a program showed the token itself.
    """

    token: AccessToken
    session: Session | None

    def may(self, deed: Deed) -> bool:
        """Whether the role permits it."""
        return deed in MAY[self.token.role]


Answer = Callable[[Request, Visitor], Awaitable[Response]]
Refusal = Callable[[Request, int, str], Response]


class PageAccess:
    """Lets requests through whose token or session permits them.

    Args:
        tokens: Of the study.
        sessions: Of the browsers.
        log: Takes what is refused.
        refusal: Makes the answer of a refusal: request, status, why.
    """

    def __init__(
        self, tokens: AccessTokens, sessions: PageSessions, log: AuditLog, refusal: Refusal
    ) -> None:
        self._tokens = tokens
        self.sessions = sessions
        self._log = log
        self._refusal = refusal

    def visitor(self, request: Request) -> Visitor | None:
        """Return who asks; None where nobody is known by what was shown."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if given:
            token = self._tokens.of(given) if scheme.lower() == "bearer" else None
            return None if token is None else Visitor(token, None)
        session = self.sessions.of(request.cookies.get(self.sessions.cookie, ""))
        return None if session is None else Visitor(session.token, session)

    def guarded(self, deed: Deed, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """Return `answer` for those who may, and a refusal for the others: 401, 403."""

        async def answer_if_permitted(request: Request) -> Response:
            visitor = self.visitor(request)
            if visitor is None:
                return self.refuse(request, 401, "no token, or one that is not known")
            if not visitor.may(deed):
                return self.refuse(request, 403, "wrong role", visitor.token.name)
            if request.method == "POST" and visitor.session and is_api(request):
                return self.refuse(request, 403, "a change needs the token", visitor.token.name)
            return await answer(request, visitor)

        return answer_if_permitted

    def refuse(self, request: Request, status: int, reason: str, token: str = "") -> Response:
        """Note a refusal and return its answer."""
        path = request.scope["path"][:200]
        self._log.note_refusal("page refused", {"path": path, "reason": reason, "token": token})
        return self._refusal(request, status, reason)


def is_api(request: Request) -> bool:
    """Whether a program asks, and JSON is the answer."""
    return str(request.scope["path"]).startswith(f"{API}/")


def api_refusal(status: int, reason: str, more: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a refusal as the API answers it."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": reason, **(more or {})}, status, headers)
