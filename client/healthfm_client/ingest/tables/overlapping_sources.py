"""What several devices of one person counted at the same time, counted once.

A telephone in the pocket and a watch on the wrist both count the same steps. Of the time that a
preferred source covers, what others counted in it is left out, as Apple's own totals do
(`HKStatisticsQuery`). What one source counts twice at one time is left to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healthfm_core.arrays import Float64, Int64


@dataclass(frozen=True)
class Counted:
    """Amounts counted over stretches of time.

    Attributes:
        start: [N] µs.
        end: [N] µs, later than the start.
        value: [N] the amount, or the level, of the whole stretch.
        rank: [N] of the source; 0 is preferred to all others.
    """

    start: Int64
    end: Int64
    value: Float64
    rank: Int64


def share_left(counted: Counted) -> Float64:
    """Return [N] the share of each stretch that no preferred source covers, 0 to 1."""
    rows = np.arange(len(counted.start))
    free = _free(counted, rows, counted.start, counted.end)
    return np.asarray(free / (counted.end - counted.start), np.float64)


def by_minute(counted: Counted, minute_us: int, *, level: bool = False) -> tuple[Int64, Float64]:
    """Return the minutes that stretches touch, each with what was counted in it.

    Args:
        counted: An amount is spread evenly over its stretch.
        minute_us: Length of a minute.
        level: The value holds all through its stretch (a stage of sleep) and is averaged over the
            time, not added up.

    Returns:
        ([M] the minutes' beginnings, ascending; [M] their values).
    """
    first, last = counted.start // minute_us, (counted.end - 1) // minute_us
    pieces = last - first + 1
    rows = np.repeat(np.arange(len(first)), pieces)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    minute = first[rows] + within
    start = np.maximum(counted.start[rows], minute * minute_us)
    end = np.minimum(counted.end[rows], (minute + 1) * minute_us)
    free = _free(counted, rows, start, end)
    left = free > 0
    rows, free = rows[left], free[left]
    minutes, at = np.unique(minute[left], return_inverse=True)
    if level:
        sums = np.bincount(at, weights=counted.value[rows] * free, minlength=len(minutes))
        return minutes * minute_us, sums / np.bincount(at, weights=free, minlength=len(minutes))
    amount = counted.value[rows] * free / (counted.end - counted.start)[rows]
    sums = np.bincount(at, weights=amount, minlength=len(minutes))
    return minutes * minute_us, np.asarray(sums, np.float64)


def _free(counted: Counted, rows: Int64, start: Int64, end: Int64) -> Float64:
    """Return [P] how much of each piece of a row's stretch no source of a lower rank covers, µs."""
    free = (end - start).astype(np.float64)
    rank = counted.rank[rows]
    for this in np.unique(counted.rank)[1:]:
        above = counted.rank < this
        edges, covered = _covered(counted.start[above], counted.end[above])
        own = rank == this
        free[own] -= np.interp(end[own], edges, covered) - np.interp(start[own], edges, covered)
    return np.maximum(free, 0.0)


def _covered(start: Int64, end: Int64) -> tuple[Float64, Float64]:
    """Return (edges of the union of stretches, the time covered up to each)."""
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    new = np.append(True, start[1:] > reach[:-1])
    begins = start[new]
    ends = reach[np.append(np.flatnonzero(new)[1:] - 1, len(reach) - 1)]
    edges = np.column_stack([begins, ends]).ravel().astype(np.float64)
    covered = np.zeros((len(begins), 2))
    covered[:, 1] = np.cumsum((ends - begins).astype(np.float64))
    covered[1:, 0] = covered[:-1, 1]
    return edges, covered.ravel()
