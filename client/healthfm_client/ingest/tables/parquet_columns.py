"""Reading raw columns: by name, of the right kind, or refused in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from healthfm_client.ingest.tables.duckdb_reader import refuse_expanding
from healthfm_client.ingest.tables.local_time import clock_column
from healthfm_core.arrays import Float32, Int64
from healthfm_core.data.store.events import coded
from healthfm_core.data.store.schemas import is_list_of, is_text
from healthfm_core.data.store.store_files import UNREADABLE
from healthfm_core.errors import IngestError


class ColumnKind(Enum):
    """What a raw column may be, and what it becomes."""

    INTEGER = "an integer"
    NUMBER = "a number"
    TEXT = "text"
    TIME = "a timestamp"
    FLAG = "true or false"
    SERIES = "a list of numbers"


ROWS_AT_ONCE: Final = 1 << 19
BYTES_AT_ONCE: Final = 64 * 1024**2
READ_BYTES: Final = 1 << 20
_FITS: Mapping[ColumnKind, Callable[[pa.DataType], bool]] = {
    ColumnKind.INTEGER: pa.types.is_integer,
    ColumnKind.NUMBER: lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind),
    ColumnKind.TEXT: is_text,
    ColumnKind.TIME: pa.types.is_timestamp,
    ColumnKind.FLAG: lambda kind: pa.types.is_boolean(kind) or pa.types.is_integer(kind),
    ColumnKind.SERIES: lambda kind: any(
        is_list_of(kind, item) for item in (pa.float32(), pa.float64(), pa.uint8(), pa.int16())
    ),
}
_BECOMES: Mapping[ColumnKind, pa.DataType] = {
    ColumnKind.INTEGER: pa.int64(),
    ColumnKind.NUMBER: pa.float64(),
    ColumnKind.FLAG: pa.bool_(),
}


def schema_of(file: Path) -> pa.Schema | None:
    """Return a Parquet file's schema, or None where it is none."""
    try:
        return pq.read_schema(file)
    except UNREADABLE:
        return None


def has_columns(file: Path, names: Iterable[str]) -> bool:
    """Whether `file` is Parquet with these columns; for sniffing."""
    schema = schema_of(file) if file.is_file() else None
    return schema is not None and set(names) <= set(schema.names)


def check_columns(
    file: Path, wanted: Mapping[str, ColumnKind], optional: Mapping[str, ColumnKind] | None = None
) -> dict[str, ColumnKind]:
    """Return column → kind for those that a Parquet file has, all of `wanted` among them.

    Raises:
        IngestError: HF-301, HF-303, HF-307 for a missing column, HF-308 for one of another kind,
            HF-310.
    """
    if not file.is_file():
        raise _error(301, file.name, "there is no such file", "it is part of this source")
    schema = schema_of(file)
    if schema is None:
        raise _error(303, file.name, "the file cannot be read", "a whole Parquet file is wanted")
    refuse_expanding(file, pq.read_metadata(file).num_rows)
    kinds = dict(wanted) | {k: v for k, v in (optional or {}).items() if k in schema.names}
    for name, kind in kinds.items():
        if schema.names.count(name) != 1:
            there = "two columns are called" if name in schema.names else "there is no column"
            seen = f'{there} "{name}"'
            raise _error(307, file.name, seen, f"{kind.value} of that name is wanted, once")
        if not _FITS[kind](schema.field(name).type):
            seen = f'column "{name}" is {schema.field(name).type}'
            raise _error(308, file.name, seen, f"{kind.value} is wanted")
    return kinds


def read_columns(
    file: Path,
    wanted: Mapping[str, ColumnKind],
    optional: Mapping[str, ColumnKind] | None = None,
    *,
    time_zone: str | None = None,
) -> pa.Table:
    """Return columns of a Parquet file, cast to what their kind becomes (texts as they are).

    Args:
        file: The file.
        wanted: Column → kind.
        optional: Likewise, for columns that may lack.
        time_zone: See `clock_column`.

    Raises:
        IngestError: HF-301, HF-303, HF-307 for a missing column, HF-308 for one of another kind.
    """
    kinds = check_columns(file, wanted, optional)
    try:
        table = pq.read_table(file, columns=list(kinds))
    except UNREADABLE as error:
        raise _cut_off(file) from error
    return _cast(table, kinds, file.name, time_zone)


def read_batches(
    file: Path,
    wanted: Mapping[str, ColumnKind],
    optional: Mapping[str, ColumnKind] | None = None,
    *,
    coded: tuple[str, ...] = (),
    time_zone: str | None = None,
) -> Iterator[pa.Table]:
    """Yield columns of a Parquet file as `read_columns` gives them, some rows at a time.

    Args:
        file: The file.
        wanted: Column → kind.
        optional: Likewise, for columns that may lack.
        coded: Text columns to read as dictionaries.
        time_zone: See `clock_column`.

    Raises:
        IngestError: As `read_columns`.
    """
    kinds = check_columns(file, wanted, optional)
    try:
        whole = _streamed(file, [name for name in coded if name in kinds])
        for batch in whole.iter_batches(_rows_at_once(whole.metadata), columns=list(kinds)):
            table = _cast(pa.Table.from_batches([batch]), kinds, file.name, time_zone)
            yield from _pieces(table, -(-_text_bytes(table) // BYTES_AT_ONCE))
    except UNREADABLE as error:
        raise _cut_off(file) from error


def _streamed(file: Path, coded: list[str]) -> pq.ParquetFile:
    """Return a file that is read as batches are asked for.

    Left to itself pyarrow keeps all bytes of the file that were read until the file is closed, and
    reads the columns of a group of rows at once, which some programs write as one.
    """
    return pq.ParquetFile(file, read_dictionary=coded, pre_buffer=False, buffer_size=READ_BYTES)


def _rows_at_once(footer: pq.FileMetaData) -> int:
    """Return how many rows to read at a time, fewer where they are large."""
    groups = [footer.row_group(n) for n in range(footer.num_row_groups)]
    large = max((g.total_byte_size / max(g.num_rows, 1) for g in groups), default=0.0)
    return max(1, min(ROWS_AT_ONCE, int(BYTES_AT_ONCE / max(large, 1.0))))


def _text_bytes(table: pa.Table) -> int:
    """Return how large texts become that are read as dictionaries, in which equal ones share."""
    total = 0
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            for chunk in column.chunks:
                size = pc.binary_length(chunk.dictionary).cast(pa.int64())
                total += pc.sum(size.take(chunk.indices)).as_py() or 0
    return total


def _pieces(table: pa.Table, pieces: int) -> Iterator[pa.Table]:
    rows = -(-table.num_rows // max(pieces, 1))
    yield from (table.slice(start, rows) for start in range(0, table.num_rows, max(rows, 1)))


def _cut_off(file: Path) -> IngestError:
    return _error(
        303, file.name, "the file is cut off or damaged", "a whole Parquet file is wanted"
    )


def _cast(
    table: pa.Table, kinds: Mapping[str, ColumnKind], where: str, time_zone: str | None
) -> pa.Table:
    """Return the columns in the types their kinds become; fractions of a µs are cut off.

    Texts stay as they are, but for views, of which Arrow neither filters nor takes rows.
    """
    columns = {name: table[name] for name in kinds}
    for name, kind in kinds.items():
        if pa.types.is_string_view(columns[name].type):
            columns[name] = columns[name].cast(pa.large_string())
        try:
            if kind is ColumnKind.TIME:
                columns[name] = clock_column(table[name], time_zone)
            elif kind in _BECOMES:
                to = _BECOMES[kind]
                options = pc.CastOptions(to, allow_float_truncate=True)
                columns[name] = pc.cast(table[name], options=options)
        except pa.ArrowInvalid as error:
            fits = _BECOMES.get(kind, "timestamp[us]")
            seen = f'column "{name}" holds what does not fit into {fits}'
            raise _error(308, where, seen, f"{kind.value} is wanted") from error
    return pa.table(columns)


def refuse_nulls(table: pa.Table, names: Iterable[str], where: str) -> None:
    """Raise HF-305 where an identifier is missing in some row."""
    for name in names:
        missing = table[name].null_count
        if missing:
            seen = f'column "{name}" is empty in {missing} rows'
            raise _error(305, where, seen, "an identifier in every row is wanted")


def series(table: pa.Table, name: str, most: int, where: str) -> Float32:
    """Return a column of lists of one length, at most `most`, as [N, length]; NaN is null.

    Raises:
        IngestError: HF-308 where they are of several lengths, or longer.
    """
    sizes = pc.fill_null(pc.list_value_length(table[name]), -1).unique().to_pylist() or [0]
    if len(sizes) > 1 or not 0 <= sizes[0] <= most:
        seen = f'column "{name}" holds lists of {len(sizes)} lengths, to {max(sizes)}'
        raise _error(308, where, seen, f"lists of one length to {most} are wanted")
    flat = pc.list_flatten(table[name]).cast(pa.float32(), safe=False).fill_null(np.nan)
    return np.asarray(flat.to_numpy(), np.float32).reshape(table.num_rows, sizes[0])


def refuse_empty(table: pa.Table, where: str) -> None:
    """Raise HF-306 where there is no row."""
    if not table.num_rows:
        raise _error(306, where, "there is no usable row", "at least one is wanted")


def by_group(table: pa.Table, column: str) -> Iterator[tuple[str, pa.Table]]:
    """Yield (value as text, rows) per distinct value of a column, in order of the value.

    Args:
        table: Rows in any order; those of a group keep theirs.
        column: Integer or text without nulls; it is dropped.
    """
    index, names = coded(table[column].cast(pa.string()))
    rest = table.drop_columns([column])
    if not np.all(index[1:] >= index[:-1]):
        rest = rest.take(pa.array(np.argsort(index, kind="stable")))
    ends = np.cumsum(np.bincount(index, minlength=len(names)))
    for at in sorted(range(len(names)), key=lambda at: (len(names[at]), names[at])):
        start = int(ends[at - 1]) if at else 0
        yield names[at], rest.slice(start, int(ends[at]) - start)


def folder_name(text: str) -> str:
    """Return a site's name as a folder's: lower case, letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.") or "unknown"


def rows_of(table: pa.Table, subjects: Int64) -> pa.Table:
    """Return the rows whose subject_id is among `subjects`."""
    return table.filter(pc.is_in(table["subject_id"], pa.array(subjects, pa.int64())))


def matched(subject: Int64, known: Int64, column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return for each row what another table says of its subject.

    Args:
        subject: [N] subject of each row.
        known: [K] subjects of the other table, each once.
        column: [K] what it says.
        where: Named in an error.

    Raises:
        IngestError: HF-305 where the other table does not have a subject.
    """
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known, subject, sorter=order), len(known) - 1)
    unknown = int(np.sum(known[order[at]] != subject)) if len(known) else len(subject)
    if unknown:
        seen = f"the subjects of {unknown} events are not in it"
        raise _error(305, where, seen, "every subject with events is wanted there")
    return column.take(pa.array(order[at]))


def _error(number: int, where: str, seen: str, wanted: str) -> IngestError:
    return IngestError(
        number, where=where, seen=seen, wanted=wanted, do="Check the source's export"
    )
