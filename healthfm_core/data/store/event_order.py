"""The order of events, by subject and then time, without comparing two numbers a row.

A subject's place among the subjects and a time in whole seconds or milliseconds are small numbers.
The time and the row's own number are packed into one word, whose sorting numpy vectorises; subjects
are sorted by 16 bits at a time, which takes a pass over the rows each. In all a fourth of the time
of `numpy.lexsort`, which remains for times finer than that.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Int64

STATIC_TIME: Final = np.iinfo(np.int64).min
"""Stands for a null time in int64 columns, so that static rows sort first."""
_UNITS_US: Final = (1_000_000, 1_000, 1)
_WORD: Final = 64
_DIGIT: Final = 16


def order_of(subject: Int64, time: Int64) -> Int64:
    """Return the rows by subject, then time; rows that tie keep their order.

    Args:
        subject: [N] ids.
        time: [N] in µs, `STATIC_TIME` first of all.
    """
    order = _by_time(time)
    encoded = pa.array(subject).dictionary_encode()
    distinct = encoded.dictionary.to_numpy()
    place = np.empty(len(distinct), np.int64)
    place[np.argsort(distinct)] = np.arange(len(distinct))
    rank = place[encoded.indices.to_numpy()]
    for shift in range(0, int(rank.max(initial=0)).bit_length(), _DIGIT):
        digit = (rank[order] >> shift).astype(np.uint16)
        order = order[np.argsort(digit, kind="stable")]
    return order


def _by_time(time: Int64) -> Int64:
    rows = len(time)
    row_bits = rows.bit_length()
    timed = time != STATIC_TIME
    some = time if timed.all() else time[timed]
    if not len(some):
        return np.arange(rows)
    first, last = int(some.min()), int(some.max())
    since = (time - first).view(np.uint64)  # wraps around for a static row, which is 0 below
    for unit in _UNITS_US:
        if ((last - first) // unit + 1).bit_length() + row_bits > _WORD:
            break
        if unit == 1 or not (since[timed] % np.uint64(unit)).any():
            whole = np.where(timed, since // np.uint64(unit) + np.uint64(1), np.uint64(0))
            packed = (whole << np.uint64(row_bits)) | np.arange(rows, dtype=np.uint64)
            packed.sort()
            return (packed & np.uint64((1 << row_bits) - 1)).view(np.int64)
    return np.argsort(time, kind="stable")
