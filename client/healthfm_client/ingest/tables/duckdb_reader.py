"""Tables that lie in files, read through DuckDB: CSV, compressed CSV and Parquet alike, in batches.

Everything in a CSV file is read as text and cast value by value, so that one bad cell costs its row
and not the file; rows that have the wrong number of cells or are not in the encoding are counted.
Nothing is fetched or installed by DuckDB, and its memory is bounded.
"""

from __future__ import annotations

import csv
import glob
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final, Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.data.store.store_files import UNREADABLE
from healthfm_core.errors import IngestError

SUFFIXES: Final = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
ROWS_AT_ONCE: Final = 1 << 19
MEMORY: Final = "768MB"
ROWS_PER_BYTE: Final = 20
_UTC: Final = ("UTC", "Etc/UTC", "Z", "GMT", "+00:00", "-00:00")
_OFFSET: Final = re.compile(r"(?P<sign>[+-])(?P<h>\d\d):?(?P<m>\d\d)")
_ENDS_IN_OFFSET: Final = r":\d\d(\.\d+)?\s*(Z|UTC|[+-]\d\d(:?\d\d)?)$"
_BEFORE_OFFSET: Final = r"\s+([+-]\d\d)"
_KINDS: Final[Mapping[str, Callable[[pa.DataType], bool]]] = {
    "number": lambda kind: (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    ),
    "integer": pa.types.is_signed_integer,
    "float": pa.types.is_floating,
    "time": lambda kind: pa.types.is_timestamp(kind) or pa.types.is_date(kind),
}
_DELIMITERS: Final = ",\t;|"
_HEAD_BYTES: Final = 1 << 20
_ROW_BYTES: Final = 100
EXPANDS_AT_MOST: Final = 200
"""Bytes out of one byte compressed, in the first MB; clinical tables give 5 to 30."""


def stem_of(file: Path) -> str:
    """Return a file's name in lower case without what says how it is written."""
    name = file.name.lower()
    return next((name.removesuffix(s) for s in reversed(SUFFIXES) if name.endswith(s)), name)


def is_table(file: Path) -> bool:
    """Whether the name is one of a table's file."""
    return file.name.lower().endswith(SUFFIXES) and not file.name.startswith(".")


def files_of(folder: Path, table: str) -> list[Path]:
    """Return the files of a table: ``table.csv`` and the like, or all in a folder of its name."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    named = [f for f in inside if f.is_file() and is_table(f) and stem_of(f) == table]
    below = [d for d in inside if d.is_dir() and d.name.lower() == table]
    return named or [f for d in below for f in sorted(d.rglob("*")) if f.is_file() and is_table(f)]


@dataclass(frozen=True)
class TableFile:
    """One file of a table.

    Attributes:
        path: The file.
        encoding: Of a text file: utf-8, latin-1 or utf-16.
        time_zone: The site's, to which times with an offset or a zone are brought; None keeps
            the clock that they were written with (`local_time`).
        quotes: Whether texts may stand in quotes. In tables of a vocabulary that are separated by
            tabs, as Athena's are, a quote is a quote: one at the beginning of a name would else
            take the lines behind it with it.
    """

    path: Path
    encoding: str = "utf-8"
    time_zone: str | None = None
    quotes: bool = True

    @property
    def is_parquet(self) -> bool:
        """Whether it is Parquet, by its name."""
        return self.path.name.lower().endswith(".parquet")

    @cached_property
    def columns(self) -> list[str]:
        """The columns, in lower case.

        Raises:
            IngestError: HF-303, HF-310.
        """
        return [name.lower() for name in self._names]

    @cached_property
    def rows(self) -> int:
        """The rows, exactly for Parquet, about for text."""
        if self.is_parquet:
            return self._parquet[0]
        head = self._head
        lines = max(head.count(b"\n"), 1)
        size = self.path.stat().st_size
        if self.path.name.lower().endswith((".gz", ".zst")):
            size *= 8
        return max(1, int(size * lines / max(len(head), 1)))

    def source(self) -> str:
        """Return the file as what stands behind FROM."""
        path = _quoted(glob.escape(str(self.path)))
        if self.is_parquet:
            return f"read_parquet({path})"
        columns = ", ".join(f"{_quoted(name)}: 'VARCHAR'" for name in self._unique)
        quote = "'\"'" if self.quotes or self._delimiter != "\t" else "''"
        return (
            f"read_csv({path}, auto_detect=false, columns={{{columns}}}, header=true, "
            f"delim={_quoted(self._delimiter)}, quote={quote}, escape={quote}, "
            f"encoding={_quoted(self.encoding)}, max_line_size=4194304, "
            "strict_mode=true, store_rejects=true, rejects_limit=0)"
        )

    def reader(self) -> DuckDBReader:
        """Return a reader to which `source` is known."""
        return DuckDBReader()

    def column(self, name: str) -> str:
        """Return a column as SQL, NULL where the file does not have it."""
        if name not in self.columns:
            return "NULL"
        names = self._names if self.is_parquet else self._unique
        return '"' + names[self.columns.index(name)].replace('"', '""') + '"'

    def needless_beside(self, name: str, others: Sequence[str]) -> None:
        """Say that a column is read only where `others` have no value and no number but 0."""

    def first(self, names: Sequence[str], kind: str) -> str:
        """Return as SQL the first of some columns that has a value, and a number another than 0."""
        casts = [self.cast(name, kind) for name in names]
        said = casts if kind == "TIMESTAMP" else [f"nullif({one}, 0)" for one in casts]
        return f"coalesce({', '.join(said)})"

    def cast(self, name: str, kind: str) -> str:
        """Return a column as SQL of a type; a cell that cannot be read as one is NULL."""
        if kind == "TIMESTAMP":
            return self._clock(name)
        return f"TRY_CAST({self.column(name)} AS {kind})"

    def is_instant(self, name: str) -> bool:
        """Whether a column holds points in time (Parquet's times adjusted to UTC), not clocks."""
        return name in self._zones

    def is_a(self, name: str, kind: Literal["number", "integer", "float", "time"]) -> bool:
        """Whether Parquet says that a column holds such values; of text nobody says anything."""
        if not self.is_parquet or name not in self.columns:
            return False
        return _KINDS[kind](self._parquet[2].types[self.columns.index(name)])

    def of_utc(self) -> list[str]:
        """Return the columns that are points in time and name no zone but UTC, which all can be."""
        return [f"{self.path.name}, {name}" for name, zone in self._zones.items() if zone in _UTC]

    def _clock(self, name: str) -> str:
        """Return a column of times as SQL: what the clock on the wall showed (`local_time`)."""
        column = self.column(name)
        if name in self._zones:
            return f"TRY_CAST({shown_at(column, self.time_zone or self._zones[name])} AS TIMESTAMP)"
        plain = f"TRY_CAST({column} AS TIMESTAMP)"
        if self.time_zone is None or self.is_parquet or column == "NULL":
            return plain
        close = f"regexp_replace({column}, {_quoted(_BEFORE_OFFSET)}, '\\1')"  # 10:00 +02:00
        moment = shown_at(f"TRY_CAST({close} AS TIMESTAMPTZ)", self.time_zone)
        return f"CASE WHEN {_has_offset(column)} THEN {moment} ELSE {plain} END"

    @cached_property
    def _zones(self) -> dict[str, str]:
        """Columns of a Parquet file that are points in time → the zone that they are shown in."""
        if not self.is_parquet:
            return {}
        schema = self._parquet[2]
        kinds = zip(self.columns, schema.types, strict=True)
        return {name: kind.tz for name, kind in kinds if pa.types.is_timestamp(kind) and kind.tz}

    @cached_property
    def _names(self) -> list[str]:
        if self.is_parquet:
            return self._parquet[1]
        line = self._text.partition("\n")[0].rstrip("\r")
        try:
            names = next(csv.reader([line], delimiter=self._delimiter), [])
        except csv.Error as error:
            raise unreadable(self.path, "its first line is no list of columns") from error
        return [name.strip().lstrip("\ufeff").removeprefix("#") for name in names]

    @cached_property
    def _unique(self) -> list[str]:
        seen: dict[str, int] = {}
        unique = []
        for name in self._names:
            seen[name.lower()] = seen.get(name.lower(), 0) + 1
            again = seen[name.lower()]
            unique.append((name or "unnamed") if again == 1 else f"{name or 'unnamed'} ({again})")
        return unique

    @cached_property
    def _delimiter(self) -> str:
        line = self._text.partition("\n")[0]
        return max(_DELIMITERS, key=line.count)

    @cached_property
    def _text(self) -> str:
        text = self._head.decode(self.encoding, errors="replace")
        line = text.partition("\n")[0]
        if not line.strip() or "\x00" in line or "\ufffd" in line:
            raise unreadable(self.path, f"its first line is no text in {self.encoding}")
        return text

    @cached_property
    def _head(self) -> bytes:
        if self.path.name.lower().endswith(".zst"):
            return next(_zstd(self.path), b"")
        try:
            with self.path.open("rb") as file:
                raw = file.read(_HEAD_BYTES)
        except OSError as error:
            raise unreadable(self.path, "it cannot be opened") from error
        return expanded(raw, self.path) if self.path.name.lower().endswith(".gz") else raw

    @cached_property
    def _parquet(self) -> tuple[int, list[str], pa.Schema]:
        """The rows, columns and their types in a Parquet file's footer."""
        try:
            footer = pq.read_metadata(self.path)
            schema = footer.schema.to_arrow_schema()
        except UNREADABLE as error:
            raise unreadable(self.path, "it is cut off or no Parquet") from error
        refuse_expanding(self.path, footer.num_rows)
        return footer.num_rows, list(schema.names), schema


@dataclass(frozen=True)
class FolderTables:
    """The tables of a folder, by name.

    Attributes:
        folder: Of the files.
        encoding: Of text files.
        time_zone: See `TableFile`.
    """

    folder: Path
    encoding: str = "utf-8"
    time_zone: str | None = None

    def of(self, name: str, *, quotes: bool = True) -> list[TableFile]:
        """Return a table's files, none where there is none; `quotes` as in `TableFile`."""
        files = files_of(self.folder, name)
        return [TableFile(file, self.encoding, self.time_zone, quotes) for file in files]

    def close(self) -> None:
        """Nothing is open."""


def shown_at(moment: str, zone: str) -> str:
    """Return a point in time as SQL: what a clock in `zone` showed; +HH:MM is a zone too."""
    offset = _OFFSET.fullmatch(zone)
    if offset is None:
        return f"({moment} AT TIME ZONE {_quoted(zone)})"
    minutes = int(offset["h"]) * 60 + int(offset["m"])
    return f"(({moment} AT TIME ZONE 'UTC') {offset['sign']} INTERVAL {minutes} MINUTE)"


def _has_offset(column: str) -> str:
    """Return as SQL whether a text is a time with an offset, Z or UTC; most are too short."""
    return f"length({column}) > 16 AND regexp_matches({column}, {_quoted(_ENDS_IN_OFFSET)})"


def refuse_expanding(file: Path, rows: int) -> None:
    """Raise HF-310 where a Parquet file claims more rows than different ones have room in it."""
    if rows > file.stat().st_size * ROWS_PER_BYTE:
        raise IngestError(
            310,
            where=file.name,
            seen=f"it has {rows:,} rows in {file.stat().st_size:,} bytes",
            wanted="rows that differ are wanted, which takes a byte or more each",
        )


def expanded(raw: bytes, file: Path) -> bytes:
    """Return the beginning of a gzip file, unpacked.

    Raises:
        IngestError: HF-303 where it is none, HF-310 where it expands beyond reason.
    """
    most = len(raw) * EXPANDS_AT_MOST + 65536
    try:
        text = zlib.decompressobj(wbits=31).decompress(raw, most)
    except zlib.error as error:
        raise unreadable(file, "it is not compressed as its name says") from error
    if len(text) >= most:
        raise _bomb(file)
    return text


def _bomb(file: Path) -> IngestError:
    return IngestError(
        310,
        where=file.name,
        seen=f"it unpacks to more than {EXPANDS_AT_MOST} times its size",
        wanted="a table compressed as tables are is wanted",
    )


def check_gzip(file: Path) -> None:
    """Raise HF-303 where a gzip file is cut off or damaged; reads it all."""
    if not file.name.lower().endswith(".gz"):
        return
    try:
        with gzip.open(file) as whole:
            while whole.read(_HEAD_BYTES):
                pass
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(file, "it is cut off or damaged") from error


def check_zstd(file: Path) -> None:
    """Raise HF-303 where a zstd file is cut off or damaged, HF-310 for a bomb; reads it all."""
    if not file.name.lower().endswith(".zst"):
        return
    left = file.stat().st_size * EXPANDS_AT_MOST + 65536
    for text in _zstd(file):
        left -= len(text)
        if left < 0:
            raise _bomb(file)


def _zstd(file: Path) -> Iterator[bytes]:
    """Yield a zstd file's content in pieces of at most `_HEAD_BYTES`."""
    try:
        with pa.input_stream(str(file), compression="zstd") as whole:
            while text := whole.read(_HEAD_BYTES):
                yield text
    except OSError as error:
        raise unreadable(file, "it is cut off or damaged") from error


@cache
def _database(threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """Return the process's DuckDB, in memory; making one takes as long as reading a small file."""
    database = duckdb.connect(
        config={
            "memory_limit": MEMORY,
            **({} if threads is None else {"threads": threads}),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "preserve_insertion_order": "true",
        }
    )
    # A time with a zone would else be shown by the clock of the machine that reads it.
    database.execute("SET GLOBAL TimeZone='UTC'")
    # It hands TRY_CAST down to the reader of text, where a bad cell costs its row.
    database.execute("SET disabled_optimizers='type_pushdown'")
    return database


class DuckDBReader:
    """A connection of its own to a DuckDB that reads files and nothing else.

    Args:
        threads: It works with so many; None is one for each core, which costs small tables more.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.connection = _database(threads).cursor()

    def batches(self, sql: str, file: Path) -> Iterator[pa.Table]:
        """Yield the rows of a query over one file.

        Raises:
            IngestError: HF-303, HF-308.
        """
        try:
            for batch in self.connection.sql(sql).to_arrow_reader(ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch])
        except (duckdb.ConversionException, duckdb.BinderException) as error:
            raise IngestError(
                308,
                where=file.name,
                seen="a column is of a type that cannot be read as what it should be",
                wanted="the types of the format's own definition are wanted",
                do="Check the export's types",
            ) from error
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise unreadable(file, "it is cut off, damaged or not in the encoding") from error

    def table(self, sql: str, file: Path) -> pa.Table:
        """Return all rows of a query over one file.

        Raises:
            IngestError: HF-303, HF-308.
        """
        tables = list(self.batches(sql, file))
        return pa.concat_tables(tables) if tables else self.connection.sql(sql).to_arrow_table()

    def malformed(self) -> pa.Table:
        """Return the lines of the last text file that were no rows, and forget them."""
        try:
            lines = self.connection.sql(
                "SELECT DISTINCT line AS line_number, error_type::VARCHAR AS error, csv_line"
                " FROM reject_errors ORDER BY line_number, error"
            ).to_arrow_table()
            self.connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
        except duckdb.CatalogException:
            return pa.table({"line_number": pa.array([], pa.int64())})
        return lines


def rows_in(file: TableFile) -> int:
    """Return the rows of a table, exactly where it can be read, else about."""
    if file.is_parquet:
        return file.rows
    try:
        rows = file.reader().table(f"SELECT count(*) AS n FROM {file.source()}", file.path)
    except IngestError:
        return file.path.stat().st_size // _ROW_BYTES
    return int(rows["n"][0].as_py())


def want_columns(table: TableFile, names: Sequence[str]) -> None:
    """Raise HF-307 where a file lacks a column."""
    for name in names:
        if name not in table.columns:
            raise IngestError(
                307,
                where=table.path.name,
                seen=f'there is no column "{name}"',
                wanted=f"{', '.join(names)} are wanted",
            )


def unreadable(file: Path, seen: str) -> IngestError:
    """Return the error for a file that cannot be read (HF-303)."""
    return IngestError(303, where=file.name, seen=seen)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
