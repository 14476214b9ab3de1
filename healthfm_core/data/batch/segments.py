"""Arithmetic on ragged arrays: a segment is a slice of a flat array, given by its bounds."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Bool, Int64, Integers


def ranges(start: Int64, count: Int64) -> Int64:
    """Return ``start[i] … start[i] + count[i] - 1`` for every i, one after the other."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(start - (ends - count), count)


def offsets_of(count: Integers) -> Int64:
    """Return the bounds ``[0, count[0], count[0] + count[1], …]`` of segments of these sizes."""
    bounds = np.zeros(len(count) + 1, np.int64)
    np.cumsum(count, out=bounds[1:])
    return bounds


def run_starts(*keys: npt.NDArray[np.generic]) -> Bool:
    """Return, for sorted rows, where any of the keys differs from the row before; row 0 does."""
    starts = np.zeros(len(keys[0]), np.bool_)
    starts[:1] = True
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return starts


def run_ends(starts: Bool) -> Int64:
    """Return, for every row, the index one past the last row of its run."""
    bounds = np.append(np.flatnonzero(starts), len(starts))
    return np.repeat(bounds[1:], np.diff(bounds))


def search(
    values: npt.NDArray[np.generic],
    low: Int64,
    high: Int64,
    wanted: npt.NDArray[np.generic],
    side: Literal["left", "right"],
) -> Int64:
    """Return where `wanted[i]` would be inserted into the sorted segment ``low[i]:high[i]``.

    The answer is an index into `values` between ``low[i]`` and ``high[i]``, as
    `numpy.searchsorted` with `side` would give for each segment on its own.
    """
    low, high = low.copy(), high.copy()
    while True:
        open_ = np.flatnonzero(low < high)
        if not len(open_):
            return low
        middle = (low[open_] + high[open_]) >> 1
        value = values[middle]
        after = value < wanted[open_] if side == "left" else value <= wanted[open_]
        low[open_[after]] = middle[after] + 1
        high[open_[~after]] = middle[~after]
