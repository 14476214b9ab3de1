"""How many callers the public port takes, how fast, and who has to go when it is full.

A caller is *unknown* until a handshake showed the certificate of an admitted site. Unknown callers
are limited per address and in all, and when there are too many the oldest of the busiest address
goes: nobody is locked out by others' silence. A site's connections count for the site alone, so no
noise of an unknown neighbour's at the same address ends them. Why so:
docs/decisions/0040-strangers-at-the-public-port.md.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final, Literal, TypeVar

from pydantic import Field

from healthfm_core.config.base import Schema

Stage = Literal["silent", "speaking", "site"]
DAY_S: Final = 24 * 3600.0
MOST_ADDRESSES: Final = 4096
"""Addresses that are remembered; who was not seen for longest is forgotten first."""
STRANGERS: Final = 0.5
"""Pace of all addresses without a site, as a share of that of all addresses with one."""
HOME_WEIGHT: Final = 0.25
PATIENCE_S: Final = 5.0
"""Longest wait for a handshake's turn; whoever would wait longer is refused."""
WAITING: Final = 0.25
"""Share of the callers who may have begun TLS that may wait for one turn.

Were it all of them, who waits would have to go for who comes, and nobody be served."""
_K = TypeVar("_K")
_V = TypeVar("_V")


class Rate(Schema):
    """So many a second."""

    in_all: float = Field(
        gt=0,
        description="of all addresses where a site has called within a day; of all others "
        "together, beside it, half of that",
    )
    address: float = Field(
        gt=0, description="of one address where no site has called within a day; else half of all"
    )
    burst_s: float = Field(2.0, gt=0, description="so many seconds of either may come at once")


class TimeLimits(Schema):
    """How long a caller of the public port may take, in seconds."""

    silent_s: float = Field(
        5.0, gt=0, description="from the connection to the first byte of the handshake"
    )
    handshake_s: float = Field(10.0, gt=0, description="from there to its end")
    first_request_s: float = Field(
        10.0, gt=0, description="from a stranger's handshake to the first byte of a request"
    )
    head_s: float = Field(
        20.0, gt=0, description="from the first byte of a request to the end of its head"
    )
    body_s: float = Field(60.0, gt=0, description="within which body_bytes of a body have to come")
    body_bytes: int = Field(
        16 * 1024, ge=1, description="273 bytes a second by default, a tenth of a modem's"
    )
    answer_s: float = Field(
        900.0,
        gt=0,
        description="within which something of an answer has to be taken; "
        "buffers of a thin line are deep",
    )


class CallerLimits(Schema):
    """What the public port takes."""

    unknown: int = Field(2048, ge=16, description="unknown callers in all")
    unknown_address: int = Field(256, ge=1, description="unknown callers of one address")
    speaking: int = Field(
        512,
        ge=1,
        description="unknown callers in all that have begun TLS, which takes 0.3 MB each",
    )
    site_connections: int = Field(32, ge=1, description="connections of one site")
    connections: Rate = Field(
        Rate(in_all=5000.0, address=500.0),
        description="new connections a second; more are refused",
    )
    handshakes: Rate = Field(
        Rate(in_all=600.0, address=50.0),
        description="handshakes a second, which cost most; more wait, for five seconds at the most",
    )
    site_calls_per_s: float = Field(
        100.0, gt=0, description="calls a second of one site; more wait"
    )
    site_burst: int = Field(1000, ge=1, description="calls of one site that may come at once")
    times: TimeLimits = TimeLimits()

    def within(self, descriptors: int) -> CallerLimits:
        """Return these limits, or lower ones where a process may have so few open files."""
        fewer = max(16, min(self.unknown, descriptors // 4))
        return self.model_copy(update={"unknown": fewer})


@dataclass(eq=False)
class Caller:
    """A connection of the public port.

    Attributes:
        address: Of the other side, as `address_key` gives it.
        since_s: When it came, by the clock of the port.
        close: Ends it at once.
        stage: What it has shown: nothing, the first byte of a handshake, a site's certificate.
        site: Name of the site, empty where it is unknown.
        ended: Whether it was ended.
    """

    address: str
    since_s: float
    close: Callable[[], None]
    stage: Stage = "silent"
    site: str = ""
    ended: bool = False


class Pace:
    """A token bucket: so many a second, so many at once.

    Args:
        per_s: Tokens a second.
        most: Tokens it holds.
        now_s: Time now; it is full.
    """

    def __init__(self, per_s: float, most: float, now_s: float) -> None:
        self._per_s = per_s
        self._most = most
        self._left = most
        self._at_s = now_s

    def take(self, now_s: float, patience_s: float = math.inf) -> float | None:
        """Take a token and return how long to wait for it; who comes later waits longer.

        Args:
            now_s: Time now.
            patience_s: Where it would be longer, none is taken and None returned.
        """
        self._left = min(self._most, self._left + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        wait_s = max(0.0, (1.0 - self._left) / self._per_s)
        if wait_s > patience_s:
            return None
        self._left -= 1.0
        return wait_s


class Paces:
    """How fast the callers of each address may come.

    Args:
        rate: Of one address and of all.
        now_s: Time now.
        waiting: Callers who may wait for their turn in one queue.
    """

    def __init__(self, rate: Rate, now_s: float, waiting: float = 0.0) -> None:
        self._rate = rate
        self._waiting = waiting
        self._all = {
            home: Pace(per_s, per_s * rate.burst_s, now_s)
            for home, per_s in ((True, rate.in_all), (False, rate.in_all * STRANGERS))
        }
        self.of: OrderedDict[tuple[str, bool], Pace] = OrderedDict()

    def take(self, address: str, home: bool, now_s: float) -> float | None:
        """Return how long a caller has to wait for others of its address; None: too long.

        Args:
            address: Its address.
            home: Whether a site has called from there within a day.
            now_s: Time now.
        """
        rate = self._rate
        per_s = rate.in_all / 2 if home else rate.address
        pace = self.of.get((address, home)) or Pace(per_s, per_s * rate.burst_s, now_s)
        _remember(self.of, (address, home), pace)
        return pace.take(now_s, self._patience_s(per_s))

    def take_of_all(self, home: bool, now_s: float) -> float | None:
        """Return how long a caller has to wait for those of every address; None: too long."""
        per_s = self._rate.in_all * (1.0 if home else STRANGERS)
        return self._all[home].take(now_s, self._patience_s(per_s))

    def _patience_s(self, per_s: float) -> float:
        return min(PATIENCE_S, self._waiting / per_s)


class Callers:
    """All connections of the public port.

    Args:
        limits: How many, how fast.
        now_s: Time now, by the clock of the port.
    """

    def __init__(self, limits: CallerLimits, now_s: float) -> None:
        self.limits = limits
        self._groups: dict[tuple[Stage, str], OrderedDict[Caller, None]] = {}
        self._counts: dict[Stage, int] = {"silent": 0, "speaking": 0, "site": 0}
        self._connections = Paces(limits.connections, now_s)
        self._handshakes = Paces(limits.handshakes, now_s, WAITING * limits.speaking)
        self._homes: OrderedDict[str, float] = OrderedDict()

    def __iter__(self) -> Iterator[Caller]:
        """Yield all, in no order."""
        for group in list(self._groups.values()):
            yield from list(group)

    def __len__(self) -> int:
        return sum(self._counts.values())

    def sites(self) -> frozenset[str]:
        """Return the sites that have a connection."""
        return frozenset(site for stage, site in self._groups if stage == "site")

    def takes(self, address: str, now_s: float) -> bool:
        """Return whether a new connection is taken."""
        home = self._is_home(address, now_s)
        if self._connections.take(address, home, now_s) is None:
            return False
        return self._connections.take_of_all(home, now_s) is not None

    def turn_s(self, caller: Caller, now_s: float) -> float | None:
        """Return how long a handshake waits for those of its address; None: it is refused."""
        home = self._is_home(caller.address, now_s)
        return self._handshakes.take(caller.address, home, now_s)

    def turn_of_all_s(self, caller: Caller, now_s: float) -> float | None:
        """Return how long it waits then for those of every address; None: it is refused."""
        home = self._is_home(caller.address, now_s)
        return self._handshakes.take_of_all(home, now_s)

    def add(self, caller: Caller, now_s: float) -> list[Caller]:
        """Take a caller; return those that have to go, taken out already."""
        self._put(caller)
        gone = []
        home = self._is_home(caller.address, now_s)
        most = self.limits.unknown // 2 if home else self.limits.unknown_address
        if self._of_address(caller.address) > most:
            gone.append(self._oldest(caller.address, ("silent", "speaking")))
        elif self._counts["silent"] + self._counts["speaking"] > self.limits.unknown:
            gone.append(self._oldest(self._busiest(("silent", "speaking"), now_s)))
        return self._taken_out(gone)

    def speaks(self, caller: Caller, now_s: float) -> list[Caller]:
        """Note that a caller has begun TLS; return those that have to go, taken out already."""
        self._move(caller, "speaking")
        if self._counts["speaking"] <= self.limits.speaking:
            return []
        busiest = self._busiest(("speaking",), now_s)
        return self._taken_out([self._oldest(busiest, ("speaking",))])

    def is_site(self, caller: Caller, site: str, now_s: float) -> list[Caller]:
        """Note that a caller is a site; return those of it that have to go, taken out already."""
        self.site_was_at(caller.address, now_s)
        self._move(caller, "site", site)
        group = self._groups["site", site]
        return self._taken_out(list(group)[: max(0, len(group) - self.limits.site_connections)])

    def site_was_at(self, address: str, when_s: float) -> None:
        """Note that a site called from an address."""
        _remember(self._homes, address, when_s)

    def forget(self, caller: Caller) -> None:
        """Take out a caller that is gone, if it is in."""
        key = self._key(caller)
        group = self._groups.get(key)
        if group is not None and caller in group:
            del group[caller]
            self._counts[caller.stage] -= 1
            if not group:
                del self._groups[key]

    def _put(self, caller: Caller) -> None:
        self._groups.setdefault(self._key(caller), OrderedDict())[caller] = None
        self._counts[caller.stage] += 1

    def _move(self, caller: Caller, stage: Stage, site: str = "") -> None:
        self.forget(caller)
        caller.stage, caller.site = stage, site
        self._put(caller)

    def _taken_out(self, gone: list[Caller]) -> list[Caller]:
        for caller in gone:
            self.forget(caller)
        return gone

    def _key(self, caller: Caller) -> tuple[Stage, str]:
        return caller.stage, caller.site or caller.address

    def _of_address(self, address: str) -> int:
        return sum(len(self._groups.get((s, address), ())) for s in ("silent", "speaking"))

    def _busiest(self, stages: tuple[Stage, ...], now_s: float) -> str:
        """Return the address with the most unknown callers, of as many that of the oldest.

        Where a site has called within a day, `HOME_WEIGHT` of each counts: sites may share it.
        """
        counts: dict[str, tuple[float, float]] = {}
        for (stage, address), group in self._groups.items():
            if stage in stages:
                weight = HOME_WEIGHT if self._is_home(address, now_s) else 1.0
                count, newness = counts.get(address, (0.0, -math.inf))
                oldest = max(newness, -next(iter(group)).since_s)
                counts[address] = count + weight * len(group), oldest
        return max(counts, key=lambda address: counts[address])

    def _oldest(self, address: str, stages: tuple[Stage, ...] = ("silent", "speaking")) -> Caller:
        """Return the oldest unknown caller of an address: of those who say nothing, if any does."""
        groups = (self._groups.get((stage, address)) for stage in stages)
        return next(next(iter(group)) for group in groups if group)

    def _is_home(self, address: str, now_s: float) -> bool:
        return now_s - self._homes.get(address, -2 * DAY_S) < DAY_S


def _remember(rows: OrderedDict[_K, _V], key: _K, value: _V) -> None:
    rows[key] = value
    rows.move_to_end(key)
    if len(rows) > MOST_ADDRESSES:
        rows.popitem(last=False)


def address_key(host: str) -> str:
    """Return what of an address one caller has to itself: of IPv6, the network of 64 bits."""
    address = ip_address(host.partition("%")[0])
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), 64), strict=False))
