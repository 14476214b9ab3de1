"""Events that need not fit in memory: read into a spool, then sorted and cleaned group by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.data.store.event_spool import EventSpool
from healthfm_core.data.store.event_stream import (
    CodeTexts,
    EventStream,
    NotRead,
    RejectedRows,
    SourceCodes,
    StreamItem,
)
from healthfm_core.data.store.events import coded, set_aside, sort_events, with_plain_codes
from healthfm_core.processes import usable_processors

WORKERS: Final = 4
"""Groups that are cleaned at once, at most; each takes about 250 MB."""


@dataclass(frozen=True)
class CleanedGroup:
    """The events of a group of subjects, ready to be written.

    Attributes:
        events: By subject and time, codes as a dictionary of those that occur, by name.
        rejected: Reason → events that cannot be true.
    """

    events: pa.Table
    rejected: Mapping[str, pa.Table]


def read_into(spool: EventSpool, stream: EventStream, *, keep: bool) -> Iterator[int]:
    """Read every part of a source into a spool; yield how many rows are read, about.

    Args:
        spool: Parts that it has already are not read again.
        stream: The source.
        keep: Commit each part, for a later run to go on from.
    """
    rows_read = 0
    for part in stream.parts:
        start = rows_read
        if part.name not in spool.done:
            for item in part.tables:
                rows_read += _add(spool, item)
                yield min(rows_read, start + part.rows)
            if keep:
                spool.commit(part.name)
        rows_read = start + part.rows
        yield rows_read


def _add(spool: EventSpool, item: StreamItem) -> int:
    """Put what a part yields where it belongs; return its rows."""
    if isinstance(item, CodeTexts):
        spool.name_codes(item.of)
        return 0
    if isinstance(item, NotRead):
        spool.not_read.update(item.kinds)
        return 0
    if isinstance(item, SourceCodes):
        spool.source_codes.update(item.rows)
        return 0
    if isinstance(item, RejectedRows):
        spool.reject(item)
        return item.rows.num_rows
    spool.add(item)
    return item.num_rows


def sorted_and_cleaned(spool: EventSpool, stream: EventStream) -> Iterator[CleanedGroup]:
    """Yield the groups of a spool in order, a few of them in work at a time."""
    groups = spool.groups()
    workers = min(WORKERS, usable_processors(), len(groups))
    if workers == 1:
        for cells in groups:
            yield sort_and_clean(spool.take(cells), stream)
        return

    def work(cells: range) -> CleanedGroup:
        return sort_and_clean(spool.take(cells), stream)

    with ThreadPoolExecutor(workers) as pool:
        rest = iter(groups)
        waiting = [pool.submit(work, cells) for cells in islice(rest, workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(work, cells) for cells in islice(rest, 1)]


def sort_and_clean(events: pa.Table, stream: EventStream) -> CleanedGroup:
    """Return the events that can be true, in order, and the others with their reasons."""
    events = sort_events(events)  # which makes doubles quick to find
    kept, rejected = set_aside(events, now_us=stream.now_us, limits=stream.limits)
    return CleanedGroup(
        _with_codes_by_name(kept),
        {reason: with_plain_codes(rows) for reason, rows in rejected.items()},
    )


def _with_codes_by_name(table: pa.Table) -> pa.Table:
    """Return the rows with a dictionary of the codes that occur, by name."""
    index, names = coded(table["code"])
    used = np.flatnonzero(np.bincount(index, minlength=len(names)))
    by_name = used[np.argsort(np.array([names[at] for at in used], dtype=object), kind="stable")]
    number = np.zeros(len(names), np.int32)
    number[by_name] = np.arange(len(by_name), dtype=np.int32)
    code = pa.DictionaryArray.from_arrays(
        pa.array(number[index] if len(index) else np.zeros(0, np.int32)),
        pa.array([names[at] for at in by_name], pa.string()),
    )
    return table.set_column(table.column_names.index("code"), "code", code)
