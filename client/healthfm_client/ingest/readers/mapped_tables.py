"""Any tables, read by a mapping file in the form of MEDS_extract, one site.

Each row of a table gives the events that the file says, in one pass over the table. Codes are the
file's; numbers come to the store's units by the file's ``unit`` or by the code, as everywhere.
Times are the site's own clock. An id that is a number is the subject_id, another becomes its hash.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from healthfm_client.ingest.codes.distinct_codes import (
    CodeAndUnit,
    DistinctRows,
    converted,
    joined,
    tidy,
)
from healthfm_client.ingest.codes.molar_units import canonical_lab
from healthfm_client.ingest.codes.written_units import in_store_unit, respelt_code
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.ingest.tables.duckdb_reader import (
    TableFile,
    check_gzip,
    files_of,
    is_table,
    rows_in,
    stem_of,
)
from healthfm_client.ingest.tables.event_mapping import (
    Join,
    MappedEvent,
    MappedTable,
    read_mapping,
)
from healthfm_client.ingest.tables.local_time import times_of_utc
from healthfm_client.ingest.tables.mapping_expressions import ColumnOf, columns_in
from healthfm_client.ingest.tables.mapping_sql import LentColumn, MappedColumns, as_text
from healthfm_core.data.store.event_stream import (
    EventStream,
    NotRead,
    RejectedRows,
    SourcePart,
    StreamItem,
)
from healthfm_core.errors import IngestError

NAMES: Final = ("events.yaml", "event_configs.yaml", "messy.yaml", "MESSY.yaml")
"""What a mapping file beside the tables is called."""
_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)
_SUBJECT: Final = "subject"


class MappedTablesOptions(ReaderOptions):
    """Options of ``tables``."""

    events: Path | None = Field(
        None, description="mapping file in the form of MEDS_extract [events.yaml of the folder]"
    )

    def files_beside(self) -> tuple[Path, ...]:
        """Return the mapping file too: what was read by another is not gone on from."""
        return (*self.map, *(() if self.events is None else (self.events,)))


@dataclass
class SubjectIds:
    """What the ids of a source become, the same in every table of it.

    Attributes:
        options: Of the reader: a linking table, a key.
        known: Id → subject_id, of those that were met.
    """

    options: ReaderOptions
    known: dict[str, int] = field(default_factory=dict)
    _taken: dict[int, str] = field(default_factory=dict)

    def of(self, column: pa.ChunkedArray, where: str) -> pa.Array:
        """Return subject_ids of texts or integers without nulls.

        Raises:
            IngestError: HF-305 where two ids become one, and what a linking table raises.
        """
        coded = column.dictionary_encode().unify_dictionaries().combine_chunks()
        names = coded.dictionary.cast(pa.string()).to_pylist()
        new = [name for name in names if name not in self.known]
        for group in self._groups(new):
            for name, number in zip(group, numbers(group, self.options, where), strict=True):
                if self._taken.setdefault(int(number), name) != name:
                    raise _two_become_one(where)
                self.known[name] = int(number)
        of_names = np.array([self.known[name] for name in names], np.int64)
        return pa.array(of_names[np.asarray(coded.indices.to_numpy(), np.int64)])

    def _groups(self, names: list[str]) -> list[list[str]]:
        """Return names that become numbers in one way: in every batch the same."""
        if self.options.subjects is not None or self.options.key is not None:
            return [names] if names else []
        plain = [name for name in names if _NUMBER.fullmatch(name)]
        others = [name for name in names if not _NUMBER.fullmatch(name)]
        return [group for group in (plain, others) if group]


def read(path: Path, options: MappedTablesOptions) -> Iterator[Site]:
    """Yield the tables as one site."""
    folder = path if path.is_dir() else path.parent
    mapping = read_mapping(_mapping_file(path, options))
    there = [
        (table, [TableFile(file, time_zone=options.time_zone) for file in files])
        for table in mapping
        if (files := _files(path, table.name))
    ]
    if not there:
        raise IngestError(
            306,
            where=path.name,
            seen="no table of the mapping file is there",
            wanted=f"files such as {mapping[0].name}.csv are wanted",
        )
    subjects = SubjectIds(options)
    parts = [
        SourcePart(
            f"{table.name}: {file.path.relative_to(folder).as_posix()}",
            file.rows,
            _events_of(folder, table, file, subjects),
            file.path,
        )
        for table, files in there
        for file in files
    ]
    parts.append(SourcePart("tables that are not read", 0, _not_read(path, mapping)))
    absent = [table.name for table in mapping if not _files(path, table.name)]
    said = f"These tables of the mapping file are not there: {', '.join(absent)}."
    yield Site(
        None,
        stream=EventStream(tuple(parts), options.now_us),
        notices=(
            *times_of_utc(_of_utc(there), options.time_zone),
            *([said] if absent else []),
        ),
    )


def _mapping_file(path: Path, options: MappedTablesOptions) -> Path:
    beside = [path / name for name in NAMES if (path / name).is_file()]
    if options.events is None and not beside:
        raise IngestError(
            335,
            where=path.name,
            seen="no mapping file is named",
            wanted="a file in the form of MEDS-extract is wanted",
            do="Name it with --events FILE",
        )
    return options.events or beside[0]


def _files(path: Path, table: str) -> list[Path]:
    """Return the files of ``hosp/labevents`` below a folder, or the file that the path is."""
    parent, _, name = table.lower().rpartition("/")
    if path.is_file():
        return [path] if stem_of(path) == name else []
    folder = path / parent
    return files_of(folder, name) if ".." not in folder.parts else []


def _of_utc(there: list[tuple[MappedTable, list[TableFile]]]) -> list[str]:
    """Return the columns of times that are points in time and name no zone but UTC."""
    return [
        said
        for table, files in there
        for column in {
            name for event in table.events if event.time for name in columns_in(event.time)
        }
        for file in files
        for said in file.of_utc()
        if said.endswith(f", {column}")
    ]


def _not_read(path: Path, mapping: tuple[MappedTable, ...]) -> Iterator[StreamItem]:
    """Yield how many rows the tables have that the mapping file says nothing of."""
    named = {table.name for table in mapping}
    named |= {join.table for table in mapping for join in table.joins}
    read_here = {file for name in named for file in _files(path, name)}
    for file in sorted(path.rglob("*")) if path.is_dir() else []:
        plain = file.name.lower().endswith((".txt", ".txt.gz"))
        if file.is_file() and is_table(file) and not plain and file not in read_here:
            name = (file.parent / stem_of(file)).relative_to(path).as_posix()
            yield NotRead({name: rows_in(TableFile(file))})


def _events_of(
    folder: Path, table: MappedTable, file: TableFile, subjects: SubjectIds
) -> Iterator[StreamItem]:
    """Yield the events of a table's file, and what of it gives none."""
    check_gzip(file.path)
    source, lent = _joined(folder, table, file)
    columns = MappedColumns(file, lent, table.made, table.name)
    chosen = {_SUBJECT: columns.id(table.subject)}
    for at, event in enumerate(table.events):
        chosen |= {f"{name}_{at}": sql for name, sql in _columns(columns, event).items()}
    sql = ", ".join(f'{expression} AS "{name}"' for name, expression in chosen.items())
    reader = file.reader()
    passed: Counter[str] = Counter()
    for rows in reader.batches(f"SELECT {sql} FROM {source}", file.path):
        nobody = rows[_SUBJECT].is_null()
        if pc.any(nobody).as_py():
            yield RejectedRows("unknown_person", rows.filter(nobody))
            rows = rows.filter(pc.invert(nobody))
        ids = subjects.of(rows[_SUBJECT], file.path.name)
        for at, event in enumerate(table.events):
            own = pa.table(
                {name: rows[f"{name}_{at}"] for name in _columns(columns, event)}
            ).append_column("subject_id", ids)
            yield from _of_one_kind(own, event, f"{table.name}/{event.name}", passed)
    yield NotRead({what: count for what, count in passed.items() if count})
    lines = reader.malformed()
    if lines.num_rows:
        yield RejectedRows("malformed_line", lines)


def _columns(columns: MappedColumns, event: MappedEvent) -> dict[str, str]:
    """Return what is read of an event: name → SQL."""
    said = {"code": columns.text(event.code)}
    if event.time is not None:
        said["time"] = f"CAST({columns.time(event.time)} AS TIMESTAMP)"
        said["dated"] = columns.said(event.time)
    if event.numeric_value is not None:
        number = columns.value(event.numeric_value)
        said["value"] = number
        said["limit"] = columns.limit(event.numeric_value)
        said["worded"] = f"{columns.said(event.numeric_value)} AND {number} IS NULL"
    if event.text_value is not None:
        text = columns.text(event.text_value)
        same = "false"
        if event.numeric_value is not None:
            same = f"TRY_CAST({text} AS FLOAT) = TRY_CAST({said['value']} AS FLOAT)"
        said["text"] = f"CASE WHEN {same} THEN NULL ELSE {text} END"
    if event.unit is not None:
        said["unit"] = columns.text(event.unit)
    for at, of in enumerate(event.others.values()):
        said[f"other{at}"] = f"{columns.text(of)} IS NOT NULL"
    return said


def _of_one_kind(
    rows: pa.Table, event: MappedEvent, name: str, passed: Counter[str]
) -> Iterator[pa.Table | RejectedRows]:
    """Yield the rows' events of one kind, count what gives none, set aside what is unreadable."""
    named = rows["code"].is_valid()
    passed[f"{name}: no code"] += pc.sum(pc.invert(named)).as_py() or 0
    rows = rows.filter(named)
    if event.time is not None:
        timed = rows["time"].is_valid()
        dated = pc.and_(pc.invert(timed), rows["dated"])
        passed[f"{name}: no time"] += rows.num_rows - (pc.sum(pc.or_(timed, dated)).as_py() or 0)
        if pc.any(dated).as_py():
            yield RejectedRows("no_date", rows.filter(dated))
        rows = rows.filter(timed)
    for at, other in enumerate(event.others):
        passed[f"{name}: {other}"] += pc.sum(rows[f"other{at}"]).as_py() or 0
    if "worded" in rows.column_names and "text" not in rows.column_names:
        passed[f"{name}: value that is no number"] += pc.sum(rows["worded"]).as_py() or 0
    if rows.num_rows:
        yield _in_store_form(rows)


def _in_store_form(rows: pa.Table) -> pa.Table:
    """Return MEDS columns, codes and numbers in the store's units."""
    here = rows.column_names
    nothing = pa.chunked_array([pa.nulls(rows.num_rows, pa.string())])
    number = rows["value"] if "value" in here else pa.nulls(rows.num_rows, pa.float64())
    number = pa.chunked_array([number]) if isinstance(number, pa.Array) else number
    unit, limit = (rows[name] if name in here else nothing for name in ("unit", "limit"))
    distinct = DistinctRows.of(rows["code"], unit, limit, number.is_valid())
    coded = distinct.coded([_named(*values) for values in distinct.values])
    value = np.asarray(pc.fill_null(number, 0.0).to_numpy(), np.float64)
    absent = np.asarray(number.is_null().to_numpy(), np.bool_)
    columns = {
        "subject_id": rows["subject_id"],
        "time": rows["time"] if "time" in here else pa.nulls(rows.num_rows, pa.timestamp("us")),
        "code": coded.code,
        "numeric_value": pa.array(converted(value, coded.factor, coded.offset), mask=absent),
    }
    if "text" in here:
        columns["text_value"] = rows["text"].cast(pa.large_string())
    return pa.table(columns)


@lru_cache(1 << 16)
def _named(code: str, unit: str | None, limit: str | None, has_value: bool) -> CodeAndUnit:
    """Return a row's code with the unit of its number behind it, whatever else the code says."""
    code = tidy(code)
    bears_unit = in_store_unit(code, None, has_value) != CodeAndUnit(code)
    if not has_value or bears_unit or not (unit or limit):
        return in_store_unit(code, None, has_value)
    test, its = canonical_lab(respelt_code(code), unit)
    return CodeAndUnit(joined(test, (limit or "") + its.name), its.factor, its.offset)


def _joined(folder: Path, table: MappedTable, file: TableFile) -> tuple[str, dict[str, LentColumn]]:
    """Return what stands behind FROM, and the columns that other tables lend.

    Raises:
        IngestError: HF-306, HF-307, HF-338.
    """
    source, lent = file.source(), {}
    own = MappedColumns(file, {}, table.made, table.name)
    for at, join in enumerate(table.joins):
        others = [TableFile(one, time_zone=file.time_zone) for one in _files(folder, join.table)]
        if not others:
            raise IngestError(
                306,
                where=join.table,
                seen="there is no such table",
                wanted=f"{table.name} takes columns of it",
            )
        inside = " UNION ALL ".join(_lending(join, at, other, table.name) for other in others)
        inside = _each_once(join, at, inside, others[0])
        keys = [f'{own.text(ColumnOf(k))} = "{at}.key{n}"' for n, k in enumerate(join.left)]
        source += f" LEFT JOIN ({inside}) ON {' AND '.join(keys)}"
        for name in join.columns:
            lent[name] = LentColumn(f'"{at}.{name}"', f'"{at}.{name} as a time"', others[0])
    return source, lent


def _lending(join: Join, at: int, other: TableFile, where: str) -> str:
    """Return the keys and columns of a file of the other table, as SQL."""
    check_gzip(other.path)
    its = MappedColumns(other, {}, {}, f"{where}, join")
    keys = [f'{its.text(ColumnOf(key))} AS "{at}.key{n}"' for n, key in enumerate(join.right)]
    columns = []
    for name in join.columns:
        plain = as_text(other.column(name)) if not other.is_parquet else other.column(name)
        its.text(ColumnOf(name))
        columns.append(f'{plain} AS "{at}.{name}"')
        columns.append(f'{other.cast(name, "TIMESTAMP")} AS "{at}.{name} as a time"')
    return f"SELECT {', '.join(keys + columns)} FROM {other.source()}"


def _each_once(join: Join, at: int, inside: str, file: TableFile) -> str:
    """Return the other table with each key once, as SQL.

    Raises:
        IngestError: HF-338 where a key says several things.
    """
    keys = [f'"{at}.key{n}"' for n in range(len(join.right))]
    columns = [
        (f'"{at}.{name}{kind}"', how)
        for name, how in join.columns.items()
        for kind in ("", " as a time")
    ]
    if any(join.columns.values()):
        reduced = [f"{how or 'min'}({name}) AS {name}" for name, how in columns]
        return f"SELECT {', '.join(keys + reduced)} FROM ({inside}) GROUP BY {', '.join(keys)}"
    chosen = ", ".join(keys + [name for name, _ in columns])
    whole = f"SELECT DISTINCT {chosen} FROM ({inside}) WHERE {keys[0]} IS NOT NULL"
    sql = f"SELECT count(*) AS n FROM (SELECT 1 FROM ({whole}) GROUP BY {', '.join(keys)} "
    (found,) = file.reader().table(f"{sql} HAVING count(*) > 1)", file.path).to_pylist()
    if found["n"]:
        raise IngestError(
            338,
            where=join.table,
            seen=f"keys ({', '.join(join.right)}) stand there with several values",
            wanted="one row for each is wanted, else events would be doubled",
            do="Join by a key that stands there once, or take min or max of the columns",
        )
    return whole


def _two_become_one(where: str) -> IngestError:
    return IngestError(
        305,
        where=where,
        seen="two ids of the source become one subject_id",
        wanted="ids that stay apart are wanted (07 and 7 do not)",
        do="Give a table of ids and subject_ids (--subjects)",
    )


def sniff(path: Path) -> bool:
    """Whether a folder has a mapping file, and a table of it."""
    if not path.is_dir() or not any((path / name).is_file() for name in NAMES):
        return False
    try:
        mapping = read_mapping(_mapping_file(path, MappedTablesOptions()))
    except IngestError:
        return False
    return any(_files(path, table.name) for table in mapping)


READER = Reader(
    name="tables",
    summary="any tables, CSV or Parquet, by a mapping file in the form of MEDS_extract; one site",
    reads=(
        "the events that the mapping file names: code, time, numeric_value, unit, text_value, of "
        "the table's columns and of tables that it joins (docs/any-tables.md: MIMIC-IV, CLIF)"
    ),
    not_read=(
        "tables that the file does not name, properties beside those, values that are no number, "
        "rows without a code or a time: counted; columns that it does not name, `_metadata`"
    ),
    tried_on=(
        "eICU demo 2.0 taken apart into tables with offsets: 1,423,062 events; the files alone of "
        "MIMIC-IV-MEDS 0.2.0 and eICU-MEDS 0.1.0"
    ),
    sniff=sniff,
    read=read,
    options=MappedTablesOptions,
    links=True,
)
