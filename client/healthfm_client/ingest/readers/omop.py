"""OMOP CDM 5.3 and 5.4: a folder of tables as CSV, compressed CSV or Parquet, or a database.

A person becomes MEDS_BIRTH (the first of what is not given of the date) and three static codes; a
death MEDS_DEATH; a visit its concept at its start, with its days as the number, and again with
``END`` at its end. A row of a clinical table is its standard concept, else its source concept, else
its source value, with the unit or the answer behind it; where the number is a limit, ``<`` stands
before the unit. Times are the site's own clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from meds import birth_code, death_code
from pydantic import Field

from healthfm_client.ingest.codes.distinct_codes import (
    CodeAndUnit,
    CodedRows,
    DistinctRows,
    converted,
    joined,
    one_code,
)
from healthfm_client.ingest.codes.molar_units import canonical_lab
from healthfm_client.ingest.codes.omop_values import beside_it, bits, measured
from healthfm_client.ingest.codes.omop_vocabulary import Concepts
from healthfm_client.ingest.codes.shared_spellings import (
    VISITS,
    shared_spelling,
    visit_code,
)
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.tables.databases import DatabaseTables, is_database, opened
from healthfm_client.ingest.tables.duckdb_reader import (
    FolderTables,
    TableFile,
    check_gzip,
    files_of,
    rows_in,
    want_columns,
)
from healthfm_client.ingest.tables.local_time import times_of_utc
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_core.arrays import Int64
from healthfm_core.data.store.event_stream import (
    EventStream,
    NotRead,
    RejectedRows,
    SourcePart,
    StreamItem,
)
from healthfm_core.errors import IngestError

NOT_READ: Final = (
    *("visit_detail", "specimen", "note", "note_nlp", "survey_conduct", "fact_relationship"),
    *("episode", "episode_event", "payer_plan_period", "cost"),
    *("condition_era", "drug_era", "dose_era"),
)
"""Tables of people that are not read, and whose rows are counted; eras repeat what is."""
STATIC: Final = ("gender", "race", "ethnicity")
Tables: TypeAlias = Iterator[StreamItem]
Rows: TypeAlias = Iterator[pa.Table | RejectedRows]


@dataclass(frozen=True)
class Clinical:
    """A table of dated concepts.

    Attributes:
        name: The table.
        subject: What its columns begin with: ``condition`` of ``condition_concept_id``.
        start: What its date columns begin with.
        values: Whether rows have a number, a unit and an answer.
        beside: Columns that say more of a row and are not read, only counted.
    """

    name: str
    subject: str
    start: str
    values: bool = False
    beside: tuple[str, ...] = ()


TABLES: Final = (
    Clinical(
        "condition_occurrence", "condition", "condition_start", beside=("condition_end_date",)
    ),
    Clinical(
        "drug_exposure",
        "drug",
        "drug_exposure_start",
        beside=("drug_exposure_end_date", "quantity", "days_supply", "sig"),
    ),
    Clinical("procedure_occurrence", "procedure", "procedure", beside=("quantity",)),
    Clinical(
        "device_exposure",
        "device",
        "device_exposure_start",
        beside=("device_exposure_end_date", "quantity"),
    ),
    Clinical("measurement", "measurement", "measurement", values=True),
    Clinical("observation", "observation", "observation", values=True),
)


class OmopOptions(ReaderOptions):
    """Options of ``omop``."""

    encoding: Literal["utf-8", "latin-1", "utf-16"] = Field(
        "utf-8", description="how text files are written"
    )


@dataclass(frozen=True)
class Cdm:
    """What every table is read with.

    Attributes:
        tables: Of the folder, or the database.
        concepts: What is known of concepts.
        people: Ascending, who is in PERSON.
    """

    tables: FolderTables | DatabaseTables
    concepts: Concepts
    people: Int64

    def files(self, table: str) -> list[TableFile]:
        """Return a table's files, or the table of the database."""
        return self.tables.of(table)


def read(path: Path, options: OmopOptions) -> Iterator[Site]:
    """Yield the CDM as one site."""
    with closing(_tables(path, options)) as there:
        people = _people(there)
        refuse_empty(pa.table({"person_id": people}), "person")
        cdm = Cdm(there, Concepts(there), people)
        parts = tuple(_parts(cdm))
        stream = EventStream(parts, options.now_us, codes=cdm.concepts.described)
        names = ("person", "death", "visit_occurrence", *(table.name for table in TABLES))
        of_utc = [column for name in names for file in cdm.files(name) for column in file.of_utc()]
        yield Site(
            None,
            stream=stream,
            notices=times_of_utc(of_utc, options.time_zone),
            vocabularies=("CONCEPT",) if len(cdm.concepts) else (),
        )


def _tables(path: Path, options: OmopOptions) -> FolderTables | DatabaseTables:
    if is_database(path):
        return opened(path, options.time_zone)
    return FolderTables(folder_of(path), options.encoding, options.time_zone)


def _people(tables: FolderTables | DatabaseTables) -> Int64:
    people = [np.zeros(0, np.int64)]
    for file in tables.of("person"):
        want_columns(file, ["person_id", "year_of_birth"])
        check_gzip(file.path)
        sql = f"SELECT {file.cast('person_id', 'BIGINT')} AS p FROM {file.source()}"
        rows = file.reader().table(sql, file.path)
        people.append(np.asarray(rows["p"].drop_null().to_numpy(), np.int64))
    return np.unique(np.concatenate(people))


def _parts(cdm: Cdm) -> Iterator[SourcePart]:
    for file in cdm.files("person"):
        yield replace(_part(file, _births(cdm, file)), of_everyone=True)
    for file in cdm.files("death"):
        want_columns(file, ["person_id"])
        yield _part(file, _deaths(cdm, file))
    for file in cdm.files("visit_occurrence"):
        want_columns(file, ["person_id", "visit_concept_id"])
        yield _part(file, _visits(cdm, file))
    for table in TABLES:
        for file in cdm.files(table.name):
            want_columns(file, ["person_id", f"{table.subject}_concept_id", f"{table.start}_date"])
            yield _part(file, _clinical(cdm, table, file))
    yield SourcePart("tables that are not read", 0, _not_read(cdm))


def _part(file: TableFile, tables: Tables) -> SourcePart:
    name = f"{file.path.parent.name}/{file.path.name}"
    own = file.path if file.path.is_file() else None  # and no table of a database
    return SourcePart(name, file.rows, tables, own)


def _clinical(cdm: Cdm, table: Clinical, file: TableFile) -> Tables:
    about = table.subject
    ids = [f"{about}_{name}" for name in ("concept_id", "source_concept_id")]
    concept = file.first(ids, "BIGINT")
    file.needless_beside(
        f"{about}_source_value", [f"{about}_concept_id", f"{about}_source_concept_id"]
    )
    columns = {
        "subject_id": file.cast("person_id", "BIGINT"),
        "time": _time(file, table.start),
        "concept": concept,
        "source": f"CASE WHEN {concept} IS NULL "
        f"THEN {file.cast(f'{about}_source_value', 'VARCHAR')} END",
    }
    if table.values:
        columns |= {
            **measured(file),
            "unit": file.cast("unit_concept_id", "BIGINT"),
            "unit_text": file.cast("unit_source_value", "VARCHAR"),
            "answer": file.cast("value_as_concept_id", "BIGINT"),
        }
    beside = beside_it(file, table.values, table.beside)
    columns["beside"] = bits(beside.values())
    counts = np.zeros(1 << len(beside), np.int64)
    name = lru_cache(1 << 16)(partial(_name, cdm.concepts, about))
    for rows in _rows(cdm, file, columns):
        if isinstance(rows, RejectedRows):
            yield rows
            continue
        counts += np.bincount(np.asarray(rows["beside"].to_numpy()), minlength=len(counts))
        keys = [rows["concept"], rows["source"]]
        numbers = rows["value"] if table.values else None
        if table.values:
            keys += [rows[key] for key in ("unit", "unit_text", "answer", "comparator")]
            keys.append(rows["value"].is_valid())
        distinct = DistinctRows.of(*keys)
        yield _events(rows, distinct.coded([name(*values) for values in distinct.values]), numbers)
    held = {
        f"{table.name}.{column}": int(counts[np.arange(len(counts)) >> bit & 1 == 1].sum())
        for bit, column in enumerate(beside)
    }
    yield NotRead(held)


def _not_read(cdm: Cdm) -> Tables:
    """Yield how many rows the tables have that are not read."""
    yield NotRead({f"{name}.malformed_line": n for name, n in cdm.concepts.malformed.items() if n})
    for name in NOT_READ:
        for file in cdm.files(name):
            yield NotRead({name: rows_in(file)})


def _name(
    concepts: Concepts,
    about: str,
    concept: int | None,
    source: str | None,
    unit: int | None = None,
    unit_text: str | None = None,
    answer: int | None = None,
    comparator: str | None = None,
    has_value: bool = False,
) -> CodeAndUnit:
    if not concept and not source:
        return CodeAndUnit(None)
    code = concepts.code(concept) if concept else joined(f"{about.upper()}_SOURCE", source or "")
    if not has_value:
        said = concepts.code(answer).replace("//", ":") if answer else ""
        return CodeAndUnit(joined(code, said))
    test, its = canonical_lab(code, _unit_text(concepts, unit, unit_text))
    return CodeAndUnit(joined(test, (comparator or "") + its.name), its.factor, its.offset)


def _unit_text(concepts: Concepts, unit: int | None, text: str | None) -> str | None:
    """Return a unit as UCUM has it, else as the source wrote it, else by its concept.

    A number whose unit nobody can read must not come under the code of those without one.
    """
    vocabulary, _, code = concepts.code(unit).partition("//") if unit else ("", "", "")
    if vocabulary == "UCUM":
        return code
    return text or (f"{vocabulary}:{code}" if code else None)


def _visits(cdm: Cdm, file: TableFile) -> Tables:
    start, end = _time(file, "visit_start"), _time(file, "visit_end")
    columns = {
        "subject_id": file.cast("person_id", "BIGINT"),
        "time": start,
        "end": end,
        "concept": file.cast("visit_concept_id", "BIGINT"),
        "source": file.cast("visit_source_value", "VARCHAR"),
    }
    for rows in _rows(cdm, file, columns):
        if isinstance(rows, RejectedRows):
            yield rows
            continue
        began, ended = (rows[name].cast(pa.int64()) for name in ("time", "end"))
        days = pc.divide(pc.cast(pc.subtract(ended, began), pa.float64(), safe=False), 86_400e6)
        backwards = pc.fill_null(pc.less(days, -1.0), False)
        if pc.any(backwards).as_py():
            yield RejectedRows("ends_before_it_starts", _readable(rows.filter(backwards)))
        days = pc.if_else(backwards, None, pc.max_element_wise(days, 0.0, skip_nulls=False))
        yield _events(rows, _visit_codes(cdm, rows), days)
        over = rows.filter(pc.is_valid(days))
        later = pc.max_element_wise(over["time"], over["end"])
        over = over.set_column(over.column_names.index("time"), "time", later)
        yield _events(over, _visit_codes(cdm, over, "END"))


def _visit_codes(cdm: Cdm, rows: pa.Table, suffix: str = "") -> CodedRows:
    nameless = pc.equal(pc.fill_null(rows["concept"], 0), 0)
    source = pc.if_else(nameless, pc.utf8_lower(rows["source"]), None)
    known = pc.if_else(pc.is_in(source, pa.array(list(VISITS))), source, None)
    distinct = DistinctRows.of(rows["concept"], known)
    codes = [
        cdm.concepts.code(concept) if concept else visit_code(text or "unknown")
        for concept, text in distinct.values
    ]
    return distinct.coded([CodeAndUnit(joined(code, suffix)) for code in codes])


def _births(cdm: Cdm, file: TableFile) -> Tables:
    year, month, day = (
        file.cast(f"{unit}_of_birth", "BIGINT") for unit in ("year", "month", "day")
    )
    dates = (f"{year}, {month}, {day}", f"{year}, {month}, 1", f"{year}, 1, 1")
    made = ", ".join(f"TRY_CAST(printf('%04d-%02d-%02d', {date}) AS TIMESTAMP)" for date in dates)
    columns = {
        "subject_id": file.cast("person_id", "BIGINT"),
        "time": f"coalesce({file.cast('birth_datetime', 'TIMESTAMP')}, {made})",
        **{name: file.cast(f"{name}_concept_id", "BIGINT") for name in STATIC},
        **{f"{n}_text": file.cast(f"{n}_source_value", "VARCHAR") for n in STATIC},
    }
    for rows in _rows(cdm, file, columns, also_undated=True):
        if isinstance(rows, RejectedRows):
            yield rows
            continue
        born = rows.filter(rows["time"].is_valid())
        yield _events(born, one_code(birth_code, born.num_rows))
        for name in STATIC:
            distinct = DistinctRows.of(rows[name], rows[f"{name}_text"])
            named = [_static(cdm.concepts, name, c, text) for c, text in distinct.values]
            timeless = rows.set_column(1, "time", pa.nulls(rows.num_rows, pa.timestamp("us")))
            static = _events(timeless, distinct.coded(named))
            yield static.filter(static["code"].is_valid())


def _static(concepts: Concepts, about: str, concept: int | None, text: str | None) -> CodeAndUnit:
    """Return a sex, a race or an ethnicity; what the source calls it where it is no concept."""
    written = f"{about}//{text or ''}"
    known = shared_spelling(written)
    if not concept and known != written:
        return CodeAndUnit(known)
    return _name(concepts, about, concept, text)


def _deaths(cdm: Cdm, file: TableFile) -> Tables:
    columns = {"subject_id": file.cast("person_id", "BIGINT"), "time": _time(file, "death")}
    for rows in _rows(cdm, file, columns):
        if isinstance(rows, RejectedRows):
            yield rows
        else:
            yield _events(rows, one_code(death_code, rows.num_rows))


def _rows(
    cdm: Cdm, file: TableFile, columns: dict[str, str], *, also_undated: bool = False
) -> Rows:
    """Yield a file's rows that have a person of PERSON and a date; the others aside.

    With `also_undated` rows without a date are yielded too: what they say beside it is true.
    """
    check_gzip(file.path)
    reader = file.reader()
    chosen = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    for rows in reader.batches(f"SELECT {chosen} FROM {file.source()}", file.path):
        subject = rows["subject_id"]
        known = pc.is_in(subject, pa.array(cdm.people))
        dated = rows["time"].is_valid()
        for reason, wrong in (
            ("unknown_person", pc.invert(known)),
            ("no_date", pc.and_(known, pc.invert(dated))),
        ):
            if pc.any(wrong).as_py():
                yield RejectedRows(reason, _readable(rows.filter(wrong)))
        good = known if also_undated else pc.and_(known, dated)
        yield rows if pc.all(good).as_py() else rows.filter(good)
    lines = reader.malformed()
    if lines.num_rows:
        yield RejectedRows("malformed_line", lines)


def _readable(rows: pa.Table) -> pa.Table:
    return rows.select(
        [name for name in rows.column_names if not pa.types.is_null(rows[name].type)]
    )


def _events(rows: pa.Table, codes: CodedRows, numbers: pa.ChunkedArray | None = None) -> pa.Table:
    missing = pa.nulls(rows.num_rows, pa.float32())
    if numbers is not None:
        value = np.asarray(pc.fill_null(numbers, 0.0).to_numpy(), np.float64)
        absent = np.asarray(pc.is_null(numbers).to_numpy(), np.bool_)
        missing = pa.array(converted(value, codes.factor, codes.offset), mask=absent)
    return pa.table(
        {
            "subject_id": rows["subject_id"],
            "time": rows["time"].cast(pa.timestamp("us")),
            "code": codes.code,
            "numeric_value": missing,
        }
    )


def _time(file: TableFile, start: str) -> str:
    """Return ``<start>_datetime``, or where it is empty ``<start>_date``, as SQL."""
    return file.first([f"{start}_datetime", f"{start}_date"], "TIMESTAMP")


def folder_of(path: Path) -> Path:
    """Return the folder with PERSON: `path`, or the only folder in it."""
    if not path.is_dir() or files_of(path, "person"):
        return path
    below = [d for d in sorted(path.iterdir()) if d.is_dir() and files_of(d, "person")]
    return below[0] if len(below) == 1 else path


def _is_cdm(path: Path) -> bool:
    """Whether a database's file has a PERSON; of one elsewhere nobody asks before it is read."""
    if path.name.lower().endswith(".toml"):
        return True
    try:
        with closing(opened(path)) as there:
            return bool(there.of("person"))
    except IngestError:
        return False


def sniff(path: Path) -> bool:
    """Whether there is a PERSON and a table of OMOP's beside it."""
    if is_database(path):
        return _is_cdm(path)
    folder = folder_of(path)
    names = ["visit_occurrence", "observation_period", *(table.name for table in TABLES)]
    return bool(files_of(folder, "person")) and any(files_of(folder, name) for name in names)


READER = Reader(
    name="omop",
    summary="OMOP CDM 5.3 or 5.4: a folder of CSV or Parquet, or a database; one site",
    reads=(
        "person, death, visit_occurrence, condition_occurrence, drug_exposure, "
        "procedure_occurrence, device_exposure, measurement, observation; concept, "
        "concept_ancestor"
    ),
    not_read=(
        "other tables of people (visit_detail, specimen, note, survey, episode, cost, eras), a "
        "drug's end, quantity and sig, text in `value_as_string`, an answer beside a number: "
        "counted, as are rows of nobody, without a date, or that end before they start"
    ),
    tried_on=(
        "Synthea27Nj of OHDSI's EunomiaDatasets, CDM 5.4: 28 people (synthetic); PostgreSQL 15"
    ),
    sniff=sniff,
    read=read,
    options=OmopOptions,
)
