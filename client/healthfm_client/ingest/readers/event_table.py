"""Tables of events with a site column, as a warehouse exports them.

Tests of vocabularies that every site has come under one code and unit (`codes.written_units`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from healthfm_client.ingest.codes.written_units import UNIT, in_store_units
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site, SitesInOneStream
from healthfm_client.ingest.tables.duckdb_reader import TableFile
from healthfm_client.ingest.tables.local_time import times_of_utc
from healthfm_client.ingest.tables.parquet_columns import (
    ColumnKind,
    check_columns,
    has_columns,
    read_batches,
    read_columns,
    refuse_empty,
    refuse_nulls,
    schema_of,
)
from healthfm_core.data.store.event_stream import EventStream, SourcePart
from healthfm_core.data.store.schemas import is_text

COLUMNS: Final = {
    "subject_id": ColumnKind.INTEGER,
    "time": ColumnKind.TIME,
    "code": ColumnKind.TEXT,
    "numeric_value": ColumnKind.NUMBER,
}
_TEXTS: Final = {"text_value": ColumnKind.TEXT, UNIT: ColumnKind.TEXT}
_LABEL_COLUMNS: Final = {
    "subject_id": ColumnKind.INTEGER,
    "prediction_time": ColumnKind.TIME,
    "boolean_value": ColumnKind.FLAG,
}
_SPLIT_COLUMNS: Final = {"subject_id": ColumnKind.INTEGER, "split": ColumnKind.TEXT}


class EventTableOptions(ReaderOptions):
    """Options of ``event_table``."""

    site_column: str = Field("site", description="column of the site, integer or text; '' is none")
    labels: tuple[Path, ...] = Field((), description="Parquet label tables; the file is the task")
    splits: Path | None = Field(None, description="Parquet with subject_id and split")


def event_files(path: Path) -> list[Path]:
    """Return the file itself, or a folder's ``events.parquet``, or all Parquet files in it."""
    if not path.is_dir():
        return [path]
    one = path / "events.parquet"
    return [one] if one.is_file() else sorted(path.glob("*.parquet"))


def read_events(path: Path, site_column: str = "site", time_zone: str | None = None) -> pa.Table:
    """Return the events (MEDS types) and, unless the name is empty, the site column.

    Raises:
        IngestError: HF-301, HF-303, HF-305 to HF-308.
    """
    tables = []
    for file in event_files(path):
        site = {site_column: _site_kind(file, site_column)} if site_column else {}
        table = read_columns(
            file, COLUMNS | site, {"text_value": ColumnKind.TEXT}, time_zone=time_zone
        )
        refuse_nulls(table, ["subject_id", *site], file.name)
        table = table.set_column(
            table.column_names.index("numeric_value"),
            "numeric_value",
            table["numeric_value"].cast(pa.float32(), safe=False),
        )
        tables.append(table)
    if not tables:
        refuse_empty(pa.table({}), path.name)
    table = pa.concat_tables(tables, promote_options="permissive")
    refuse_empty(table, path.name)
    return table


def _site_kind(file: Path, name: str) -> ColumnKind:
    schema = schema_of(file)
    if schema is None or schema.names.count(name) != 1:
        return ColumnKind.INTEGER
    return ColumnKind.TEXT if is_text(schema.field(name).type) else ColumnKind.INTEGER


def stream_events(
    path: Path, site_column: str, now_us: int, time_zone: str | None = None
) -> EventStream:
    """Return the events as a stream, a part per file.

    Raises:
        IngestError: HF-301, HF-303, HF-307, HF-308, and while it is read HF-305 and HF-303.
    """
    parts = []
    for file in event_files(path):
        site = {site_column: _site_kind(file, site_column)} if site_column else {}
        check_columns(file, COLUMNS | site, _TEXTS)
        tables = _tables(file, site, time_zone)
        parts.append(SourcePart(file.name, pq.read_metadata(file).num_rows, tables, file))
    if not sum(part.rows for part in parts):
        refuse_empty(pa.table({}), path.name)
    return EventStream(tuple(parts), now_us)


def _tables(file: Path, site: dict[str, ColumnKind], time_zone: str | None) -> Iterator[pa.Table]:
    columns, coded = COLUMNS | site, ("code", *_TEXTS)
    for table in read_batches(file, columns, _TEXTS, coded=coded, time_zone=time_zone):
        refuse_nulls(table, ["subject_id", *site], file.name)
        at = table.column_names.index("numeric_value")
        number = table["numeric_value"].cast(pa.float32(), safe=False)
        table = table.set_column(at, "numeric_value", number)
        unit = table[UNIT] if UNIT in table.column_names else None
        yield in_store_units(table if unit is None else table.drop_columns([UNIT]), unit)[0]


def read(path: Path, options: EventTableOptions) -> Iterator[Site | SitesInOneStream]:
    """Yield the sites of an event table."""
    zone = options.time_zone
    stream = stream_events(path, options.site_column, options.now_us, zone)
    labels = {
        file.stem: read_columns(file, _LABEL_COLUMNS, time_zone=zone) for file in options.labels
    }
    files = [TableFile(file) for file in (*event_files(path), *options.labels)]
    notices = times_of_utc([column for file in files for column in file.of_utc()], zone)
    splits = None if options.splits is None else read_columns(options.splits, _SPLIT_COLUMNS)
    if options.site_column:
        yield SitesInOneStream(stream, options.site_column, labels, splits, notices)
    else:
        yield Site(None, stream=stream, labels=labels, splits=splits, notices=notices)


def sniff(path: Path) -> bool:
    """Whether there are Parquet events here and no stays, which a preset reads too."""
    files = event_files(path)
    beside = path.is_dir() and ((path / "stays.parquet").exists() or (path / "metadata").exists())
    return not beside and bool(files) and all(has_columns(file, COLUMNS) for file in files)


READER = Reader(
    name="event_table",
    summary="Parquet: subject_id, time, code, numeric_value, site",
    reads=(
        "subject_id, time, code, numeric_value, text_value, unit, a site's column; labels and "
        "splits beside it; units within codes of LOINC and SNOMED"
    ),
    not_read="other columns",
    tried_on=(
        "PhysioNet 2012 and eICU as event tables; a table of 100 million events made for speed"
    ),
    sniff=sniff,
    read=read,
    options=EventTableOptions,
)
