"""Times as texts: to naive µs on the clock that hung on the wall.

A store's times have no zone: they are what a clock at the site showed, as OMOP and device exports
give them anyway. A time with an offset keeps the clock it was written with and loses the offset;
where the site names its zone, every time with an offset is first brought to it. So an hour that
summer time repeats in autumn holds twice as much, and the hour it skips in spring is empty.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_EPOCH: Final = datetime(1970, 1, 1)
_SECONDS_A_DAY: Final = 86_400


@lru_cache(maxsize=1 << 16)
def clock_us(text: str | None, zone: str | None) -> int | None:
    """Return an ISO 8601 date or time as µs since 1970, None where it is none.

    Args:
        text: ``2020``, ``2020-05``, ``2020-05-01`` or a time, with or without an offset; the
            first of what is left out.
        zone: The site's zone, an IANA name; None keeps the clock of the offset.
    """
    if not text:
        return None
    if len(text) in (4, 7):
        text = f"{text}-01-01" if len(text) == 4 else f"{text}-01"
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and zone is not None:
            moment = moment.astimezone(ZoneInfo(zone))
    except (ValueError, OverflowError):
        return None
    since = moment.replace(tzinfo=None) - _EPOCH
    return (since.days * _SECONDS_A_DAY + since.seconds) * 1_000_000 + since.microseconds


def known_zone(name: str) -> str:
    """Return the name of a zone.

    Raises:
        ValueError: It is none.
    """
    try:
        datetime.now(UTC).astimezone(ZoneInfo(name))
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("it is no IANA time zone, such as Europe/London") from error
    return name
