"""Times without a zone: naive µs on the clock that hung on the wall.

A store's times have no zone: they are what a clock at the site showed, as OMOP and device exports
give them anyway. One rule for every reader: a time with an offset or a zone keeps the clock it was
written with (Parquet's times adjusted to UTC: UTC's) and loses the offset; where the site names its
zone (``--time-zone``), every such time is first brought to it. A time without one stays as it is.
The zone of the machine that reads has no part in it. So an hour that summer time repeats in autumn
holds twice as much, and the hour it skips in spring is empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import times_us

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


def clock_column(column: pa.ChunkedArray, zone: str | None) -> pa.ChunkedArray:
    """Return a column of timestamps, with a zone or without, as naive µs on the wall's clock.

    Args:
        column: Timestamps of any unit; fractions of a µs are cut off.
        zone: The site's zone, an IANA name; None keeps the clock of the column's own.
    """
    own = column.type.tz
    kind = pa.timestamp("us", own)
    column = pc.cast(column, options=pc.CastOptions(kind, allow_time_truncate=True))
    if own is None:
        return column
    return pc.local_timestamp(column.cast(pa.timestamp("us", zone or own)))


def wall_us(time_us: Int64, zone: str | None) -> Int64:
    """Return points in time as a zone's clock showed them.

    Args:
        time_us: [N] µs since 1970, UTC.
        zone: An IANA name; None keeps UTC.
    """
    if zone is None:
        return time_us
    column = pa.chunked_array([pa.array(time_us).cast(pa.timestamp("us", "UTC"))])
    return times_us(pa.table({"time": clock_column(column, zone)}))


def times_of_utc(columns: Iterable[str], zone: str | None) -> tuple[str, ...]:
    """Return what a person is told whose times are UTC's and who named no zone; nothing else.

    Args:
        columns: Those that hold points in time, as the person knows them.
        zone: The site's, where it was named.
    """
    named = sorted(set(columns))
    if not named or zone is not None:
        return ()
    more = f" and {len(named) - 3} more columns" if len(named) > 3 else ""
    return (
        f"The times in {'; '.join(named[:3])}{more} are UTC's and were kept so. If the hospital's "
        "clocks show another time, events are hours off and births may be a day off: ingest again "
        "with the hospital's zone, for example --time-zone Europe/Vienna.",
    )
