"""One stream of several sites, taken apart: in memory while it is small, on disk beyond."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa

from healthfm_client.ingest.reader import BySite, Site
from healthfm_client.ingest.source import by_group, folder_name
from healthfm_core.data.spool import append_rows, read_rows, refuse_full_disk
from healthfm_core.data.stream import Aside, EventStream, Part, Progress

ROWS_IN_MEMORY: Final = 4_000_000


def split_up(sites: BySite, folder: Path, progress: Progress) -> Iterator[Site]:
    """Yield the sites of a stream in order of their names in the source.

    Args:
        sites: The stream and its column of sites.
        folder: Where rows wait once they are many; it is gone at the end.
        progress: Told of the rows read.
    """
    piles = Piles(folder)
    total = sum(part.rows for part in sites.stream.parts)
    for part in sites.stream.parts:
        for table in part.tables():
            if isinstance(table, Aside):
                raise TypeError("a stream of several sites sets nothing aside itself")
            for name, rows in by_group(table, sites.column):
                piles.add(name, rows)
            progress("reading", piles.rows, total)
    for name in piles.names():
        whole = Part(name, piles.rows_of(name), partial(piles.tables, name))
        stream = EventStream((whole,), sites.stream.now_us, sites.stream.limits)
        yield Site(folder_name(name), stream=stream, labels=sites.labels, splits=sites.splits)
    shutil.rmtree(folder, ignore_errors=True)


class Piles:
    """Rows by name, at most about `ROWS_IN_MEMORY` of them in memory.

    Args:
        folder: Where the rest goes; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._at: dict[str, int] = {}
        self._waiting: dict[str, list[pa.Table]] = {}
        self._waiting_rows = 0
        self._counts: dict[str, int] = {}

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(self._counts.values())

    def names(self) -> list[str]:
        """The names, short ones first, numbers in their order."""
        return sorted(self._at, key=lambda name: (len(name), name))

    def rows_of(self, name: str) -> int:
        """Rows of one name."""
        return self._counts[name]

    def add(self, name: str, table: pa.Table) -> None:
        """Add rows.

        Raises:
            IngestError: HF-311.
        """
        self._at.setdefault(name, len(self._at))
        self._waiting.setdefault(name, []).append(table)
        self._counts[name] = self._counts.get(name, 0) + table.num_rows
        self._waiting_rows += table.num_rows
        if self._waiting_rows >= ROWS_IN_MEMORY:
            self._flush()

    def tables(self, name: str) -> Iterator[pa.Table]:
        """Yield a name's rows as they came."""
        yield from read_rows(self._file(name))
        yield from self._waiting.get(name, [])

    def _flush(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        refuse_full_disk(self._folder, "the events on their way")
        for name, tables in self._waiting.items():
            table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
            append_rows(self._file(name), table)
        self._waiting, self._waiting_rows = {}, 0

    def _file(self, name: str) -> Path:
        return self._folder / f"{self._at[name]}.arrows"
