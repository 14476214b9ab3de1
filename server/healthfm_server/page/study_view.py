"""A study as the page and the API see it: read from its folder, what is new alone each time."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

from healthfm_core.config.run import RunConfig
from healthfm_core.flower.flower_database import orders_taken
from healthfm_core.row_reading import RowFollower, rows_backwards
from healthfm_core.trust.site_registry import AdmittedSite
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.deploy.run_reading import RunReading
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.study_overview import interrupted, with_processes
from healthfm_server.deploy.study_status import (
    CONNECTED,
    last_connections,
    run_status,
    study_status,
)
from healthfm_server.deploy.study_supervision import supervision
from healthfm_server.page.round_cells import SiteState
from healthfm_server.page.run_history import RunHistory
from healthfm_server.run_folder.run_waiting import Waiting

PROCESSES_S: Final = 5.0
"""Between two questions to the supervisor, each of which starts a process."""
NEWEST_EVENTS: Final = 1000
"""Events of rounds that are kept in memory of each run."""


@dataclass(frozen=True)
class SiteNow:
    """What a site does in the round, or before it, that is open.

    Attributes:
        site: Its name.
        state: What it does.
        reason: Why, where it was refused.
    """

    site: str
    state: SiteState
    reason: str = ""


class RunView:
    """One run; `look` reads what is new.

    Args:
        order: The run.
        database: Flower's.

    Attributes:
        order: As given.
        history: Its rounds.
        now: What each site did when `StudyView.run_facts` looked last.
    """

    def __init__(self, order: RunOrder, database: Path) -> None:
        self.order = order
        self.history = RunHistory(order.folder)
        self.now: list[SiteNow] = []
        self._database = database
        self._events = EventsOfRun(order.folder / "events.log")
        self._config: RunConfig | None = None

    @property
    def config(self) -> RunConfig:
        """What it is to do; an ordered run's does not change."""
        if self._config is None:
            self._config = self.order.config()
        return self._config

    def look(self) -> None:
        """Read what is new."""
        self.history.look()
        self._events.look()

    def status(self, sites: Mapping[str, AdmittedSite]) -> dict[str, Any]:
        """Return what `run_status` returns, of what was read."""
        last = self.history.last_row()
        return run_status(self.order, sites, RunReading(self.config, last, self._events.kept()))

    def events(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest events, the newest first."""
        return list(islice(rows_backwards(self.order.folder / "events.log"), limit))

    def open_round(self) -> int | None:
        """Return the number of the round that is open; None where the run waits for no answers."""
        waiting = Waiting.read(self.order.folder)
        is_round = waiting is not None and waiting.phase.isdigit()
        return int(waiting.phase) if waiting is not None and is_round else None

    def sites_now(
        self, sites: Mapping[str, AdmittedSite], connected: Mapping[str, bool | None]
    ) -> list[SiteNow]:
        """Return what each site does now, by name; none where the run waits for nothing.

        Args:
            sites: The study's.
            connected: Site → whether it is; None where that is not known.
        """
        waiting = Waiting.read(self.order.folder)
        if waiting is None:
            return []
        names = {site.node_id: name for name, site in sites.items() if not site.revoked}
        if waiting.what == "connections":
            there, only = set(waiting.nodes), self.order.sites
            found = {
                name: SiteState.CONNECTED if node in there else SiteState.OFFLINE
                for node, name in names.items()
                if not only or name in only
            }
            return [SiteNow(name, found[name]) for name in sorted(found)]
        taken, refused = self._taken(), self._events.refused(waiting.phase)
        nodes = waiting.asked or waiting.nodes
        pairs = sorted((names.get(node, f"node {node}"), node) for node in nodes)
        rows = []
        for name, node in pairs:
            if node not in waiting.nodes:
                reason = refused.get(name)
                state = SiteState.ANSWERED if reason is None else SiteState.REFUSED
                rows.append(SiteNow(name, state, reason or ""))
            elif connected.get(name) is False:
                rows.append(SiteNow(name, SiteState.OFFLINE))
            elif waiting.what == "approval":
                rows.append(SiteNow(name, SiteState.APPROVAL))
            else:
                at_work = taken.get(node, False)
                rows.append(SiteNow(name, SiteState.COMPUTING if at_work else SiteState.ASKED))
        return rows

    def expected_end(self, now: datetime) -> datetime | None:
        """Return when the run would end if its rounds go on as the last ones did."""
        round_s, status = self.history.round_s(), self.order.status()
        if round_s is None or status.state != "running":
            return None
        left = self.config.federation.rounds - self.order.rounds_done()
        return now + timedelta(seconds=round_s * max(left, 0))

    def _taken(self) -> dict[int, bool]:
        with suppress(sqlite3.Error):  # busy just now: the next look tells
            return orders_taken(self._database, self.order.status().flower_run)
        return {}


class EventsOfRun:
    """The events of a run that the page needs, of bounded number.

    Args:
        path: Of ``events.log``.
    """

    def __init__(self, path: Path) -> None:
        self._follower = RowFollower(path)
        self._before: list[dict[str, Any]] = []
        self._newest: list[dict[str, Any]] = []

    def look(self) -> None:
        """Read what is new."""
        for at, line in enumerate(self._follower.new_lines()):
            if self._follower.began_anew and at == 0:
                self._before.clear()
                self._newest.clear()
            with suppress(ValueError):
                event = json.loads(line)
                (self._newest if "round" in event else self._before).append(event)
        del self._newest[:-NEWEST_EVENTS]
        del self._before[:-10_000]

    def kept(self) -> list[dict[str, Any]]:
        """Return what was noted outside of rounds, and the newest of rounds."""
        return [*self._before, *self._newest]

    def refused(self, phase: str) -> dict[str, str]:
        """Return site → why its answer was not taken, in a phase or round."""
        return {
            event["site"]: event["reason"]
            for event in self.kept()
            if event["event"] == "set aside"
            and str(event.get("round", event.get("phase", ""))) == phase
        }


class StudyView:
    """A study; each method reads what is new since the last one.

    Args:
        study: The study.

    Attributes:
        study: As given.
        lock: Is held by whoever reads of a run more than one thing that has to fit.
    """

    def __init__(self, study: StudyFolder) -> None:
        self.study = study
        self._runs: dict[str, RunView] = {}
        self.lock = threading.RLock()
        self._processes: tuple[float, dict[str, str]] = (0.0, {})
        self._log = RowFollower(study.audit("page").path)
        self._connected: dict[str, str] | None = None

    def run(self, name: str) -> RunView:
        """Return a run, read anew.

        Raises:
            RunError: There is none of that name (HF-722).
        """
        with self.lock:
            order = RunOrder.find(self.study.runs, name)
            known = self._runs.get(name)
            if known is None:
                known = self._runs[name] = RunView(order, self.study.database)
            known.look()
            return known

    def status(self) -> dict[str, Any]:
        """Return what `study_overview` returns."""
        with self.lock:
            status = study_status(self.study, list(self._run_states()), self._seen())
            return with_processes(status, self.processes())

    def run_status(self, name: str) -> dict[str, Any]:
        """Return one run of `status`."""
        with self.lock:
            found = self.run(name).status(self.study.sites.sites())
            return interrupted([found], self.processes())[0]

    def processes(self) -> dict[str, str]:
        """Return the study's processes, as they were some seconds ago at most."""
        with self.lock:
            at, states = self._processes
            if time.monotonic() - at > PROCESSES_S or not at:
                states = supervision(self.study).states()
                self._processes = time.monotonic(), states
            return states

    def run_facts(self, name: str) -> dict[str, Any]:
        """Return all that is told of one run: its status, its order, and each site now."""
        with self.lock:
            status, run = self.status(), self.run(name)
            connected = {site["site"]: site["connected"] for site in status["sites"]}
            own = next(found for found in status["runs"] if found["run"] == name)
            is_open = own["state"] in ("running", "waiting")
            run.now = run.sites_now(self.study.sites.sites(), connected) if is_open else []
            end = run.expected_end(datetime.now(UTC))
            return {
                **own,
                "order": run.order.about(),
                "open_round": run.open_round() if is_open else None,
                "sites_now": [
                    {"site": one.site, "state": one.state.word, "reason": one.reason}
                    for one in run.now
                ],
                "round_seconds": run.history.round_s(),
                "expected_end": "" if end is None else end.isoformat(timespec="seconds"),
                "privacy": run.history.privacy,
            }

    def _seen(self) -> dict[str, str]:
        """Return when each site last connected, reading of the audit log what is new."""
        word = CONNECTED.encode()
        rows = [json.loads(line) for line in self._log.new_lines() if word in line]
        if self._connected is None or self._log.began_anew:
            self._connected = last_connections(self.study.audit("page"))
        new = {row["site"]: row["at"] for row in rows if row["event"] == CONNECTED}
        self._connected |= new
        return self._connected

    def _run_states(self) -> Iterator[dict[str, Any]]:
        sites = self.study.sites.sites()
        for order in RunOrder.all(self.study.runs):
            yield self.run(order.name).status(sites)
