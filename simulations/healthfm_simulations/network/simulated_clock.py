"""A clock that stands still while anything is computed, and jumps to the next event in a wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class SimulatedClock:
    """The coordinator's clock in a simulated network.

    Attributes:
        next_s: Returns when something happens next; infinity where nothing will.
        pass_to: Lets everything happen up to a moment.
        now_s: What it shows.
    """

    next_s: Callable[[], float]
    pass_to: Callable[[float], None]
    now_s: float = 0.0

    def monotonic(self) -> float:
        """Return what it shows, seconds of virtual time."""
        return self.now_s

    def sleep(self, seconds: float, /) -> None:
        """Go on by that much; what happens meanwhile happens."""
        self._go_to(self.now_s + seconds)

    def await_news(self, pause_s: float, until_s: float, /) -> None:
        """Go on to the next event, at most to `until_s`."""
        self._go_to(min(max(self.next_s(), self.now_s), until_s))

    @property
    def simulated_s(self) -> float:
        """What it shows."""
        return self.now_s

    def _go_to(self, at_s: float) -> None:
        self.pass_to(at_s)
        self.now_s = at_s
