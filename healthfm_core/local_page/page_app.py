"""The application of a page: sign-in, the API, a session's pages, and what all answers have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from healthfm_core.errors import HealthFMError
from healthfm_core.local_page.page_access import (
    PageAccess,
    PageRules,
    Visitor,
    api_refusal,
    is_api,
)
from healthfm_core.local_page.page_frame import PageFrame, read_form
from healthfm_core.local_page.page_security import HEADERS, OnlyFromHere
from healthfm_core.local_page.page_sessions import LONGEST_S, SESSIONS, PageSessions, Session, Who
from healthfm_core.local_page.page_templates import PageTemplates

SHARED: Final = Path(__file__).parent / "static"
NOT_KNOWN: Final = "This token is not known, or the link was used before."
NOT_FORESEEN: Final = (
    "Something went wrong that nobody foresaw. The program that serves this page wrote what it was "
    "into the terminal that it was started in: send that to whoever looks after HealthFM here. "
    "Look at the overview before you try again: it may have been done in part."
)


@dataclass(frozen=True)
class PageParts:
    """What makes one page another than the next.

    Attributes:
        title: What stands at the head of each page.
        package: Has a folder ``templates``, with ``page.html.j2`` and ``sign_in.html.j2`` in it.
        files: Served beside those that all pages share.
        missing: Codes of errors about what is not there.
        sign_in: Values of ``sign_in.html.j2``.
    """

    title: str
    package: str
    files: Sequence[Path]
    missing: Collection[int]
    sign_in: Mapping[str, object] = field(default_factory=dict)


class LocalPage(Generic[Who]):
    """A page on loopback.

    Args:
        parts: What is its own.
        rules: Whom it knows.
        sessions: Of the browsers.

    Attributes:
        sessions: As given.
        frame: Makes its pages.
        access: Lets requests through.
    """

    def __init__(
        self, parts: PageParts, rules: PageRules[Who], sessions: PageSessions[Who]
    ) -> None:
        self._parts = parts
        self._files = {file.name: file for file in (*SHARED.iterdir(), *parts.files)}
        self.sessions = sessions
        self.frame = PageFrame(parts.title, PageTemplates(parts.package), rules)
        self.access = PageAccess(rules, sessions, self.refusal)

    def app(
        self,
        api: Sequence[BaseRoute],
        pages: Sequence[BaseRoute],
        close: Callable[[], Awaitable[None]] | None = None,
        ways_in: Sequence[BaseRoute] = (),
    ) -> Starlette:
        """Return the application, for loopback.

        Args:
            api: Routes for programs, which show a token.
            pages: Routes of a session's pages, below its own address.
            close: Ends what the pages began, when the server ends.
            ways_in: Routes for who has not signed in, beside ``/sign-in``.
        """

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            if close is not None:
                await close()

        sign_out = Route("/sign-out", self.access.guarded("look", self.sign_out), methods=["POST"])
        return Starlette(
            routes=[
                *api,
                Mount(f"{SESSIONS}/{{key}}", routes=[*pages, sign_out]),
                *ways_in,
                Route("/", self.nobody, methods=["GET"]),
                Route("/sign-in", self.sign_in_form, methods=["GET"]),
                Route("/sign-in", self.sign_in, methods=["POST"]),
                Route("/static/{file}", self.static, methods=["GET"]),
            ],
            middleware=[Middleware(OnlyFromHere)],
            exception_handlers={HealthFMError: self.explained, Exception: self.unforeseen},
            lifespan=lifespan,
        )

    async def nobody(self, request: Request) -> Response:
        """Ask who has no session's address to sign in."""
        return self.sign_in_page(401)

    async def sign_in_form(self, request: Request) -> Response:
        """Ask for a token; the script of a one-time link fills it in."""
        return self.sign_in_page()

    async def sign_in(self, request: Request) -> Response:
        """Begin a session, where the token is known."""
        form = await read_form(request)
        begun = await run_in_threadpool(self.sessions.begin, form.get("token", ""))
        if begun is None:
            self.access.refuse(request, 401, "wrong token")
            return self.sign_in_page(401, NOT_KNOWN)
        cookie, session = begun
        return self.with_cookie(RedirectResponse(f"{session.root}/", 303), cookie, session)

    def sign_in_page(self, status: int = 200, said: str = "") -> Response:
        """Return the page that asks to sign in.

        Args:
            status: Of the answer.
            said: Why nobody is signed in yet.
        """
        values = {**self._parts.sign_in, "said": said}
        return self.frame.page("sign_in.html.j2", None, status, **values)

    def with_cookie(self, answer: Response, cookie: str, session: Session[Who]) -> Response:
        """Return an answer that gives a browser the cookie of its session."""
        answer.set_cookie(
            self.sessions.cookie,
            cookie,
            int(LONGEST_S),
            path=f"{session.root}/",
            httponly=True,
            samesite="strict",
        )
        return answer

    async def sign_out(self, request: Request, visitor: Visitor[Who]) -> Response:
        """End the session."""
        await self.frame.form_of(request, visitor)
        name = self.sessions.cookie
        self.sessions.end(request.cookies.get(name, ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(name, path=f"{visitor.root}/", httponly=True, samesite="strict")
        return answer

    async def static(self, request: Request) -> Response:
        """Answer a style, a script or the icon: the only files there are, and no secret."""
        file = self._files.get(request.path_params["file"])
        return Response("not there", 404) if file is None else FileResponse(file)

    async def explained(self, request: Request, error: Exception) -> Response:
        """Say in one sentence what cannot be done."""
        assert isinstance(error, HealthFMError)
        status = 404 if error.number in self._parts.missing else 400
        if is_api(request):
            return api_refusal(status, str(error), {"code": f"HF-{error.number}"})
        return self._said(request, status, "This cannot be done", str(error))

    async def unforeseen(self, request: Request, error: Exception) -> Response:
        """Say that something went wrong; the server itself writes down what it was."""
        if is_api(request):
            answer: Response = api_refusal(500, NOT_FORESEEN)
        else:
            answer = self._said(request, 500, "Something went wrong", NOT_FORESEEN)
        answer.headers.update(HEADERS)  # an answer to what was not foreseen passes no middleware
        return answer

    def refusal(self, request: Request, status: int, reason: str) -> Response:
        """Return what whoever may not is answered."""
        if is_api(request):
            return api_refusal(status, reason)
        if status == 401:
            return self.sign_in_page(401)
        return self._said(request, status, "You may not do this", reason)

    def _said(self, request: Request, status: int, heading: str, sentence: str) -> Response:
        visitor = self.access.visitor(request)
        about = {"heading": heading, "said": sentence, "back": "./" if visitor else "/"}
        return self.frame.page("refusal.html.j2", visitor, status, **about)
