"""A table of PostgreSQL's read by ranges of its pages, over connections that see one state of it.

Two connections fetch ranges side by side, and each comes packed (`packed_columns`); rows come in
the order in which they lie. This is for tables that lie in pages of their own: a view, a table in
partitions, one with texts too long for its pages, or one of an older server comes as one stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from typing import Any, Final

import pyarrow as pa

from healthfm_client.ingest.tables.packed_columns import AskedColumn, packs_of, unpacked_rows
from healthfm_core.errors import IngestError

PAGES_AT_ONCE: Final = 2048
"""16 MB, some 120,000 measurements."""
LEAST_PAGES: Final = 4096
"""A smaller table is no slower as one stream."""
CONNECTIONS: Final = 2
_AHEAD: Final = 2
"""Ranges on their way for each connection."""
ONE_STATE: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_PAGES: Final = """
SELECT CASE WHEN relkind IN ('r', 'm') AND amname = 'heap'
            AND NOT relhassubclass AND NOT relrowsecurity
            AND current_setting('server_version_num')::int >= 140000
            AND current_setting('server_encoding') = 'UTF8'
            AND (reltoastrelid = 0 OR pg_relation_size(reltoastrelid) = 0)
       THEN pg_relation_size(c.oid) / current_setting('block_size')::bigint
       ELSE 0 END AS pages
FROM pg_class c LEFT JOIN pg_am a ON a.oid = relam WHERE c.oid = '{name}'::regclass
"""


@dataclass(frozen=True)
class DatabasePages:
    """What reads a database's tables by pages.

    Attributes:
        main: The connection whose state is read.
        connect: Makes another.
        others: Those made.
        idle: Those of them that fetch nothing.
        fetching: What fetches, until another table is asked for.
    """

    main: Any
    connect: Callable[[], Any]
    others: list[Any] = field(default_factory=list)
    idle: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    fetching: list[ThreadPoolExecutor] = field(default_factory=list)

    def pages(self, table: str) -> int:
        """Return how many pages a table has that can be read by ranges of them, else 0."""
        sql = _PAGES.format(name=table.replace("'", "''"))
        with closing(self.main.cursor()) as cursor:
            cursor.execute(sql)
            return int(cursor.fetchone()[0])

    def is_ready(self) -> bool:
        """Whether there are connections to fetch with; an account may have but the one."""
        if self.others:
            return True
        with closing(self.main.cursor()) as cursor:
            cursor.execute("SELECT pg_export_snapshot()")
            state = cursor.fetchone()[0]
        for _ in range(CONNECTIONS):
            try:
                other = self.connect()
            except IngestError:  # refused as one too many: the others do
                break
            self.others.append(other)
            self.idle.put(other)
            with closing(other.cursor()) as cursor:
                cursor.execute(ONE_STATE)
                cursor.execute(f"SET TRANSACTION SNAPSHOT '{state}'")
        return bool(self.others)

    def batches(
        self, table: str, pages: int, columns: Sequence[AskedColumn]
    ) -> pa.RecordBatchReader:
        """Return a table's columns, in the order of its pages."""
        schema = pa.schema([(column.name, column.type) for column in columns])
        return pa.RecordBatchReader.from_batches(schema, self._ranges(table, pages, columns))

    def forget(self) -> None:
        """Fetch no more of the table."""
        while self.fetching:
            self.fetching.pop().shutdown(cancel_futures=True)

    def close(self) -> None:
        """Let the connections go."""
        self.forget()
        while self.others:
            self.others.pop().close()

    def _ranges(
        self, table: str, pages: int, columns: Sequence[AskedColumn]
    ) -> Iterator[pa.RecordBatch]:
        starts = range(0, pages, PAGES_AT_ONCE)
        where = (f"{table} WHERE ctid >= '({at},0)'{_until(at, pages)}" for at in starts)
        pool = ThreadPoolExecutor(len(self.others))
        self.fetching.append(pool)
        ahead = _AHEAD * len(self.others)
        waiting = deque(pool.submit(self._fetched, one, columns) for one in islice(where, ahead))
        while waiting:
            batch = waiting.popleft().result()
            waiting += [pool.submit(self._fetched, one, columns) for one in islice(where, 1)]
            yield batch

    def _fetched(self, where: str, columns: Sequence[AskedColumn]) -> pa.RecordBatch:
        try:
            return self._asked(where, columns, lengths=False)
        except pa.ArrowInvalid:  # a separator stands in a text
            return self._asked(where, columns, lengths=True)

    def _asked(
        self, where: str, columns: Sequence[AskedColumn], *, lengths: bool
    ) -> pa.RecordBatch:
        packs = packs_of(columns)
        asked = [pack.asked(lengths=lengths) for pack in packs]
        every = ", ".join(sql for its in asked for sql in its)
        connection = self.idle.get()
        try:
            with closing(connection.cursor()) as cursor:
                cursor.execute(f"SELECT count(*), {every} FROM {where}")
                found = cursor.fetch_arrow_table().combine_chunks()
        finally:
            self.idle.put(connection)
        rows, came = found.column(0)[0].as_py(), iter(found.columns[1:])
        packed = [[column.chunk(0) for column in islice(came, len(its))] for its in asked]
        arrays = unpacked_rows(packs, packed, rows)
        return pa.record_batch({column.name: arrays[column.name] for column in columns})


def _until(start: int, pages: int) -> str:
    """Return where a range ends, as SQL; the last takes what lies behind it too."""
    end = start + PAGES_AT_ONCE
    return f" AND ctid < '({end},0)'" if end < pages else ""
