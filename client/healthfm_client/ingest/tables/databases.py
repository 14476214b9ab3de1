"""Tables that lie in a database: PostgreSQL, or a file of DuckDB's or SQLite's, only ever read.

Rows come as Arrow batches, so that no table need fit in memory; a database is asked for the columns
that are read and no others. Where PostgreSQL is stands in a file (`database_file`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

import duckdb
import pyarrow as pa

from healthfm_client.ingest.tables.adbc_database import (
    UNREADABLE,
    AdbcDatabase,
    Asked,
    no_answer,
    quoted,
)
from healthfm_client.ingest.tables.database_file import database_file
from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader, TableFile, unreadable
from healthfm_core.errors import IngestError

DUCKDB_FILES: Final = (".duckdb",)
SQLITE_FILES: Final = (".sqlite", ".sqlite3", ".db")
_ROWS_AT_ONCE: Final = 1 << 17
_STREAM: Final = "rows_of_the_database"
_VOCABULARY: Final = frozenset({"concept", "concept_ancestor", "concept_relationship"})
_CATALOGUE: Final = "SELECT table_schema, table_name FROM information_schema.tables"


class Database(Protocol):
    """An open database."""

    def tables(self) -> list[tuple[str, str]]:
        """Return (schema, table) of all there are, as they are spelt, readable or not."""

    def columns(self, table: tuple[str, str]) -> pa.Schema:
        """Return a table's columns; HF-303 where it cannot be read."""

    def rows(self, table: tuple[str, str]) -> int:
        """Return how many rows a table has, about."""

    def batches(self, table: tuple[str, str], columns: Mapping[str, Asked]) -> pa.RecordBatchReader:
        """Return some columns of a table, as they come, until another is asked for."""

    def merges(self, table: tuple[str, str], names: Sequence[str]) -> bool:
        """Whether columns can be asked for as one, the first that says something."""

    def close(self) -> None:
        """Let the database go."""


class _StreamReader(DuckDBReader):
    """Reads a stream of a database's, and says so where it breaks off."""

    def batches(self, sql: str, file: Path) -> Iterator[pa.Table]:
        """Yield the rows of a query over one table.

        Raises:
            IngestError: HF-303, HF-308.
        """
        try:
            yield from super().batches(sql, file)
        except IngestError as error:
            if error.number != UNREADABLE:
                raise
            raise no_answer(file, "the rows of the table broke off") from error


@dataclass(frozen=True)
class DatabaseTable(TableFile):
    """One table of a database, read as a Parquet file is.

    Attributes:
        database: Where it is.
        table: Its schema and name.
        used: Column → what is asked for under its name, of those that something reads.
    """

    database: Database | None = None
    table: tuple[str, str] = ("", "")
    used: dict[str, Asked] = field(default_factory=dict, compare=False)

    @property
    def is_parquet(self) -> bool:
        """Whether columns have types: they do."""
        return True

    def column(self, name: str) -> str:
        """Return a column as SQL, NULL where the table does not have it; it will be asked for."""
        if name in self.columns:
            spelt = self._spelt(name)
            self.used.setdefault(spelt, Asked((spelt,)))
        return super().column(name)

    def needless_beside(self, name: str, others: Sequence[str]) -> None:
        """Say that a column is read only where `others` say nothing: the rest is not fetched."""
        there = tuple(self._spelt(other) for other in others if other in self.columns)
        if name in self.columns and there:
            beside = (_merged(there),) if _merged(there) in self.used else there
            self.used[self._spelt(name)] = Asked((self._spelt(name),), beside)

    def first(self, names: Sequence[str], kind: str) -> str:
        """Return as SQL the first of some columns that says something, which comes as one."""
        there = tuple(self._spelt(name) for name in names if name in self.columns)
        if len(there) < 2 or not self._open.merges(self.table, there):
            return super().first(names, kind)
        self.used[_merged(there)] = Asked(there)
        return f"TRY_CAST({quoted(_merged(there))} AS {kind})"

    def _spelt(self, name: str) -> str:
        return self._names[self.columns.index(name)]

    def source(self) -> str:
        """Return the table as what stands behind FROM, once `reader` has opened it."""
        return _STREAM

    def reader(self) -> DuckDBReader:
        """Return a reader to which the table is known by `source`, with the columns used so far.

        Raises:
            IngestError: HF-303.
        """
        reader, used = _StreamReader(), self.used or {self._names[0]: Asked((self._names[0],))}
        rows = self._open.batches(self.table, used)
        reader.connection.register(_STREAM, rows)
        return reader

    @property
    def _open(self) -> Database:
        if self.database is None:
            raise TypeError("a table of a database knows its database")
        return self.database

    @cached_property
    def rows(self) -> int:
        """The rows, about; also of a table that the account may not read."""
        return self._open.rows(self.table)

    @cached_property
    def _parquet(self) -> tuple[int, list[str], pa.Schema]:
        schema = self._open.columns(self.table)
        return self.rows, list(schema.names), schema


@dataclass(frozen=True)
class DatabaseTables:
    """The tables of a database, by name.

    Attributes:
        path: The file that names the database, or is it.
        database: Open.
        schema: Of the tables; '' where any will do.
        vocabulary: Of the vocabulary's tables, likewise.
        time_zone: See `TableFile`.
    """

    path: Path
    database: Database
    schema: str = ""
    vocabulary: str = ""
    time_zone: str | None = None

    def of(self, name: str, *, quotes: bool = True) -> list[TableFile]:
        """Return the table of a name, whatever its case; none where there is none.

        `quotes` is for files of text.
        """
        schema = self.vocabulary if name in _VOCABULARY else self.schema
        found = [
            table
            for table in self.database.tables()
            if table[1].lower() == name and schema in ("", table[0])
        ]
        return [
            DatabaseTable(
                self.path / table[1], time_zone=self.time_zone, database=self.database, table=table
            )
            for table in found[:1]
        ]

    def close(self) -> None:
        """Let the database go."""
        self.database.close()


def _merged(names: Sequence[str]) -> str:
    return "|".join(names)


def is_database(path: Path) -> bool:
    """Whether a file is a database, or says where one is; cheap."""
    name = path.name.lower()
    if not path.is_file():
        return False
    if name.endswith(".toml"):
        return b"[database]" in path.read_bytes()[:65536]
    return name.endswith((*DUCKDB_FILES, *SQLITE_FILES))


def opened(path: Path, time_zone: str | None = None) -> DatabaseTables:
    """Return the tables of a database.

    Raises:
        IngestError: HF-303 where it cannot be reached or read, HF-312 without its driver, HF-318
            where the file that names it can be read by others, or does not fit.
    """
    name = path.name.lower()
    if name.endswith(DUCKDB_FILES):
        return DatabaseTables(path, DuckDBFile.open(path), time_zone=time_zone)
    if name.endswith(SQLITE_FILES):
        return DatabaseTables(path, AdbcDatabase.sqlite(path), time_zone=time_zone)
    said = database_file(path)
    database = AdbcDatabase.postgresql(path, said)
    vocabulary = said.vocabulary or said.schema_
    return DatabaseTables(path, database, said.schema_, vocabulary, time_zone)


@dataclass(frozen=True)
class DuckDBFile:
    """A file of DuckDB's."""

    path: Path
    connection: duckdb.DuckDBPyConnection
    known: dict[tuple[str, str], pa.Schema] = field(default_factory=dict, compare=False)

    @classmethod
    def open(cls, path: Path) -> DuckDBFile:
        """Open a file, to read.

        Raises:
            IngestError: HF-303.
        """
        try:
            connection = duckdb.connect(str(path), read_only=True)
            connection.execute("SET TimeZone='UTC'")
        except duckdb.Error as error:
            raise unreadable(path, f"DuckDB {duckdb.__version__} cannot open it") from error
        return cls(path, connection)

    def tables(self) -> list[tuple[str, str]]:
        """Return (schema, table) of all there are."""
        found = self.connection.execute(_CATALOGUE).fetchall()
        return [(schema, name) for schema, name in found]

    def columns(self, table: tuple[str, str]) -> pa.Schema:
        """Return a table's columns; HF-303 where it cannot be read."""
        if table not in self.known:
            self.known[table] = self._run(f"SELECT * FROM {quoted(*table)} LIMIT 0").schema
        return self.known[table]

    def rows(self, table: tuple[str, str]) -> int:
        """Return how many rows a table has."""
        found = self.connection.execute(f"SELECT count(*) FROM {quoted(*table)}").fetchone()
        return int(found[0]) if found else 0

    def batches(self, table: tuple[str, str], columns: Mapping[str, Asked]) -> pa.RecordBatchReader:
        """Return some columns of a table, as they come, whole."""
        chosen = ", ".join(map(quoted, columns))
        return self._run(f"SELECT {chosen} FROM {quoted(*table)}")

    def merges(self, table: tuple[str, str], names: Sequence[str]) -> bool:
        """Return that no columns are: DuckDB does it here as well."""
        return False

    def close(self) -> None:
        """Let the file go."""
        self.connection.close()

    def _run(self, sql: str) -> pa.RecordBatchReader:
        try:
            return self.connection.cursor().sql(sql).to_arrow_reader(_ROWS_AT_ONCE)
        except duckdb.Error as error:
            raise unreadable(self.path, "a table cannot be read") from error
