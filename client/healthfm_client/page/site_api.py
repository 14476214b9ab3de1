"""The site's API: what its page shows and changes, as JSON; `site_openapi` describes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from healthfm_client.egress.log_search import find_lines, line_of
from healthfm_client.page.egress_lines import query_of
from healthfm_client.page.site_actions import EFFECTS, SiteActions
from healthfm_client.page.site_openapi import site_description
from healthfm_client.page.site_pages import no_such_line
from healthfm_client.page.site_view import SiteView
from healthfm_client.site.run_approvals import Answer
from healthfm_core.errors import TrustError
from healthfm_core.local_page.page_access import API, PageAccess, Visitor
from healthfm_core.local_page.page_frame import body_of, number_of

MOST_ROWS: Final = 1000
USUAL_ROWS: Final = 100
Asked = Callable[[Request], Any]


class SiteApi:
    """The calls.

    Args:
        view: The site.
        actions: Changes of it.
        link_secret: Makes what a one-time link of the page ends with.
    """

    def __init__(
        self, view: SiteView, actions: SiteActions, link_secret: Callable[[], str]
    ) -> None:
        self._view = view
        self._actions = actions
        self._link_secret = link_secret

    def routes(self, access: PageAccess[str]) -> list[Route]:
        """Return the routes, for who has the page's token."""
        reads: dict[str, Asked] = {
            "/status": lambda request: self._view.status(),
            "/runs": lambda request: {"runs": self._view.runs()},
            "/runs/{run}": lambda request: self._view.run(request.path_params["run"])[1],
            "/left": self._left,
            "/left/{number:int}": self._line,
            "/log": lambda request: self._view.log.as_json(),
            "/privacy": lambda request: self._view.budget.as_json(),
            "/data": lambda request: {"stores": self._view.data()},
            "/doctor": lambda request: self._view.doctor.as_json(),
            "/openapi.json": lambda request: site_description(),
        }
        starts = {
            "/log": self._view.log.start,
            "/privacy": self._view.budget.start,
            "/data": self._view.check_quality,
            "/doctor": self._view.doctor.start,
        }
        look = [
            Route(f"{API}{path}", access.guarded("look", _reading(asked)), methods=["GET"])
            for path, asked in reads.items()
        ]
        deeds = {
            **{path: _starting(start) for path, start in starts.items()},
            **{f"/{deed}": self._changing(deed) for deed in EFFECTS},
            "/runs/{run}/approve": self._answering("approved"),
            "/runs/{run}/deny": self._answering("denied"),
            "/links": self.link,
        }
        return [*look, *access.changes(deeds)]

    async def link(self, request: Request, visitor: Visitor[str]) -> Response:
        """Make what another one-time link ends with."""
        return JSONResponse({"secret": self._link_secret()}, 201)

    def _left(self, request: Request) -> dict[str, Any]:
        query, before = query_of(request.query_params), number_of(request, "before", 0)
        limit = min(max(number_of(request, "limit", USUAL_ROWS), 1), MOST_ROWS)
        found = find_lines(self._view.home.log(), query, before, limit)
        return {"lines": found.lines, "earlier": found.earlier, "reached": found.reached}

    def _line(self, request: Request) -> dict[str, Any]:
        number = request.path_params["number"]
        line = line_of(self._view.home.log(), number)
        if line is None:
            raise no_such_line(number)
        return line

    def _changing(self, deed: str) -> Any:
        async def change(request: Request, visitor: Visitor[str]) -> Response:
            state = await run_in_threadpool(self._actions.change, deed)
            return JSONResponse({"state": state})

        return change

    def _answering(self, answer: Answer) -> Any:
        async def say(request: Request, visitor: Visitor[str]) -> Response:
            digest, further = _answer_of(await body_of(request))
            run = request.path_params["run"]
            asked = await run_in_threadpool(
                self._actions.answer, run, answer, digest, further=further
            )
            told = {"run": asked.run, "called": asked.called, "answer": asked.answer}
            return JSONResponse({**told, "further": asked.further})

        return say


def _reading(asked: Asked) -> Any:
    async def answer(request: Request, visitor: Visitor[str]) -> Response:
        return JSONResponse(await run_in_threadpool(asked, request))

    return answer


def _starting(start: Callable[[], None]) -> Any:
    async def answer(request: Request, visitor: Visitor[str]) -> Response:
        await run_in_threadpool(start)
        return JSONResponse({"running": True}, 202)

    return answer


def _answer_of(body: bytes) -> tuple[str, bool]:
    """Return the digest of what was read, and whether further runs are meant too.

    Raises:
        TrustError: It is not what the description says (HF-831).
    """
    try:
        asked = json.loads(body)
        digest, further = asked.pop("digest"), asked.pop("further", False)
        if asked or not isinstance(digest, str) or not isinstance(further, bool):
            raise ValueError
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        wanted = "digest of the request that was read, and further: true or false"
        raise TrustError(831, where="answer", seen="other fields", wanted=wanted) from error
    return digest, further
