"""One stream of several sites, taken apart: in memory while it is small, on disk beyond."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

from healthfm_client.ingest.reader_interface import Site, SitesInOneStream
from healthfm_client.ingest.tables.parquet_columns import by_group, folder_name
from healthfm_core.data.store.event_spool import (
    append_rows,
    read_journal,
    read_rows,
    refuse_full_disk,
    write_journal,
)
from healthfm_core.data.store.event_stream import EventStream, SourcePart

ROWS_IN_MEMORY: Final = 4_000_000
BYTES_IN_MEMORY: Final = 256 * 1024**2


def pile_up(sites: SitesInOneStream, piles: SitePiles, *, keep: bool) -> Iterator[int]:
    """Read a stream of several sites onto a pile each; yield how many rows are read.

    Args:
        sites: The stream and its column of sites.
        piles: Parts that they have already are not read again.
        keep: Commit each part, for a later run to go on from.
    """
    for part in sites.stream.parts:
        if part.name in piles.done:
            continue
        for table in part.tables:
            if not isinstance(table, pa.Table):
                raise TypeError("a stream of several sites has rows and nothing else")
            piles.add(table, sites.column)
            yield piles.rows
        if keep:
            piles.commit(part.name)


class SitePiles:
    """Rows by name, a bounded number of them in memory.

    Args:
        folder: Where the rest goes; made when it is needed.
        resume: Go on from the last `commit` of piles that were there; without it, begin empty.
    """

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        self._folder = folder
        self._waiting: dict[str, list[pa.Table]] = {}
        self._waiting_rows = 0
        self._waiting_bytes = 0
        journal = read_journal(folder, resume=resume) or {"done": [], "rows": {}}
        self._done: list[str] = list(journal["done"])
        self._counts: dict[str, int] = dict(journal["rows"])
        self._at = {name: at for at, name in enumerate(self._counts)}

    @property
    def done(self) -> frozenset[str]:
        """The parts of the source that were committed."""
        return frozenset(self._done)

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(self._counts.values())

    def sites(self, sites: SitesInOneStream) -> Iterator[Site]:
        """Yield the sites in order of their names in the source, numbers in their order."""
        for name in sorted(self._at, key=lambda name: (len(name), name)):
            whole = SourcePart(name, self._counts[name], self._tables(name))
            stream = EventStream((whole,), sites.stream.now_us, sites.stream.limits)
            yield Site(folder_name(name), stream=stream, labels=sites.labels, splits=sites.splits)

    def add(self, table: pa.Table, column: str) -> None:
        """Add rows to the piles that a column names.

        Raises:
            IngestError: HF-311.
        """
        at = table.schema.get_field_index("text_value")
        if at >= 0:  # else every pile would have all the texts in its dictionary
            table = table.set_column(at, "text_value", table["text_value"].cast(pa.large_string()))
        for name, rows in by_group(table, column):
            self._at.setdefault(name, len(self._at))
            self._waiting.setdefault(name, []).append(rows)
            self._counts[name] = self._counts.get(name, 0) + rows.num_rows
        self._waiting_rows += table.num_rows
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= ROWS_IN_MEMORY or self._waiting_bytes >= BYTES_IN_MEMORY:
            self._flush()

    def commit(self, part: str) -> None:
        """Put everything on disk and note that `part` is whole: a later `resume` skips it."""
        self._flush()
        self._done.append(part)
        write_journal(self._folder, {"done": self._done, "rows": self._counts})

    def remove(self) -> None:
        """Remove what is on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _tables(self, name: str) -> Iterator[pa.Table]:
        """Yield a name's rows as they came."""
        yield from read_rows(self._file(name))
        yield from self._waiting.get(name, [])

    def _flush(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        refuse_full_disk(self._folder, "the events on their way")
        for name, tables in self._waiting.items():
            table = pa.concat_tables(tables, promote_options="default")
            append_rows(self._file(name), table.unify_dictionaries().combine_chunks())
        self._waiting, self._waiting_rows, self._waiting_bytes = {}, 0, 0

    def _file(self, name: str) -> Path:
        return self._folder / f"{self._at[name]}.arrows"
