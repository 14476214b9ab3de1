"""A run's report on the page and in the API: made by the command, in a process of its own.

Drawing takes seconds and memory that a page that is open for weeks does not give back. So
``healthfm-server report`` writes the files beside the run, and this answers with them; what is
older than the run is answered at once, and made anew meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from healthfm_core.errors import RunError
from healthfm_core.local_page.page_access import API, PageAccess, Visitor
from healthfm_server.deploy.run_orders import DONE, ORDER, RunOrder
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.page.page_rules import PageUser

REPORT: Final = Path("report", "report.html")
DATA: Final = Path("report", "report.json")
FROM: Final = (
    *("history.jsonl", "study.json", "chosen-round.json", "held-out.json", "own-models"),
    *(DONE, ORDER),
)
"""Files whose change makes a report old."""
PAUSE_S: Final = 15.0
"""Between two reports of one run: its rounds may take less."""
POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
"""A report is one file with its styles in it: it may load nothing, and run no script."""


class ReportPages:
    """The reports of a study's runs.

    Args:
        study: The study.
    """

    def __init__(self, study: StudyFolder) -> None:
        self._study = study
        self._made: dict[str, float] = {}
        self._failed: set[str] = set()
        self._making: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    def routes(self, access: PageAccess[PageUser]) -> list[Route]:
        """Return the page's route, for who may look."""
        return [Route("/runs/{name}/report", access.guarded("look", self.page), methods=["GET"])]

    def api_routes(self, access: PageAccess[PageUser]) -> list[Route]:
        """Return the API's route, for who may look."""
        path = f"{API}/runs/{{name}}/report"
        return [Route(path, access.guarded("look", self.data), methods=["GET"])]

    async def page(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer a run's report."""
        file = await self._file(request.path_params["name"], REPORT)
        return FileResponse(
            file, media_type="text/html", headers={"content-security-policy": POLICY}
        )

    async def data(self, request: Request, visitor: Visitor[PageUser]) -> Response:
        """Answer the same as values."""
        file = await self._file(request.path_params["name"], DATA)
        return JSONResponse(await run_in_threadpool(_values, file))

    async def close(self) -> None:
        """End what is being made."""
        for task in list(self._making.values()):
            task.cancel()
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    async def _file(self, name: str, file: Path) -> Path:
        """Return a file of a run's report, which is made first where there is none.

        Raises:
            RunError: There is no such run (HF-722), or its report cannot be made (HF-729).
        """
        order = await run_in_threadpool(RunOrder.find, self._study.runs, name)
        path = order.folder / file
        is_there = path.is_file()
        if not is_there or _is_old(order.folder, path):
            making = self._making.get(name)
            if making is None and (not is_there or self._may_be_made(name)):
                making = self._making[name] = asyncio.create_task(self._make(name))
                making.add_done_callback(lambda task: self._over(name, task))
            if making is not None and (not is_there or name in self._failed):
                await asyncio.shield(making)
        return path

    def _over(self, name: str, task: asyncio.Task[None]) -> None:
        """Remember how making a report ended; who looks after a failure waits, and is told why."""
        self._making.pop(name, None)
        self._made[name] = time.monotonic()
        failed = task.cancelled() or task.exception() is not None
        (self._failed.add if failed else self._failed.discard)(name)

    def _may_be_made(self, name: str) -> bool:
        is_rested = time.monotonic() - self._made.get(name, -PAUSE_S) >= PAUSE_S
        return is_rested or name in self._failed

    async def _make(self, name: str) -> None:
        command = (sys.executable, "-m", "healthfm_server", "report", name, "--study")
        pipe = asyncio.subprocess.PIPE
        async with self._one_at_a_time:
            process = await asyncio.create_subprocess_exec(
                *command, str(self._study.path), stdout=asyncio.subprocess.DEVNULL, stderr=pipe
            )
            try:
                _, said = await process.communicate()
            except asyncio.CancelledError:
                process.kill()
                await process.wait()
                raise
        if process.returncode:
            last = said.decode(errors="replace").strip().splitlines()[-1:]
            raise RunError(729, where=f"run {name}", seen=(last or ["it ended"])[0][:300])


def _is_old(folder: Path, report: Path) -> bool:
    made = report.stat().st_mtime_ns
    return any(_changed(folder / name) > made for name in FROM)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _values(path: Path) -> Mapping[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return values
