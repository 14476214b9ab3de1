"""The API: what ``status --json`` says and more, as JSON; `openapi` describes it."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from healthfm_core.local_page.page_access import API, PageAccess, Visitor
from healthfm_core.local_page.page_frame import number_of
from healthfm_server.page.openapi import description
from healthfm_server.page.page_rules import PageUser
from healthfm_server.page.study_view import StudyView

MOST_ROWS: Final = 1000
USUAL_ROWS: Final = 100


class StudyApi:
    """Reads of the API.

    Args:
        view: The study.
    """

    def __init__(self, view: StudyView) -> None:
        self._view = view

    def api_routes(self, access: PageAccess[PageUser]) -> list[Route]:
        """Return the routes, each for who may look."""
        reads = {
            "/status": self.status,
            "/runs": self.runs,
            "/runs/{name}": self.run,
            "/runs/{name}/history": self.history,
            "/runs/{name}/events": self.events,
            "/sites": self.sites,
            "/log": self.log,
            "/openapi.json": self.openapi,
        }
        return [
            Route(f"{API}{path}", access.guarded("look", answer), methods=["GET"])
            for path, answer in reads.items()
        ]

    async def status(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer what ``healthfm-server status --json`` prints."""
        return JSONResponse(await run_in_threadpool(self._view.status))

    async def runs(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer the runs of the status."""
        status = await run_in_threadpool(self._view.status)
        return JSONResponse({"runs": status["runs"]})

    async def run(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer one run, and what each site does in it now."""
        name = request.path_params["name"]
        return JSONResponse(await run_in_threadpool(self._view.run_facts, name))

    async def history(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer rows of a run's history."""
        after, limit = number_of(request, "after", 0), number_of(request, "limit", USUAL_ROWS)

        def rows() -> list[dict[str, Any]]:
            run = self._view.run(request.path_params["name"])
            return list(run.history.rows(after, min(limit, MOST_ROWS)))

        return JSONResponse({"rows": await run_in_threadpool(rows)})

    async def events(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer a run's newest events."""
        limit = min(number_of(request, "limit", USUAL_ROWS), MOST_ROWS)
        name = request.path_params["name"]
        events = await run_in_threadpool(lambda: self._view.run(name).events(limit))
        return JSONResponse({"events": events})

    async def sites(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer the sites, and the requests that wait to be signed."""
        status = await run_in_threadpool(self._view.status)
        waiting = sorted(p.name for p in (self._view.study.path / "requests").glob("*.zip"))
        return JSONResponse({"sites": status["sites"], "requests": waiting})

    async def log(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer lines of the audit log, the newest first."""
        before, limit = number_of(request, "before", 0), number_of(request, "limit", USUAL_ROWS)
        lines = self._view.study.audit("page").newest(before)
        found = await run_in_threadpool(lambda: list(islice(lines, min(limit, MOST_ROWS))))
        return JSONResponse({"lines": found})

    async def openapi(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer the description of this API."""
        return JSONResponse(description())
