"""A site as its page and API see it: files of its folder, and what commands said last."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from healthfm_client.consent.run_comparison import as_json
from healthfm_client.page.command_looks import CommandLook, stamp_of
from healthfm_client.site.run_approvals import ApprovalRequest
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy
from healthfm_client.site_status import processes_of, site_status
from healthfm_client.site_store.quality.quality_file import QualityReport, last_report
from healthfm_core.data.store.store_files import MARKER_FILE, stores_below
from healthfm_core.errors import HealthFMError

PROCESSES_S: Final = 5.0
"""Between two questions to the supervisor, each of which starts a process."""
CHECKED_FOR: Final = timedelta(hours=1)
"""After so long the whole log is held against itself again, while somebody looks at it."""
EXAMINED_FOR: Final = timedelta(minutes=10)
"""After so long the doctor looks again, while somebody looks at what it found."""
SUMMARY: Final = ("run", "called", "study", "since", "expires", "answer", "answered", "further")
"""What a list of runs tells of each."""


class SiteView:
    """A site.

    Args:
        home: The site.

    Attributes:
        home: As given.
        log: Whether the egress log is whole.
        budget: The privacy budget over the years.
        doctor: What the doctor finds.
    """

    def __init__(self, home: SiteHome) -> None:
        self.home = home
        folder, site = home.process, ["--site", str(home.path)]
        policy = str(home.policy)
        self.log = CommandLook(
            "log", lambda: ["audit", "--verify", "--json", *site], folder, longest=CHECKED_FOR
        )
        self.budget = CommandLook(
            "budget", lambda: ["privacy", policy, "--json"], folder, self._ledger_stamp
        )
        self.doctor = CommandLook(
            "doctor", lambda: ["doctor", "--json", *site], folder, longest=EXAMINED_FOR
        )
        self._stores: dict[str, CommandLook] = {}
        self._checks: dict[str, CommandLook] = {}
        self._lock = threading.Lock()
        self._processes: tuple[float, dict[str, str]] = (0.0, {})

    def status(self) -> dict[str, Any]:
        """Return what ``healthfm-client status --json`` prints.

        Raises:
            HealthFMError: As `site_status`.
        """
        return site_status(self.home, self.processes())

    def processes(self, *, now: bool = False) -> dict[str, str]:
        """Return the site's processes, as they were some seconds ago at most.

        Args:
            now: Whether to ask all the same.
        """
        with self._lock:
            at, found = self._processes
            if now or not at or time.monotonic() - at > PROCESSES_S:
                found = processes_of(self.home)
                self._processes = time.monotonic(), found
            return found

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs that asked, in short: those that wait first, then the newest."""
        asked = sorted(self.home.approvals(), key=lambda one: one.since, reverse=True)
        asked.sort(key=lambda one: one.answer != "waiting")
        return [self._in_short(one) for one in asked]

    def run(self, run: str) -> tuple[ApprovalRequest, dict[str, Any]]:
        """Return a run, and all that is told of it.

        Raises:
            PolicyError: There is none, or several are called so (HF-503).
        """
        approvals = self.home.approvals()
        asked = approvals.find(run)
        return asked, as_json(approvals, asked)

    def stores(self) -> dict[str, CommandLook]:
        """Return each store's path and the look that describes it; none before the site joined.

        Raises:
            HealthFMError: ``join.yaml`` or the policy cannot be used.
        """
        k = str(SitePolicy.read(self.home.policy).k_min)
        with self._lock:
            for path in self.store_paths():
                if str(path) not in self._stores:
                    self._stores[str(path)] = self._description(path, k)
            return dict(self._stores)

    def store_paths(self) -> list[Path]:
        """Return the stores that the site joined with."""
        if not self.home.settings_file.is_file():
            return []
        return [path for one in self.home.settings().stores for path in stores_below(one.path)]

    def quality(self) -> dict[str, QualityReport | None]:
        """Return what was found of each store's quality last."""
        return {str(path): last_report(path) for path in self.store_paths()}

    def data(self) -> list[dict[str, Any]]:
        """Return each store's description and quality."""
        return [
            {"store": path, "description": look.as_json(), "quality": self._quality_of(Path(path))}
            for path, look in self.stores().items()
        ]

    def check_quality(self) -> None:
        """Begin to check the quality of each store; the findings are in the store then."""
        for path in self.store_paths():
            words = ["check", str(path), "--quality", "--json"]
            with self._lock:
                look = self._checks.setdefault(
                    str(path),
                    CommandLook(_file_of("quality", path), partial(list, words), self.home.process),
                )
            look.start()

    def is_checking(self) -> bool:
        """Whether a store's quality is being checked."""
        return any(look.is_running for look in self._checks.values())

    def close(self) -> None:
        """End what is looked at."""
        of_stores = [*self._stores.values(), *self._checks.values()]
        for look in (self.log, self.budget, self.doctor, *of_stores):
            look.close()

    def _quality_of(self, path: Path) -> dict[str, Any] | None:
        report = last_report(path)
        if report is None:
            return None
        told = {"sentence": report.sentence(), "is_of_this_store": report.is_of_this_store}
        return {**report.as_json(), **told}

    def _description(self, path: Path, k: str) -> CommandLook:
        words = ["describe", str(path), "--json", "--k", k]
        stamp = partial(stamp_of, path / MARKER_FILE)
        return CommandLook(_file_of("store", path), lambda: words, self.home.process, stamp)

    def _in_short(self, asked: ApprovalRequest) -> dict[str, Any]:
        return {name: getattr(asked, name) for name in SUMMARY}

    def keeps_ledger(self) -> bool:
        """Whether the policy names a ledger of privacy.

        Raises:
            ConfigError: The policy cannot be used (HF-1xx).
        """
        return SitePolicy.read(self.home.policy).privacy.ledger is not None

    def _ledger_stamp(self) -> str:
        try:
            ledger = SitePolicy.read(self.home.policy).privacy.open_ledger()
        except HealthFMError:
            ledger = None
        return stamp_of(self.home.policy, *(() if ledger is None else (ledger.path,)))


def _file_of(what: str, path: Path) -> str:
    return f"{what}-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"


def failing(reports: Mapping[str, QualityReport | None]) -> list[str]:
    """Return a sentence for each store of which something is to be told."""
    told = []
    for path, report in reports.items():
        name = Path(path).name
        if report is None:
            told.append(f"{name}: its quality was never checked")
        elif not report.is_of_this_store:
            told.append(f"{name}: written anew since its quality was checked")
        elif report.failed:
            told.append(f"{name}: {report.sentence()}")
    return told
