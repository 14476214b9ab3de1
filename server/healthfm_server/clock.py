"""The coordinator's clock: the machine's, or one of a simulation in which waiting takes no time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the round loop and its exchanges use of time."""

    def monotonic(self) -> float:
        """Return seconds since some moment that stays the same."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""

    def await_news(self, pause_s: float, until_s: float, /) -> None:
        """Wait until there may be news.

        Args:
            pause_s: How long a look for them can wait.
            until_s: By this clock, until when at most somebody who knows when they come waits.
        """

    @property
    def simulated_s(self) -> float | None:
        """What it shows, where that is a simulation's own time; None: the machine's clock."""


class SystemClock:
    """The machine's own."""

    def monotonic(self) -> float:
        """Return `time.monotonic`."""
        return time.monotonic()

    def sleep(self, seconds: float, /) -> None:
        """Wait."""
        time.sleep(seconds)

    def await_news(self, pause_s: float, until_s: float, /) -> None:
        """Wait for `pause_s`: who is asked does not say when they have news."""
        time.sleep(pause_s)

    @property
    def simulated_s(self) -> None:
        """It is the machine's time."""
        return None


SYSTEM_CLOCK = SystemClock()
