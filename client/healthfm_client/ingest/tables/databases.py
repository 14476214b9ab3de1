"""Tables that lie in a database: PostgreSQL, or a file of DuckDB's or SQLite's, only ever read.

Rows come as Arrow batches, so that no table need fit in memory; a database is asked for the columns
that are read and no others. PostgreSQL's are read in one transaction, which may not write and sees
one state of the database. Where it is stands in a file, as TOML:

    [database]
    url = "postgresql://reader@db.hospital:5432/warehouse"
    schema = "cdm"
    vocabulary = "vocabulary"    # the schema of CONCEPT and the like, where it is another one

The password comes from PGPASSWORD or from PostgreSQL's own password file (PGPASSFILE, ~/.pgpass);
in the URL it is taken only where nobody but the owner may read the file.
"""

from __future__ import annotations

import stat
import tomllib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
from pydantic import Field, ValidationError

from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader, TableFile, unreadable
from healthfm_core.config.base import Schema
from healthfm_core.errors import IngestError

DUCKDB_FILES: Final = (".duckdb",)
SQLITE_FILES: Final = (".sqlite", ".sqlite3", ".db")
_ROWS_AT_ONCE: Final = 1 << 17
_BATCHES_AHEAD: Final = 3
"""Of about 16 MB each."""
_UNREADABLE: Final = 303
_STREAM: Final = "rows_of_the_database"
_VOCABULARY: Final = frozenset({"concept", "concept_ancestor", "concept_relationship"})
_CATALOGUES: Final = {
    "duckdb": "SELECT table_schema, table_name FROM information_schema.tables",
    # information_schema has no materialized views, and nothing that the account may not read
    "postgresql": "SELECT nspname, relname FROM pg_class JOIN pg_namespace n "
    "ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'f')",
    "sqlite": "SELECT '', name FROM sqlite_master WHERE type IN ('table', 'view')",
}
_NOT_ALLOWED: Final = "42501"
"""PostgreSQL's SQLSTATE of insufficient_privilege."""
_ONE_STATE: Final = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


class DatabaseFile(Schema):
    """Where a database is.

    Attributes:
        url: ``postgresql://USER@HOST:PORT/DATABASE``.
        schema_: Of the tables.
        vocabulary: Of the vocabulary's tables; None: the same.
    """

    url: str = Field(pattern=r"^postgres(ql)?://")
    schema_: str = Field("public", alias="schema", min_length=1)
    vocabulary: str | None = Field(None, min_length=1)


class Database(Protocol):
    """An open database."""

    def tables(self) -> list[tuple[str, str]]:
        """Return (schema, table) of all there are, as they are spelt, readable or not."""

    def columns(self, table: tuple[str, str]) -> pa.Schema:
        """Return a table's columns; HF-303 where it cannot be read."""

    def rows(self, table: tuple[str, str]) -> int:
        """Return how many rows a table has, about."""

    def batches(self, table: tuple[str, str], columns: Sequence[str]) -> pa.RecordBatchReader:
        """Return some columns of a table, as they come, until another is asked for."""

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
            if error.number != _UNREADABLE:
                raise
            raise no_answer(file, "the rows of the table broke off") from error


@dataclass(frozen=True)
class DatabaseTable(TableFile):
    """One table of a database, read as a Parquet file is.

    Attributes:
        database: Where it is.
        table: Its schema and name.
        used: Columns that something asks for.
    """

    database: Database | None = None
    table: tuple[str, str] = ("", "")
    used: dict[str, None] = field(default_factory=dict, compare=False)

    @property
    def is_parquet(self) -> bool:
        """Whether columns have types: they do."""
        return True

    def column(self, name: str) -> str:
        """Return a column as SQL, NULL where the table does not have it; it will be asked for."""
        if name in self.columns:
            self.used[self._names[self.columns.index(name)]] = None
        return super().column(name)

    def source(self) -> str:
        """Return the table as what stands behind FROM, once `reader` has opened it."""
        return _STREAM

    def reader(self) -> DuckDBReader:
        """Return a reader to which the table is known by `source`, with the columns used so far.

        Raises:
            IngestError: HF-303.
        """
        reader, used = _StreamReader(), list(self.used) or self._names[:1]
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


def database_file(path: Path) -> DatabaseFile:
    """Return what a file says of a database.

    Raises:
        IngestError: HF-318.
    """
    try:
        said = DatabaseFile.model_validate(tomllib.loads(path.read_text("utf-8"))["database"])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, ValidationError) as error:
        what = error.errors()[0]["loc"] if isinstance(error, ValidationError) else ("database",)
        raise IngestError(
            318, where=path.name, seen=f"{'.'.join(map(str, what))} is missing or does not fit"
        ) from error
    try:
        has_password = urlsplit(said.url).password is not None
    except ValueError as error:
        raise IngestError(318, where=path.name, seen="url is no address") from error
    if has_password and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise IngestError(
            318,
            where=path.name,
            seen="it holds a password and others may read it",
            do=f"chmod 600 {path.name}, or leave the password to PGPASSWORD or ~/.pgpass",
        )
    return said


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
        found = self.connection.execute(_CATALOGUES["duckdb"]).fetchall()
        return [(schema, name) for schema, name in found]

    def columns(self, table: tuple[str, str]) -> pa.Schema:
        """Return a table's columns; HF-303 where it cannot be read."""
        if table not in self.known:
            self.known[table] = self._run(f"SELECT * FROM {_quoted(*table)} LIMIT 0").schema
        return self.known[table]

    def rows(self, table: tuple[str, str]) -> int:
        """Return how many rows a table has."""
        found = self.connection.execute(f"SELECT count(*) FROM {_quoted(*table)}").fetchone()
        return int(found[0]) if found else 0

    def batches(self, table: tuple[str, str], columns: Sequence[str]) -> pa.RecordBatchReader:
        """Return some columns of a table, as they come."""
        return self._run(f"SELECT {_columns(columns)} FROM {_quoted(*table)}")

    def close(self) -> None:
        """Let the file go."""
        self.connection.close()

    def _run(self, sql: str) -> pa.RecordBatchReader:
        try:
            return self.connection.cursor().sql(sql).to_arrow_reader(_ROWS_AT_ONCE)
        except duckdb.Error as error:
            raise unreadable(self.path, "a table cannot be read") from error


@dataclass(frozen=True)
class AdbcDatabase:
    """A database behind an ADBC driver.

    Attributes:
        path: The file that names it, for errors.
        kind: Which.
        connection: Of `adbc_driver_manager.dbapi`.
        known: Table → its columns.
        streams: The cursor that rows come from, and what fetches them; they end with it.
    """

    path: Path
    kind: Literal["postgresql", "sqlite"]
    connection: Any
    known: dict[tuple[str, str], pa.Schema] = field(default_factory=dict, compare=False)
    streams: list[tuple[Any, ThreadPoolExecutor]] = field(default_factory=list, compare=False)

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
        found = cls(path, "postgresql", _connected(dbapi, path, said.url))
        with closing(found.connection.cursor()) as cursor:
            cursor.execute(_ONE_STATE)
        return found

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
            self.known[table] = self._all(f"SELECT * FROM {_quoted(*table)} LIMIT 0", table).schema
        return self.known[table]

    def rows(self, table: tuple[str, str]) -> int:
        """Return how many rows a table has, in PostgreSQL about.

        Of one that the account may not read it is what the server last counted, at least 1.
        """
        if self.kind == "postgresql":
            name = _quoted(*table).replace("'", "''")
            sql = (
                "SELECT reltuples::bigint AS n, has_table_privilege(oid, 'SELECT') AS may "
                f"FROM pg_class WHERE oid = '{name}'::regclass"
            )
            (about,) = self._all(sql, table).to_pylist()
            if about["n"] > 0:  # else it was empty when it was counted last, or never counted
                return int(about["n"])
            if not about["may"]:
                return 1
        return int(self._all(f"SELECT count(*) AS n FROM {_quoted(*table)}", table)["n"][0].as_py())

    def batches(self, table: tuple[str, str], columns: Sequence[str]) -> pa.RecordBatchReader:
        """Return some columns of a table, as they come; decimal numbers as floating ones."""
        kinds = self.columns(table)
        chosen = ", ".join(self._chosen(name, kinds.field(name).type) for name in columns)
        self._forget()
        cursor, fetching = self.connection.cursor(), ThreadPoolExecutor(1)
        self.streams.append((cursor, fetching))
        try:
            cursor.execute(f"SELECT {chosen} FROM {_quoted(*table)}")
            rows = cursor.fetch_record_batch()
            return pa.RecordBatchReader.from_batches(rows.schema, _ahead(rows, fetching))
        except (self.connection.Error, OSError, pa.ArrowException) as error:
            raise no_answer(self.path, f"{table[1]} cannot be read") from error

    def close(self) -> None:
        """Let the database go."""
        self._forget()
        self.connection.close()

    def _forget(self) -> None:
        while self.streams:
            cursor, fetching = self.streams.pop()
            fetching.shutdown(cancel_futures=True)
            cursor.close()

    def _chosen(self, name: str, kind: pa.DataType) -> str:
        if self.kind == "postgresql" and isinstance(kind, pa.BaseExtensionType):
            is_number = "numeric" in str(kind)
            return f"{_quoted(name)}::{'float8' if is_number else 'text'} AS {_quoted(name)}"
        return _quoted(name)

    def _all(self, sql: str, table: tuple[str, str] = ("", "")) -> pa.Table:
        try:
            with closing(self.connection.cursor()) as cursor:
                cursor.execute(sql)
                return cursor.fetch_arrow_table()
        except (self.connection.Error, OSError, pa.ArrowException) as error:
            if getattr(error, "sqlstate", None) == _NOT_ALLOWED:
                raise _not_allowed(self.path, ".".join(table)) from error
            raise no_answer(self.path, "the database does not answer") from error


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


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names if name)


def _columns(names: Sequence[str]) -> str:
    return ", ".join(map(_quoted, names))


def no_answer(path: Path, seen: str) -> IngestError:
    """Return the error for a database that does not answer (HF-303)."""
    return IngestError(
        _UNREADABLE,
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
