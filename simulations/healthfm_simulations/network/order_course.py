"""What becomes of one order: on its way, at work, on its way back, or lost, in virtual time.

An order waits for the site to look for news, comes down the site's line, waits for the site's
hours, is computed, and its answer goes up. A message is several requests, each of which takes the
time there and back once; its bytes then share the lines (`line_sharing`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from healthfm_core.config.network import NetworkConfig
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.network.site_connections import SiteConnection

REQUESTS: Final = 8
"""Requests one after the other that a message takes, each way."""
REQUEST_BYTES: Final = 2500
"""Of a request and its answer besides what they carry: headers, signatures, TLS."""
HOUR_S: Final = 3600.0


@dataclass(frozen=True)
class OrderLuck:
    """What chance has in store for one order.

    Attributes:
        is_lost: Whether the site never answers.
        before_work: Whether it is lost before anything was computed.
        slowness: How many times longer its computing takes.
    """

    is_lost: bool
    before_work: bool
    slowness: float


def order_luck(config: NetworkConfig, seed: int, site: str, order: str) -> OrderLuck:
    """Return what chance has in store for an order.

    Args:
        config: The network's settings.
        seed: The run's.
        site: Whose.
        order: Names it among the site's: its kind and number.
    """
    chance = numpy_generator(seed, "network", site, order)
    lost, early, slow = chance.random(3)
    slowness = config.slow_factor if slow < config.slow_share else 1.0
    return OrderLuck(lost < config.dropout, early < 0.5, slowness)


def begin_work_s(hours: tuple[float, float] | None, zone_h: float, now_s: float) -> float:
    """Return when a site may begin what came at `now_s`.

    Args:
        hours: From when to when it computes, by its own clock; None: always.
        zone_h: Its clock's hours ahead of the coordinator's, which begins at midnight.
        now_s: In virtual time.
    """
    if hours is None:
        return now_s
    begin, end = hours
    local = (now_s / HOUR_S + zone_h) % 24
    inside = begin <= local < end if begin < end else local >= begin or local < end
    return now_s if inside else now_s + ((begin - local) % 24) * HOUR_S


def requests_s(line: SiteConnection, now_s: float) -> float:
    """Return what the requests of one message take beside its bytes; infinity while offline."""
    values = line.at(now_s)
    return REQUESTS * values.latency_ms / 1000 if values.online else math.inf


def bits_of(content_bytes: int) -> float:
    """Return what a message of so many bytes puts on the line."""
    return 8.0 * (content_bytes + REQUESTS * REQUEST_BYTES)
