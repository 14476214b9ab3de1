"""The pages that are looked at, each with its parts that change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from healthfm_client.consent.run_comparison import compared
from healthfm_client.consent.shown_facts import tables_of
from healthfm_client.egress.log_search import find_lines, line_of
from healthfm_client.page.budget_curve import budget_curve
from healthfm_client.page.egress_lines import KINDS, query_of, record_rows, shown_line
from healthfm_client.page.site_view import SiteView, failing
from healthfm_client.site_status import stage_of
from healthfm_core.errors import HealthFMError, PolicyError
from healthfm_core.local_page.live_updates import MOST_STREAMS, LivePages
from healthfm_core.local_page.page_access import PageAccess, Visitor
from healthfm_core.local_page.page_frame import PageFrame, number_of

LINES: Final = 100
Parts = Callable[[], Mapping[str, str]]


class SitePages:
    """The pages.

    Args:
        view: The site.
        frame: Goes around each.

    Attributes:
        live: The parts that change.
    """

    def __init__(self, view: SiteView, frame: PageFrame[str]) -> None:
        self._view = view
        self._frame = frame
        self.live = LivePages()
        self._parts: dict[str, Parts] = {
            "overview": self._overview,
            "left": self._log_state,
            "privacy": self._budget,
            "data": self._data,
            "doctor": self._doctor,
        }

    def routes(self, access: PageAccess[str]) -> list[Route]:
        """Return the routes, each for who may look."""
        self._access = access
        answers = {
            "/": self.overview,
            "/runs": self.runs,
            "/runs/{run}": self.run,
            "/left": self.left,
            "/left/{number:int}": self.left_line,
            "/privacy": self._live_page("privacy"),
            "/data": self._live_page("data"),
            "/doctor": self._live_page("doctor"),
            "/live/{page}": self.events,
        }
        return [
            Route(path, access.guarded("look", answer), methods=["GET"])
            for path, answer in answers.items()
        ]

    async def overview(self, request: Request, visitor: Visitor[str]) -> Response:
        """Show how the site stands."""
        parts = await run_in_threadpool(self.live.parts, "overview", self._overview)
        stage, state = stage_of(self._view.home), self._view.home.state()
        return self._frame.page("overview.html.j2", visitor, parts=parts, stage=stage, state=state)

    async def runs(self, request: Request, visitor: Visitor[str]) -> Response:
        """List the runs that asked."""
        found = await run_in_threadpool(self._view.runs)
        return self._frame.page("runs.html.j2", visitor, runs=found)

    async def run(self, request: Request, visitor: Visitor[str]) -> Response:
        """Show what a run would do, and ask for the answer."""
        asked, told = await run_in_threadpool(self._view.run, request.path_params["run"])
        lines = list(compared(self._view.home.approvals(), asked))
        values = {"asked": asked, "told": told, "tables": tables_of(asked.facts), "lines": lines}
        return self._frame.page("run.html.j2", visitor, **values)

    async def left(self, request: Request, visitor: Visitor[str]) -> Response:
        """Show what has left, and search it."""
        query, before = query_of(request.query_params), number_of(request, "before", 0)
        log = self._view.home.log()
        found = await run_in_threadpool(find_lines, log, query, before, LINES)
        parts = await run_in_threadpool(self.live.parts, "left", self._log_state)
        values = {"query": query, "lines": [shown_line(line) for line in found.lines]}
        fields = [(k, v) for k, v in request.query_params.multi_items() if k != "before" and v]
        about = {"earlier": found.earlier, "reached": found.reached, "kinds": KINDS}
        return self._frame.page(
            "left.html.j2", visitor, parts=parts, **values, **about, asked=urlencode(fields)
        )

    async def left_line(self, request: Request, visitor: Visitor[str]) -> Response:
        """Show one line of what has left, in full."""
        number = request.path_params["number"]
        line = await run_in_threadpool(line_of, self._view.home.log(), number)
        if line is None:
            raise no_such_line(number)
        values = {"line": line, "shown": shown_line(line), "rows": list(record_rows(line))}
        return self._frame.page("left_line.html.j2", visitor, **values)

    async def events(self, request: Request, visitor: Visitor[str]) -> Response:
        """Send what changes of a page."""
        page = request.path_params["page"]
        if page not in self._parts:
            return PlainTextResponse("there is no such page", 404)
        if self.live.streams >= MOST_STREAMS:
            return PlainTextResponse("too many pages are open", 503, {"retry-after": "30"})

        def goes_on() -> bool:
            return self._access.visitor(request) is not None

        events = self.live.events(page, self._parts[page], goes_on)
        return StreamingResponse(events, media_type="text/event-stream")

    def _live_page(self, page: str) -> Any:
        async def answer(request: Request, visitor: Visitor[str]) -> Response:
            parts = await run_in_threadpool(self.live.parts, page, self._parts[page])
            return self._frame.page(f"{page}.html.j2", visitor, parts=parts)

        return answer

    def _overview(self) -> dict[str, str]:
        values = {
            "status": self._view.status(),
            "runs": self._view.runs(),
            "budget": self._view.budget.as_json() if self._view.keeps_ledger() else None,
            "data": failing(self._view.quality()),
        }
        names = ("said", "connection", "asks", "facts")
        return {name: self._rendered(f"site_{name}.html.j2", **values) for name in names}

    def _log_state(self) -> dict[str, str]:
        lines = self._view.home.log().length()
        return {
            "log-state": self._rendered(
                "log_state.html.j2", log=self._view.log.as_json(), lines=lines
            )
        }

    def _budget(self) -> dict[str, str]:
        look = self._view.budget.as_json() if self._view.keeps_ledger() else None
        report = look and look["answer"]
        curve = budget_curve(report) if report and report["studies"] else None
        return {"budget": self._rendered("budget.html.j2", look=look, report=report, curve=curve)}

    def _data(self) -> dict[str, str]:
        values = {"stores": self._view.data(), "checking": self._view.is_checking()}
        return {"stores": self._rendered("stores.html.j2", **values)}

    def _doctor(self) -> dict[str, str]:
        return {"findings": self._rendered("findings.html.j2", look=self._view.doctor.as_json())}

    def _rendered(self, template: str, **values: object) -> str:
        return self._frame.templates.rendered(template, **values)


def no_such_line(number: int) -> HealthFMError:
    """Return the error for a number that no line of the log has (HF-510)."""
    return PolicyError(510, where=f"line {number} of egress.log")
