"""The run reconciler: submits wanted runs to Flower, after every outage again, and stops others.

Flower gives a run up a minute after its SuperLink has ended. Here a run is a folder with a
checkpoint of every round: whenever Flower has lost it, it is submitted again and continues at the
round it was in.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Final

import httpx

from healthfm_core.flower.flower_database import compact
from healthfm_core.trust.site_registry import AdmittedSite
from healthfm_server.deploy.audit_log import AuditLog
from healthfm_server.deploy.flower_superlink import ENDED, Control, FlowerRun
from healthfm_server.deploy.kit_renewal import Renewals
from healthfm_server.deploy.run_orders import RunOrder, RunStatus
from healthfm_server.deploy.study_folder import StudyFolder
from healthfm_server.deploy.study_notices import tell_until
from healthfm_server.run_folder.file_lock import held

LOOK_S: Final = 1.0
"""Pause between two looks at the orders."""

RETRY_PAUSES_S: Final = (2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Pauses before a run that made no progress is submitted again; the last one repeats."""

NOT_RETRIED: Final = frozenset({101, 102, 103, 104, 406, 701, 702, 703, 704, 707, 712, 726})
"""Errors that a retry does not cure: a person has to act."""

CRL_S: Final = 24 * 3600.0
"""Seconds between two revocation lists; each is valid for 30 days."""

COMPACT_S: Final = 30.0
"""Seconds between two looks at what was deleted from Flower's database, while no run is active."""

NO_SITE: Final = "no site is admitted yet; admit one with: healthfm-server site sign REQUEST"
"""Why a run that waits for all admitted sites has not begun."""
NONE_OF_THEM: Final = "none of the sites that it is for is admitted; see: healthfm-server site list"
"""Why a run for named sites has not begun."""

_log = logging.getLogger(__name__)


class RunReconciler:
    """Brings the runs of a study to the state that is wanted of them.

    Args:
        study: The study.
        control: The SuperLink.
        log: The audit log.
    """

    def __init__(self, study: StudyFolder, control: Control, log: AuditLog) -> None:
        self._study = study
        self._control = control
        self._log = log
        self._renewals = Renewals(study)
        self._published = 0.0
        self._compacted = 0.0
        self._rounds: dict[str, int] = {}

    def run(self) -> None:
        """Look at every run, until killed."""
        while True:
            try:
                self.look()
            except httpx.HTTPError as error:
                _log.warning("the SuperLink does not answer (%s); trying again", error)
            except OSError as error:
                _log.warning("the study's folder cannot be written (%s); trying again", error)
            time.sleep(LOOK_S)

    def look(self, now_s: float | None = None) -> None:
        """Look once.

        Raises:
            httpx.HTTPError: The SuperLink cannot be reached; nothing was changed.
        """
        now = time.time() if now_s is None else now_s
        if now - self._published > CRL_S:
            self._study.publish(self._study.authority())
            self._published = now
        self._renewals.sign(self._log)
        states = set()
        for order in RunOrder.all(self._study.runs):
            before = order.status()
            after = self._reconcile(order, before, now)
            states.add(after.state)
            if after != before:
                order.note(after)
                self._log_change(order, before, after)
        if not states & {"running", "waiting"} and now - self._compacted > COMPACT_S:
            self._compact_database()
            self._compacted = now

    def _compact_database(self) -> None:
        try:
            freed = compact(self._study.database)
        except sqlite3.Error as error:
            _log.warning("what was deleted stays in Flower's database for now (%s)", error)
            return
        if freed:
            self._log.note("database made smaller", {"bytes": freed})

    def _reconcile(self, order: RunOrder, status: RunStatus, now: float) -> RunStatus:
        if status.state == "finished":
            return status
        if order.is_complete():
            return replace(status, state="finished", reason="")
        flower = self._control.run(status.flower_run) if status.flower_run else None
        live = flower is not None and flower.status != ENDED
        if order.wanted != "running":
            return self._halt(order, status, live)
        if live:
            return replace(status, state="running", reason=self._told(order, status))
        if status.state == "running":
            return self._lost(order, status, flower, now)
        if status.state == "failed" or now < status.not_before:
            return status
        return self._submit(order, status)

    def _submit(self, order: RunOrder, status: RunStatus) -> RunStatus:
        """Submit a run, unless a reconciler that was killed had submitted it already."""
        chosen = self._chosen(order)
        nodes = order.nodes or len(chosen)
        if not chosen and (order.sites or not nodes):
            return replace(status, state="waiting", reason=NONE_OF_THEM if order.sites else NO_SITE)
        (order.folder / "failure.json").unlink(missing_ok=True)
        self._rounds[order.name] = order.rounds_done()
        folder = str(order.folder.resolve())
        number = self._control.live(folder) or self._start(order, folder, nodes, chosen)
        return replace(
            status,
            state="running",
            flower_run=number,
            submissions=status.submissions + 1,
            reason="" if status.reason in (NO_SITE, NONE_OF_THEM) else status.reason,
        )

    def _told(self, order: RunOrder, status: RunStatus) -> str:
        """Return why the last submission failed, until this one has come further."""
        done = order.rounds_done()
        return "" if done > self._rounds.setdefault(order.name, done) else status.reason

    def _chosen(self, order: RunOrder) -> list[AdmittedSite]:
        """Return the sites that a run is for and that may answer now."""
        admitted = [site for site in self._study.sites.sites().values() if not site.revoked]
        return [site for site in admitted if not order.sites or site.name in order.sites]

    def _start(
        self, order: RunOrder, folder: str, nodes: int, chosen: Sequence[AdmittedSite]
    ) -> int:
        return self._control.start(
            {
                "config": order.config().model_dump_json(),
                "folder": folder,
                "resume": order.begun(),
                "nodes": nodes,
                "only": ",".join(str(site.node_id) for site in chosen) if order.sites else "",
                "study": str(self._study.path.resolve()),
                **({"dry_run": True} if order.is_dry_run else {}),
            },
            version("healthfm"),
        )

    def _lost(
        self, order: RunOrder, status: RunStatus, flower: FlowerRun | None, now: float
    ) -> RunStatus:
        """Decide when a run whose submission ended unfinished is submitted again."""
        failure = order.failure()
        reason = failure[1] if failure else (flower.details if flower else "the SuperLink lost it")
        if failure is not None and failure[0] in NOT_RETRIED:
            return replace(status, state="failed", reason=reason)
        moved = order.rounds_done() > self._rounds.get(order.name, -1)
        tries = 0 if moved else min(status.submissions - 1, len(RETRY_PAUSES_S) - 1)
        return replace(
            status, state="waiting", not_before=now + RETRY_PAUSES_S[tries], reason=reason
        )

    def _halt(self, order: RunOrder, status: RunStatus, live: bool) -> RunStatus:
        if live:
            self._control.stop(status.flower_run)
        return replace(status, state="paused" if order.wanted == "paused" else "stopped", reason="")

    def _log_change(self, order: RunOrder, before: RunStatus, after: RunStatus) -> None:
        if (before.state, before.submissions) == (after.state, after.submissions):
            return
        details = {"run": order.name, "rounds": order.rounds_done(), "reason": after.reason[:300]}
        self._log.note(f"run {after.state}", details)
        _log.info("run %s: %s %s", order.name, after.state, after.reason)


def serve(study: StudyFolder) -> None:
    """Reconcile the runs until killed.

    Raises:
        RunError: Another reconciler is at work (HF-724).
    """
    with held(study.path / "reconciler.lock", f"study {study.settings.study}"):
        control = Control(study.settings.superlink_port, study.control_token())
        threading.Thread(
            target=tell_until, args=(threading.Event(), study.path), daemon=True
        ).start()
        RunReconciler(study, control, study.audit("reconciler")).run()
