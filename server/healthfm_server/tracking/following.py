"""Runs into a tracker: what there is, and with `follow` what comes until they have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from healthfm_core.errors import RunError
from healthfm_core.stdout import say
from healthfm_server.tracking.tracked_round import TrackedRound
from healthfm_server.tracking.tracked_run import (
    Ending,
    TrackedRun,
    may_begin_more,
    refuse_no_run,
    runs_below,
)
from healthfm_server.tracking.tracker import Tracker, TrackerLog

LOOK_S: Final = 1.0
"""Between two looks at the runs."""
NO_ANSWER: Final = 731


class Following:
    """The runs in a folder, and where each of them is in a tracker.

    Args:
        folder: Of a run, or of a simulation with several.
        tracker: Where they go.
        experiment: What the tracker groups them under.
        at: What ``--at`` says; None: the tracker's usual place.
        by_site: Whether sites' own figures go too.
    """

    def __init__(
        self, folder: Path, tracker: Tracker, experiment: str, at: str | None, *, by_site: bool
    ) -> None:
        self._folder, self._tracker = folder, tracker
        self._experiment, self._at, self._by_site = experiment, at, by_site
        self._runs: dict[Path, _RunInTracker] = {}

    def look(self) -> None:
        """Write what is new of every run.

        Raises:
            RunError: The tracker's server does not answer (HF-731): the next look begins there.
        """
        for run in runs_below(self._folder, by_site=self._by_site):
            if run.folder not in self._runs:
                log = self._tracker.open(run, self._experiment, self._at)
                self._runs[run.folder] = _RunInTracker(run, log)
        for each in self._runs.values():
            each.look()

    def told(self) -> Iterator[str]:
        """Yield a line for each run."""
        for each in self._runs.values():
            yield each.told()

    def has_ended(self) -> bool:
        """Whether every run has ended, of one at least, and no other will begin."""
        ended = bool(self._runs) and all(each.ending != "running" for each in self._runs.values())
        return ended and not may_begin_more(self._folder)

    def close(self) -> None:
        """Let go of the tracker; a run that has not ended stays open there."""
        for each in self._runs.values():
            each.close()


class _RunInTracker:
    def __init__(self, run: TrackedRun, log: TrackerLog) -> None:
        self._run, self._log = run, log
        self._waiting: list[TrackedRound] = []
        self._rounds: set[int] = set()
        self.ending: Ending = "running"

    def look(self) -> None:
        if self.ending != "running":
            return
        ending = self._run.ending()  # before the rounds are read, so that none of them is missed
        self._waiting += self._run.new_rounds()
        last = self._run.last_scores() if ending != "running" else None
        self._log.write([*self._waiting, *([last] if last else [])])
        self._rounds |= {each.number for each in self._waiting}
        self._waiting.clear()
        self.ending = ending

    def told(self) -> str:
        return f"{self._run.name}: {len(self._rounds)} rounds, {self.ending}"

    def close(self) -> None:
        self._log.close(self.ending)


def track(following: Following, folder: Path, *, follow: bool) -> Sequence[str]:
    """Write runs to a tracker; return a line for each.

    Args:
        following: The runs and the tracker.
        folder: Of the runs.
        follow: Whether to wait for more until every run has ended.

    Raises:
        RunError: There is no run (HF-701), or the tracker's server does not answer while nothing
            is followed (HF-731).
    """
    with closing(following):
        if follow:
            _until_the_end(following)
        else:
            following.look()
    told = tuple(following.told())
    if not told:
        raise refuse_no_run(folder)
    return told


def _until_the_end(following: Following) -> None:
    """Look until every run has ended; a server that does not answer is told once and asked on."""
    said = ""
    while not following.has_ended():
        try:
            following.look()
            said = ""
        except RunError as error:
            if error.number != NO_ANSWER:
                raise
            if not said:
                say(f"{error}; it is asked again every second")
            said = str(error)
        if not following.has_ended():
            time.sleep(LOOK_S)
