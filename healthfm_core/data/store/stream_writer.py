"""From a stream of events to the event files of a store: gathered by subject, cleaned, sorted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.arrays import Int64
from healthfm_core.data.store.event_spool import EventSpool
from healthfm_core.data.store.event_stream import (
    CleanedGroup,
    CodeTexts,
    EventStream,
    Progress,
    RejectedRows,
)
from healthfm_core.data.store.events import coded, ids, set_aside, sort_events
from healthfm_core.data.store.schemas import SPLIT_NAMES
from healthfm_core.data.store.store_files import DATA, REJECTED_FOLDER

WORKERS: Final = 4
"""Groups that are cleaned at once, at most; each takes about 250 MB."""

_DIFFERENCES: Final = ("subject_id", "time")
"""Columns that are written as differences; sorted as they are, that is small and quick."""

SplitOf = Callable[[Int64], pa.Table]


@dataclass
class Written:
    """What became of a stream.

    Attributes:
        subjects: Ascending, each with an event.
        codes: The codes that occur.
        rejected: Reason → rows.
    """

    subjects: list[Int64] = field(default_factory=list)
    codes: set[str] = field(default_factory=set)
    rejected: dict[str, int] = field(default_factory=dict)


def gather(stream: EventStream, spool: EventSpool, progress: Progress, *, keep: bool) -> None:
    """Read every part into the spool.

    Args:
        stream: The source.
        spool: Parts that it has already are not read again.
        progress: Told of the rows read.
        keep: Commit each part, for a later run to go on from.
    """
    total = sum(part.rows for part in stream.parts)
    done = 0
    for part in stream.parts:
        start = done
        if part.name not in spool.done:
            for found in part.tables():
                if isinstance(found, CodeTexts):
                    spool.name_codes(found.of)
                elif isinstance(found, RejectedRows):
                    spool.put_aside(found)
                    done += found.rows.num_rows
                else:
                    spool.add(found)
                    done += found.num_rows
                progress("reading", min(done, start + part.rows), total)
            if keep:
                spool.commit(part.name)
        done = start + part.rows
        progress("reading", done, total)


def write_stream(
    stream: EventStream, spool: EventSpool, folder: Path, split_of: SplitOf, progress: Progress
) -> Written:
    """Write ``data/<split>/<group>.parquet`` and ``rejected/`` from a spool.

    Args:
        stream: What the events are held against.
        spool: All the events.
        folder: The store in the making.
        split_of: Subjects → MEDS's table of their splits.
        progress: Told of the rows written.
    """
    written = Written()
    groups = spool.groups()
    done = 0
    with Rejected(folder / REJECTED_FOLDER, written.rejected) as rejected:
        for aside in spool.asides():
            rejected.add(aside.reason, aside.rows)
        for number, cleaned in enumerate(_cleaned(stream, spool, groups)):
            events = _with_text(cleaned.events) if spool.has_text else cleaned.events
            subjects = _write_group(events, folder, number, split_of)
            written.subjects.append(subjects)
            written.codes |= set(coded(cleaned.events["code"])[1])
            for reason, rows in cleaned.aside.items():
                rejected.add(reason, rows)
            done += cleaned.events.num_rows + sum(t.num_rows for t in cleaned.aside.values())
            progress("writing", done, spool.rows)
    return written


def _cleaned(stream: EventStream, spool: EventSpool, groups: list[range]) -> Iterator[CleanedGroup]:
    """Yield the groups in order, a few of them in work at a time."""

    def clean_group(cells: range) -> CleanedGroup:
        return clean(spool.take(cells), stream)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(WORKERS, cores or 1, len(groups))
    if workers == 1:
        yield from map(clean_group, groups)
        return
    with ThreadPoolExecutor(workers) as pool:
        rest = iter(groups)
        waiting = [pool.submit(clean_group, cells) for cells in islice(rest, workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(clean_group, cells) for cells in islice(rest, 1)]


def clean(table: pa.Table, stream: EventStream) -> CleanedGroup:
    """Return the events that can be true, in order, and the others with their reasons."""
    table = sort_events(table)  # which makes doubles quick to find
    kept, aside = set_aside(table, now_us=stream.now_us, limits=stream.limits)
    plain = {reason: _plain(rows) for reason, rows in aside.items()}
    return CleanedGroup(_compact(kept), plain)


def _compact(table: pa.Table) -> pa.Table:
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


def _plain(table: pa.Table) -> pa.Table:
    at = table.column_names.index("code")
    return table.set_column(at, "code", table["code"].cast(pa.string()))


def _write_group(events: pa.Table, folder: Path, number: int, split_of: SplitOf) -> Int64:
    subject = ids(events)
    subjects = subject[np.append(True, subject[1:] != subject[:-1])] if len(subject) else subject
    if not len(subjects):
        return subjects
    splits = np.asarray(split_of(subjects)["split"].to_pylist())
    rows = np.searchsorted(subjects, subject)
    for name in SPLIT_NAMES:
        chosen = (splits == name)[rows]
        if chosen.any():
            table = events if chosen.all() else events.filter(pa.array(chosen))
            _write_events(table, folder / DATA / name / f"{number}.parquet")
    return subjects


def _with_text(events: pa.Table) -> pa.Table:
    """Return events with a column of texts: every file of a store has it, or none."""
    if "text_value" in events.column_names:
        return _plain(events)
    return _plain(events.append_column("text_value", pa.nulls(len(events), pa.large_string())))


def _write_events(table: pa.Table, file: Path) -> None:
    """Write events so that equal ones give equal bytes, codes from their dictionary."""
    file.parent.mkdir(parents=True, exist_ok=True)
    coded_still = pa.types.is_dictionary(table["code"].type)
    pq.write_table(
        table,
        file,
        compression="zstd",
        row_group_size=1 << 20,
        store_schema=not coded_still,
        use_dictionary=[name for name in table.column_names if name not in _DIFFERENCES],
        column_encoding=dict.fromkeys(_DIFFERENCES, "DELTA_BINARY_PACKED"),
    )


class Rejected:
    """The files of rows set aside, one per reason and kind of row, written as they come."""

    def __init__(self, folder: Path, counts: dict[str, int]) -> None:
        self._folder = folder
        self._counts = counts
        self._writers: dict[str, list[pq.ParquetWriter]] = {}

    def __enter__(self) -> Rejected:
        return self

    def __exit__(self, *_: object) -> None:
        for writers in self._writers.values():
            for writer in writers:
                writer.close()

    def add(self, reason: str, rows: pa.Table) -> None:
        """Append rows under their reason."""
        self._counts[reason] = self._counts.get(reason, 0) + rows.num_rows
        writers = self._writers.setdefault(reason, [])
        writer = next((w for w in writers if w.schema.equals(rows.schema)), None)
        if writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            writer = pq.ParquetWriter(self._new_file(reason), rows.schema, compression="zstd")
            writers.append(writer)
        writer.write_table(rows)

    def _new_file(self, reason: str) -> Path:
        names = (reason if not n else f"{reason}-{n + 1}" for n in count())
        return next(f for name in names if not (f := self._folder / f"{name}.parquet").exists())
