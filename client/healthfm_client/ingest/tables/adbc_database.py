"""A database behind a driver of Apache Arrow's (ADBC): PostgreSQL, or a file of SQLite's.

A thread fetches a few batches ahead. PostgreSQL's tables are read in one transaction, which may not
write and sees one state of the database; large ones by ranges of their pages (`database_pages`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pyarrow as pa

from healthfm_client.ingest.tables import database_pages
from healthfm_client.ingest.tables.database_file import DatabaseFile
from healthfm_client.ingest.tables.database_pages import ONE_STATE, DatabasePages
from healthfm_client.ingest.tables.packed_columns import PACKED, SHORT, TEXTS, AskedColumn
from healthfm_core.errors import IngestError

UNREADABLE: Final = 303
_BATCHES_AHEAD: Final = 3
"""Of about 16 MB each."""
_CATALOGUES: Final = {
    # information_schema has no materialized views, and nothing that the account may not read
    "postgresql": "SELECT nspname, relname FROM pg_class JOIN pg_namespace n "
    "ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'f')",
    "sqlite": "SELECT '', name FROM sqlite_master WHERE type IN ('table', 'view')",
}
_NOT_ALLOWED: Final = "42501"
"""PostgreSQL's SQLSTATE of insufficient_privilege."""
_TYPE: Final = b"POSTGRESQL:type"
"""Where the driver notes what PostgreSQL calls a column's type."""
_INTEGERS: Final = frozenset({"int2", "int4", "int8"})
_CLOCKS: Final = frozenset({"timestamp", "date"})


class Asked(NamedTuple):
    """A column that a database is asked for.

    Attributes:
        names: It is the first of these that says something: has a value, and no 0 of a number.
        beside: It may be NULL where one of these others that are asked for says something.
    """

    names: tuple[str, ...]
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdbcDatabase:
    """A database behind an ADBC driver.

    Attributes:
        path: The file that names it, for errors.
        kind: Which.
        connection: Of `adbc_driver_manager.dbapi`.
        known: Table → its columns.
        streams: The cursor that rows come from, and what fetches them; they end with it.
        pages: What reads PostgreSQL's tables by pages.
    """

    path: Path
    kind: Literal["postgresql", "sqlite"]
    connection: Any
    known: dict[tuple[str, str], pa.Schema] = field(default_factory=dict, compare=False)
    streams: list[tuple[Any, ThreadPoolExecutor]] = field(default_factory=list, compare=False)
    pages: DatabasePages | None = None

    @classmethod
    def postgresql(cls, path: Path, said: DatabaseFile) -> AdbcDatabase:
        """Connect to PostgreSQL.

        Raises:
            IngestError: HF-303, HF-312.
        """
        try:
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise _without("adbc-driver-postgresql") from error
        main = _connected(dbapi, path, said.url)
        with closing(main.cursor()) as cursor:
            cursor.execute(ONE_STATE)
        pages = DatabasePages(main, lambda: _connected(dbapi, path, said.url))
        return cls(path, "postgresql", main, pages=pages)

    @classmethod
    def sqlite(cls, path: Path) -> AdbcDatabase:
        """Open a file of SQLite's, to read.

        Raises:
            IngestError: HF-303, HF-312.
        """
        try:
            from adbc_driver_sqlite import dbapi
        except ImportError as error:
            raise _without("adbc-driver-sqlite") from error
        uri = f"{path.resolve().as_uri()}?mode=ro"
        return cls(path, "sqlite", _connected(dbapi, path, uri))

    def tables(self) -> list[tuple[str, str]]:
        """Return (schema, table) of all there are, readable or not."""
        found = self._all(_CATALOGUES[self.kind]).columns
        return list(zip(*(column.to_pylist() for column in found), strict=True))

    def columns(self, table: tuple[str, str]) -> pa.Schema:
        """Return a table's columns.

        Raises:
            IngestError: HF-303, where it cannot be read.
        """
        if table not in self.known:
            self.known[table] = self._all(f"SELECT * FROM {quoted(*table)} LIMIT 0", table).schema
        return self.known[table]

    def rows(self, table: tuple[str, str]) -> int:
        """Return how many rows a table has, in PostgreSQL about.

        Of one that the account may not read it is what the server last counted, at least 1.
        """
        if self.kind == "postgresql":
            name = quoted(*table).replace("'", "''")
            sql = (
                "SELECT reltuples::bigint AS n, has_table_privilege(oid, 'SELECT') AS may "
                f"FROM pg_class WHERE oid = '{name}'::regclass"
            )
            (about,) = self._all(sql, table).to_pylist()
            if about["n"] > 0:  # else it was empty when it was counted last, or never counted
                return int(about["n"])
            if not about["may"]:
                return 1
        return int(self._all(f"SELECT count(*) AS n FROM {quoted(*table)}", table)["n"][0].as_py())

    def batches(self, table: tuple[str, str], columns: Mapping[str, Asked]) -> pa.RecordBatchReader:
        """Return some columns of a table, as they come; decimal numbers as floating ones.

        Raises:
            IngestError: HF-303.
        """
        alone = {name: self._chosen(table, name, asked) for name, asked in columns.items()}
        chosen = [_beside(alone, alone[name], asked.beside) for name, asked in columns.items()]
        self._forget()
        try:
            in_ranges = self._in_ranges(quoted(*table), chosen)
            return self._stream(quoted(*table), chosen) if in_ranges is None else in_ranges
        except (self.connection.Error, OSError, pa.ArrowException) as error:
            raise no_answer(self.path, f"{table[1]} cannot be read") from error

    def _in_ranges(self, table: str, chosen: Sequence[AskedColumn]) -> pa.RecordBatchReader | None:
        """Return columns by ranges of the table's pages, None where it cannot be read so."""
        if self.pages is None or any(column.kind not in PACKED for column in chosen):
            return None
        pages = self.pages.pages(table)
        if pages < database_pages.LEAST_PAGES or not self.pages.is_ready():
            return None
        return self.pages.batches(table, pages, chosen)

    def _stream(self, table: str, chosen: Sequence[AskedColumn]) -> pa.RecordBatchReader:
        wanted = ", ".join(
            f"{_where(one)}{'::float8' if one.kind == 'numeric' else ''} AS {quoted(one.name)}"
            for one in chosen
        )
        cursor, fetching = self.connection.cursor(), ThreadPoolExecutor(1)
        self.streams.append((cursor, fetching))
        cursor.execute(f"SELECT {wanted} FROM {table}")
        rows = cursor.fetch_record_batch()
        return pa.RecordBatchReader.from_batches(rows.schema, _ahead(rows, fetching))

    def close(self) -> None:
        """Let the database go."""
        self._forget()
        if self.pages is not None:
            self.pages.close()
        self.connection.close()

    def _forget(self) -> None:
        while self.streams:
            cursor, fetching = self.streams.pop()
            fetching.shutdown(cancel_futures=True)
            cursor.close()
        if self.pages is not None:
            self.pages.forget()

    def merges(self, table: tuple[str, str], names: Sequence[str]) -> bool:
        """Whether columns can be asked for as one: numbers of concepts, or dates and clocks."""
        kinds = {self._kind(table, name) for name in names}
        return kinds <= _INTEGERS or kinds <= _CLOCKS

    def _chosen(self, table: tuple[str, str], name: str, asked: Asked) -> AskedColumn:
        """Return a column as it is asked for."""
        kinds = {self._kind(table, each) for each in asked.names}
        columns = [quoted(each) for each in asked.names]
        if len(columns) > 1:
            numbers = kinds <= _INTEGERS
            said = [f"nullif({one}, 0)" if numbers else f"{one}::timestamp" for one in columns]
            kind = ("int4" if kinds <= SHORT else "int8") if numbers else "timestamp"
            return AskedColumn(name, kind, f"coalesce({', '.join(said)})")
        (kind,), (column,) = kinds, columns
        opaque = isinstance(self.columns(table).field(asked.names[0]).type, pa.BaseExtensionType)
        if kind in TEXTS or (opaque and kind != "numeric"):
            kind, column = "text", f"{column}::text"
        return AskedColumn(name, kind, column)

    def _kind(self, table: tuple[str, str], name: str) -> str:
        """Return what PostgreSQL calls a column's type, '' of another database's."""
        about = self.columns(table).field(name).metadata or {}
        return str(about.get(_TYPE, b"").decode()) if self.kind == "postgresql" else ""

    def _all(self, sql: str, table: tuple[str, str] = ("", "")) -> pa.Table:
        try:
            with closing(self.connection.cursor()) as cursor:
                cursor.execute(sql)
                return cursor.fetch_arrow_table()
        except (self.connection.Error, OSError, pa.ArrowException) as error:
            if getattr(error, "sqlstate", None) == _NOT_ALLOWED:
                raise _not_allowed(self.path, ".".join(table)) from error
            raise no_answer(self.path, "the database does not answer") from error


def _beside(
    others: Mapping[str, AskedColumn], column: AskedColumn, names: tuple[str, ...]
) -> AskedColumn:
    """Return a text asked for only where other columns, if they are numbers, say nothing."""
    numbers = names and all(others[name].kind in _INTEGERS for name in names)
    if not numbers or column.kind not in TEXTS:
        return column
    nothing = " AND ".join(f"coalesce({others[name].sql}, 0) = 0" for name in names)
    return replace(column, beside=names, where=nothing)


def _where(column: AskedColumn) -> str:
    return f"CASE WHEN {column.where} THEN {column.sql} END" if column.where else column.sql


def _ahead(rows: pa.RecordBatchReader, fetching: ThreadPoolExecutor) -> Iterator[pa.RecordBatch]:
    """Yield batches, a few of which are fetched while the one before is worked on."""
    waiting = deque(fetching.submit(rows.read_next_batch) for _ in range(_BATCHES_AHEAD))
    while waiting:
        try:
            batch = waiting.popleft().result()
        except StopIteration:
            return
        waiting.append(fetching.submit(rows.read_next_batch))
        yield batch


def _connected(dbapi: Any, path: Path, url: str) -> Any:
    try:
        return dbapi.connect(url)
    except dbapi.Error as error:
        raise no_answer(path, "the database cannot be reached, or does not let in") from error


def quoted(*names: str) -> str:
    """Return names as SQL: of a column, or of a schema and a table in it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names if name)


def no_answer(path: Path, seen: str) -> IngestError:
    """Return the error for a database that does not answer (HF-303)."""
    return IngestError(
        UNREADABLE,
        where=path.name,
        seen=seen,
        wanted="a database that answers is wanted",
        do="Check its address, the account and the password (PGPASSWORD or ~/.pgpass)",
    )


def _without(package: str) -> IngestError:
    return IngestError(
        312,
        where="the database",
        seen=f"{package} is not installed",
        wanted="the extra `database` is wanted",
        do="pip install healthfm[database]",
    )


def _not_allowed(path: Path, table: str) -> IngestError:
    schema = table.partition(".")[0]
    return IngestError(
        303,
        where=path.name,
        seen=f"the account may not read {table}",
        wanted="an account that may read every table of the CDM's that is there is wanted",
        do=f"grant usage on schema {schema}; grant select on {table}",
    )
