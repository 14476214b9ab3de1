"""The pages that are looked at: the study, a run, the log; each with its parts that change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from healthfm_core.local_page.live_updates import MOST_STREAMS, LivePages, Render
from healthfm_core.local_page.page_access import PageAccess, Visitor
from healthfm_core.local_page.page_frame import PageFrame, number_of
from healthfm_server.deploy.study_status import WORDS
from healthfm_server.page.curves import curves_of
from healthfm_server.page.matrix import Matrix, matrix_of
from healthfm_server.page.page_rules import PageUser
from healthfm_server.page.run_history import RunHistory
from healthfm_server.page.site_totals import site_totals
from healthfm_server.page.study_view import StudyView

EVENTS_SHOWN: Final = 30
LINES_SHOWN: Final = 200
_CHAIN: Final = frozenset({"n", "at", "event", "process", "previous", "hash"})


class PageViews:
    """The pages.

    Args:
        view: The study.
        frame: Goes around each.

    Attributes:
        live: The parts that change.
    """

    def __init__(self, view: StudyView, frame: PageFrame[PageUser]) -> None:
        self._view = view
        self._frame = frame
        self._rendered = frame.templates.rendered
        self.live = LivePages()
        self._by_round: dict[str, tuple[int, dict[str, str]]] = {}

    def routes(self, access: PageAccess[PageUser]) -> list[Route]:
        """Return the routes, each for who may look."""

        def look(path: str, answer: Any) -> Route:
            return Route(path, access.guarded("look", answer), methods=["GET"])

        self._access = access
        return [
            look("/", self.overview),
            look("/live", self.live_overview),
            look("/runs/{name}", self.run),
            look("/runs/{name}/live", self.live_run),
            look("/log", self.log),
        ]

    async def overview(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Show the study."""
        parts = await run_in_threadpool(self.live.parts, *self._of_study(visitor))
        return self._frame.page("overview.html.j2", visitor, parts=parts)

    async def live_overview(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Send what changes of the study."""
        return self._stream(request, *self._of_study(visitor))

    async def run(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Show a run."""
        name, until = request.path_params["name"], number_of(request, "until", 0)
        key, render = self._of_run(visitor, name, until)
        parts = await run_in_threadpool(self.live.parts, key, render)
        rows = [part for part in parts if part.id.startswith("row-")]
        return self._frame.page(
            "run.html.j2",
            visitor,
            run=name,
            until=until,
            parts={part.id: part for part in parts},
            rows=rows,
        )

    async def live_run(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Send what changes of a run."""
        name, until = request.path_params["name"], number_of(request, "until", 0)
        await run_in_threadpool(self._view.run, name)
        return self._stream(request, *self._of_run(visitor, name, until))

    async def log(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Show the audit log, the newest lines first."""
        before = number_of(request, "before", 0)
        lines = self._view.study.audit("page").newest(before)
        found = await run_in_threadpool(lambda: list(islice(lines, LINES_SHOWN)))
        shown = [
            {**line, "details": {k: v for k, v in line.items() if k not in _CHAIN}}
            for line in found
        ]
        earlier = found[-1].get("n", 0) if len(found) == LINES_SHOWN else 0
        return self._frame.page("log.html.j2", visitor, lines=shown, earlier=earlier)

    def _stream(self, request: Request, key: str, render: Render) -> Response:
        if self.live.streams >= MOST_STREAMS:
            return PlainTextResponse("too many pages are open", 503, {"retry-after": "30"})

        def goes_on() -> bool:
            visitor = self._access.visitor(request)
            return visitor is not None and visitor.may("look")

        events = self.live.events(key, render, goes_on)
        return StreamingResponse(events, media_type="text/event-stream")

    def _of_study(self, visitor: Visitor[PageUser]) -> tuple[str, Render]:
        may_order = visitor.may("order") and visitor.session is not None

        def render() -> dict[str, str]:
            status = self._view.status()
            waiting = sorted(p.name for p in (self._view.study.path / "requests").glob("*.zip"))
            values = {"status": status, "waiting": waiting, "may_order": may_order, "words": WORDS}
            names = ("alarms", "runs", "sites", "processes")
            return {
                f"study-{name}": self._rendered(f"study_{name}.html.j2", **values) for name in names
            } | {"said": self._rendered("study_said.html.j2", **values)}

        return f"study {may_order}", render

    def _of_run(self, visitor: Visitor[PageUser], name: str, until: int) -> tuple[str, Render]:
        may_order = visitor.may("order") and visitor.session is not None

        def render() -> dict[str, str]:
            with self._view.lock:
                return dict(self._run_parts(name, until, may_order))

        return f"run {may_order} {until} {name}", render

    def _run_parts(self, name: str, until: int, may_order: bool) -> Iterator[tuple[str, str]]:
        facts, run = self._view.run_facts(name), self._view.run(name)
        history = run.history
        modalities = {one["site"]: one["modalities"] for one in self._view.status()["sites"]}
        matrix: Matrix = matrix_of(
            history, run.order.sites, modalities, run.now, facts["open_round"], until or None
        )
        values = {"run": facts, "may_order": may_order, "history": history, "matrix": matrix}
        values |= {"words": WORDS}
        yield "run-state", self._rendered("run_state.html.j2", **values)
        yield "said", self._rendered("run_said.html.j2", **values)
        yield "matrix-head", self._rendered("matrix_head.html.j2", **values)
        for at, line in enumerate(matrix.lines):
            yield f"row-{at}", self._rendered("matrix_row.html.j2", line=line, matrix=matrix)
        yield "matrix-moved", self._rendered("matrix_moved.html.j2", matrix=matrix)
        yield "matrix-foot", self._rendered("matrix_foot.html.j2", **values)
        yield from self._of_rounds(name, history).items()
        yield "run-events", self._rendered("run_events.html.j2", events=run.events(EVENTS_SHOWN))

    def _of_rounds(self, name: str, history: RunHistory) -> dict[str, str]:
        """Return the parts that change with a round alone."""
        version, parts = self._by_round.get(name, (-1, {}))
        if version != history.version:
            parts = {
                "run-curves": self._rendered("run_curves.html.j2", curves=curves_of(history)),
                "run-sites": self._rendered("run_sites.html.j2", sites=site_totals(history)),
            }
            self._by_round[name] = history.version, parts
        return parts
