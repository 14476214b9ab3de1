"""Bytes on their way over lines of their own and one that all share, in virtual time.

Each transfer takes what its site's line carries, and no more than its part of the coordinator's:
what is left of that is divided evenly among those that could take more (max-min fairness, towards
which TCP connections through one bottleneck tend). Between two events (a transfer begins or ends,
a line changes) all rates stay the same, so time goes from event to event.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from healthfm_simulations.network.site_connections import SiteConnection

_DONE_BITS: Final = 1e-3
"""What is left of a transfer through rounding."""


@dataclass
class Transfer:
    """Bytes of one site, one way.

    Attributes:
        line: The site's.
        bits: Left to move.
        up: To the coordinator; else from it.
        begins_s: When the first bit may move.
        done: Called with the moment at which the last one has moved.
    """

    line: SiteConnection
    bits: float
    up: bool
    begins_s: float
    done: Callable[[float], None]


@dataclass
class LineSharing:
    """All transfers that are not done.

    Attributes:
        capacity_mbit_s: The coordinator's line, each way.
        now_s: Up to when everything has moved.
        waiting: The transfers.
    """

    capacity_mbit_s: float
    now_s: float = 0.0
    waiting: list[Transfer] = field(default_factory=list)

    def add(self, transfer: Transfer) -> None:
        """Take a transfer, that begins now or later."""
        self.waiting.append(transfer)

    def next_s(self) -> float:
        """Return when rates change next or a transfer ends; infinity where nothing will."""
        return min(self._events(self._rates()), default=math.inf)

    def advance(self, until_s: float) -> None:
        """Move everything up to a moment, and tell those that are done, in their order."""
        while True:
            rates = self._rates()
            ended = [transfer for transfer, rate in rates if self._is_over(transfer, rate)]
            if not ended and self.now_s >= until_s:
                return
            if not ended:
                next_s = min([until_s, *self._events(rates)])
                for transfer, rate in rates:
                    transfer.bits -= rate * (next_s - self.now_s)
                self.now_s = next_s
            for transfer in ended:
                self.waiting.remove(transfer)
            for transfer in ended:
                transfer.done(self.now_s)

    def _is_over(self, transfer: Transfer, rate: float) -> bool:
        """Whether nothing is left, or less than this clock could tell from nothing."""
        bits = transfer.bits
        return bits <= _DONE_BITS or (rate > 0 and self.now_s + bits / rate <= self.now_s)

    def _events(self, rates: list[tuple[Transfer, float]]) -> list[float]:
        moving = [self.now_s + one.bits / rate for one, rate in rates if rate > 0]
        later = [one.begins_s for one in self.waiting if one.begins_s > self.now_s]
        changes = [one.line.next_change_s(self.now_s) for one, _ in rates]
        return [at_s for at_s in (*moving, *later, *changes) if at_s < math.inf]

    def _rates(self) -> list[tuple[Transfer, float]]:
        """Return each transfer that has begun, with its bits a second."""
        rates: list[tuple[Transfer, float]] = []
        for up in (False, True):
            begun = [t for t in self.waiting if t.up == up and t.begins_s <= self.now_s]
            own = [t.line.at(self.now_s).bits_per_s(up=up) for t in begun]
            rates += zip(begun, _fair(own, 1e6 * self.capacity_mbit_s), strict=True)
        return rates


def _fair(wanted: list[float], capacity: float) -> list[float]:
    """Return what each gets of a line that they share, none more than it wants."""
    given, left = [0.0] * len(wanted), capacity
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for place, i in enumerate(order):
        given[i] = min(wanted[i], left / (len(wanted) - place))
        left -= given[i]
    return given
