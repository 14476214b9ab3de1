"""The application of the page: sign-in, the API, the pages, and what all answers have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from healthfm_core.errors import HealthFMError, TrustError
from healthfm_server.deploy.access_tokens import AccessToken
from healthfm_server.deploy.study_folder import LOCAL, StudyFolder
from healthfm_server.page.action_pages import ActionPages
from healthfm_server.page.page_access import PageAccess, Visitor, api_refusal, is_api
from healthfm_server.page.page_frame import PageFrame, read_form
from healthfm_server.page.page_security import OnlyFromHere
from healthfm_server.page.page_sessions import LONGEST_S, PageSessions
from healthfm_server.page.page_views import PageViews
from healthfm_server.page.report_pages import ReportPages
from healthfm_server.page.study_actions import StudyActions
from healthfm_server.page.study_api import StudyApi, explained
from healthfm_server.page.study_view import StudyView

STATIC: Final = Path(__file__).parent / "static"
FILES: Final = ("coordinator.css", "coordinator.js", "icon.svg")
NOT_KNOWN: Final = "This token is not known, or the link was used before."


class CoordinatorPage:
    """The page of one study.

    Args:
        study: The study.
    """

    def __init__(self, study: StudyFolder) -> None:
        self.study = study
        self.view = StudyView(study)
        self.sessions = PageSessions(study.tokens, own_token(study))
        self.log = study.audit("page")
        self.frame = PageFrame(study.settings.study, self.log)
        self.study_actions = StudyActions(study, self.log)
        self.actions = ActionPages(study, self.study_actions, self.frame)
        self.views = PageViews(self.view, self.frame)
        self.reports = ReportPages(study)
        self.access = PageAccess(study.tokens, self.sessions, self.log, self.refusal)

    def app(self) -> Starlette:
        """Return the application, for loopback."""
        api = StudyApi(self.view)
        return Starlette(
            routes=[
                *api.routes(self.access),
                *self.actions.routes(self.access),
                *self.views.routes(self.access),
                *self.reports.routes(self.access),
                Route("/sign-in", self.sign_in_form, methods=["GET"]),
                Route("/sign-in", self.sign_in, methods=["POST"]),
                Route("/sign-out", self.access.guarded("look", self.sign_out), methods=["POST"]),
                Route("/static/{file}", self.static, methods=["GET"]),
            ],
            middleware=[Middleware(OnlyFromHere)],
            exception_handlers={HealthFMError: self.explained},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await self.reports.close()

    async def sign_in_form(self, request: Request) -> Response:
        """Ask for a token; the script of a one-time link fills it in."""
        return self.frame.page("sign_in.html.j2", None, said="")

    async def sign_in(self, request: Request) -> Response:
        """Begin a session, where the token is known."""
        form = await read_form(request)
        cookie = await run_in_threadpool(self.sessions.begin, form.get("token", ""))
        if cookie is None:
            self.access.refuse(request, 401, "wrong token")
            return self.frame.page("sign_in.html.j2", None, 401, said=NOT_KNOWN)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            self.sessions.cookie, cookie, int(LONGEST_S), httponly=True, samesite="strict"
        )
        return answer

    async def sign_out(self, request: Request, visitor: Visitor) -> Response:
        """End the session."""
        await self.frame.form_of(request, visitor)
        self.sessions.end(request.cookies.get(self.sessions.cookie, ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(self.sessions.cookie, httponly=True, samesite="strict")
        return answer

    async def static(self, request: Request) -> Response:
        """Answer a style, a script or the icon: the only files there are, and no secret."""
        name = request.path_params["file"]
        return FileResponse(STATIC / name) if name in FILES else Response("not there", 404)

    async def explained(self, request: Request, error: Exception) -> Response:
        """Say in one sentence what cannot be done."""
        assert isinstance(error, HealthFMError)
        answer = explained(error)
        if is_api(request):
            return answer
        return self.said(request, answer.status_code, "This cannot be done", str(error))

    def refusal(self, request: Request, status: int, reason: str) -> Response:
        """Return what whoever may not is answered."""
        if is_api(request):
            return api_refusal(status, reason)
        if status == 401:
            return self.frame.page("sign_in.html.j2", None, 401, said="")
        return self.said(request, status, "You may not do this", reason)

    def said(self, request: Request, status: int, heading: str, sentence: str) -> Response:
        """Return a page with one sentence."""
        visitor = self.access.visitor(request)
        visitor = visitor if visitor is not None and visitor.session else None
        about = {"heading": heading, "said": sentence, "back": "/"}
        return self.frame.page("refusal.html.j2", visitor, status, **about)


def own_token(study: StudyFolder) -> AccessToken:
    """Return the entry of this machine's token, for which a one-time link stands.

    Raises:
        TrustError: It was revoked (HF-821).
    """
    token = study.tokens.of(study.control_token())
    if token is None:
        raise TrustError(
            821,
            where=f"token {LOCAL}",
            seen="it was revoked",
            do="Restore tokens.json from a backup: the study's own processes need it too",
        )
    return token
