"""Steps from counters that begin anew at each midnight, as watches write them.

A message says how many steps its day has had so far; the difference to the message before, of the
same day, belongs to the minutes in between. Where the watch counts its wearer's minutes of moving
too, those are the last so many of them, else a quarter of an hour at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_client.ingest.person_wearing import LONGEST_US, QUARTER_US, WallClock
from healthfm_client.ingest.tables.overlapping_sources import Counted
from healthfm_client.ingest.tables.wearable_minutes import MINUTE_US
from healthfm_core.arrays import Bool, Int64
from healthfm_core.data.store.wearables import DAY_US, SECOND_US

_MILLI_US: Final = 1000


@dataclass(frozen=True)
class Steps:
    """What a watch's counters of one kind of moving come to.

    Attributes:
        placed: Stretches of time with their steps, in µs of the counters' clock.
        totals: Day since 1970, of the wall's clock → its steps.
        unplaced: Messages whose steps are of no known minute, or whose counter went back.
    """

    placed: Counted
    totals: dict[int, float]
    unplaced: int


def steps_of(messages: Int64, wall: WallClock) -> Steps:
    """Return the steps of one kind of moving.

    Args:
        messages: [N, 3] seconds since 1970 in UTC, steps of the day so far, milliseconds of
            moving so far (-1 where that is not told); in any order.
        wall: The clock whose midnight the counters begin anew at.
    """
    table = np.unique(messages, axis=0)
    time = table[:, 0] * SECOND_US
    on_wall = wall(time)
    day = (on_wall - SECOND_US) // DAY_US  # what is written at midnight is the old day's total
    follows = np.append(False, day[1:] == day[:-1])[: len(day)]
    before = np.where(follows[:, None], np.roll(table, 1, axis=0), 0)
    since = np.where(follows, before[:, 0] * SECOND_US, time - (on_wall - day * DAY_US))
    lasting, known = _lasting(table, before, time - since, follows)
    steps = table[:, 1] - before[:, 1]
    some = (steps > 0) & known
    zeros = np.zeros(int(some.sum()), np.int64)
    placed = Counted(time[some] - lasting[some], time[some], steps[some].astype(np.float64), zeros)
    return Steps(placed, _totals(day, table[:, 1]), int(((steps != 0) & ~some).sum()))


def _lasting(table: Int64, before: Int64, gap: Int64, follows: Bool) -> tuple[Int64, Bool]:
    """Return ([N] how long the moving took in µs, [N] whether that tells the minutes)."""
    told = (table[:, 2] >= 0) & ((before[:, 2] >= 0) | ~follows)
    moving = np.where(told, (table[:, 2] - before[:, 2]) * _MILLI_US, QUARTER_US)
    lasting = np.minimum(np.maximum(moving, MINUTE_US), np.maximum(gap, MINUTE_US))
    longest = np.where(follows, LONGEST_US, QUARTER_US)
    return lasting, (moving <= longest) & (moving >= 0) & (told | follows | (gap <= QUARTER_US))


def _totals(day: Int64, steps: Int64) -> dict[int, float]:
    days, at = np.unique(day, return_inverse=True)
    most = np.zeros(len(days), np.int64)
    np.maximum.at(most, at, steps)
    return dict(zip(days.tolist(), most.astype(np.float64).tolist(), strict=True))
