"""What a tracker is: a module of `trackers` with a `TRACKER`, found by its name alone."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from healthfm_core.errors import ConfigError
from healthfm_server.tracking import trackers
from healthfm_server.tracking.tracked_round import TrackedRound
from healthfm_server.tracking.tracked_run import Ending, TrackedRun


class TrackerLog(Protocol):
    """One run in a tracker. What was written stays where the next call fails."""

    def write(self, rounds: Sequence[TrackedRound]) -> None:
        """Write rounds; those that an earlier process wrote are not written twice.

        Raises:
            RunError: The tracker's server does not answer or refuses it (HF-731).
        """

    def close(self, ending: Ending) -> None:
        """Write what is not written yet, and how the run ended: ``running`` leaves it open."""


@dataclass(frozen=True)
class Tracker:
    """A program that shows runs.

    Attributes:
        title: What the program is called.
        extra: Of this package, which installs what `package` names.
        package: That has to be there.
        at: What ``--at`` means to it, for ``--help``.
        open: (run, experiment, what ``--at`` says or None) → the run in the tracker.
    """

    title: str
    extra: str
    package: str
    at: str
    open: Callable[[TrackedRun, str, str | None], TrackerLog]


def tracker_names() -> tuple[str, ...]:
    """Return the names that ``--to`` takes, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(trackers.__path__)))


def known_trackers() -> dict[str, Tracker]:
    """Return name → tracker, whether its package is installed or not."""
    return {name: import_module(f"{trackers.__name__}.{name}").TRACKER for name in tracker_names()}


def usable_tracker(name: str) -> Tracker:
    """Return a tracker whose package is installed.

    Raises:
        ConfigError: It is not (HF-108).
    """
    tracker = known_trackers()[name]
    if find_spec(tracker.package) is None:
        raise ConfigError(
            108,
            where=f"--to {name}",
            seen=f"{tracker.title}'s package {tracker.package} is not installed",
            wanted="the extra that has it",
            do=f"Run: pip install 'healthfm[{tracker.extra}]'",
        )
    return tracker
