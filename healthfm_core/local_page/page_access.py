"""Who may see and do what on a page and in its API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Literal, Protocol, runtime_checkable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from healthfm_core.local_page.page_sessions import PageSessions, Session, Who

Deed = Literal["look", "order"]
"""``look`` reads; ``order`` changes something."""

API: Final = "/api/v1"


@runtime_checkable
class PageRules(Protocol[Who]):
    """Whom a page knows, and what they may do."""

    def of_token(self, given: str) -> Who | None:
        """Return whom a token stands for; None where it is not known."""

    def may(self, who: Who, deed: Deed) -> bool:
        """Whether somebody may do something."""

    def name(self, who: Who) -> str:
        """Return what somebody is called, on the page and in a log."""

    def note_refusal(self, details: Mapping[str, str]) -> None:
        """Put a refusal on record: ``path``, ``reason``, ``token``, whose name may be empty."""


@dataclass(frozen=True)
class Visitor(Generic[Who]):
    """Who asks.

    Attributes:
        who: Whom the token or session stands for.
        session: Of the browser; None where a program showed a token.
        rules: What they may do.
        here: The address that was asked for, without what follows it.
    """

    who: Who
    session: Session[Who] | None
    rules: PageRules[Who]
    here: str = "/"

    def may(self, deed: Deed) -> bool:
        """Whether it is permitted."""
        return self.rules.may(self.who, deed)

    @property
    def name(self) -> str:
        """What the visitor is called."""
        return self.rules.name(self.who)

    @property
    def root(self) -> str:
        """What every address of the visitor's pages begins with."""
        return "" if self.session is None else self.session.root


Answer = Callable[[Request, Visitor[Who]], Awaitable[Response]]
Refusal = Callable[[Request, int, str], Response]


class PageAccess(Generic[Who]):
    """Lets requests through whose token or session permits them.

    Args:
        rules: Whom the page knows.
        sessions: Of the browsers.
        refusal: Makes the answer of a refusal: request, status, why.
    """

    def __init__(
        self, rules: PageRules[Who], sessions: PageSessions[Who], refusal: Refusal
    ) -> None:
        self._rules = rules
        self.sessions = sessions
        self._refusal = refusal

    def visitor(self, request: Request) -> Visitor[Who] | None:
        """Return who asks; None where nobody is known by what was shown.

        The API takes a token, and a page the cookie of the session whose address it has.
        """
        path = str(request.scope["path"])
        if is_api(request):
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            known = scheme.lower() == "bearer" and given
            who = self._rules.of_token(given) if known else None
            return None if who is None else Visitor(who, None, self._rules, path)
        session = self.sessions.of(request.cookies.get(self.sessions.cookie, ""))
        if session is None or not session.has_key(str(request.path_params.get("key", ""))):
            return None
        return Visitor(session.who, session, self._rules, path)

    def guarded(self, deed: Deed, answer: Answer[Who]) -> Callable[[Request], Awaitable[Response]]:
        """Return `answer` for those who may, and a refusal for the others: 401, 403."""

        async def answer_if_permitted(request: Request) -> Response:
            visitor = self.visitor(request)
            if visitor is None:
                return self.refuse(request, 401, "no token, or one that is not known")
            if not visitor.may(deed):
                return self.refuse(request, 403, "wrong role", visitor.name)
            return await answer(request, visitor)

        return answer_if_permitted

    def changes(self, answers: Mapping[str, Answer[Who]]) -> list[Route]:
        """Return the API's routes that change something, each for who may order.

        Args:
            answers: Path below the API's → what is done when it is posted to.
        """
        return [
            Route(f"{API}{path}", self.guarded("order", answer), methods=["POST"])
            for path, answer in answers.items()
        ]

    def refuse(self, request: Request, status: int, reason: str, token: str = "") -> Response:
        """Note a refusal and return its answer."""
        path = str(request.scope["path"]).removeprefix(request.scope.get("root_path", ""))
        self._rules.note_refusal({"path": path[:200], "reason": reason, "token": token})
        return self._refusal(request, status, reason)


def is_api(request: Request) -> bool:
    """Whether a program asks, and JSON is the answer."""
    return str(request.scope["path"]).startswith(f"{API}/")


def api_refusal(status: int, reason: str, more: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a refusal as the API answers it."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": reason, **(more or {})}, status, headers)
