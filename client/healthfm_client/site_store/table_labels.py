"""MEDS labels from a table of one's own: a row for each person and time, and yes or no."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_client.ingest.reader_interface import ReaderOptions
from healthfm_client.ingest.subject_linking import linked
from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader, TableFile, unreadable
from healthfm_core.arrays import Bool, Int64
from healthfm_core.data.store.events import repeated
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError

SUBJECTS: Final = ("subject_id", "person_id", "patient_id", "participant_id", "subject", "patient")
TIMES: Final = ("prediction_time", "prediction_date", "index_time", "index_date", "time", "date")
VALUES: Final = ("boolean_value", "label", "outcome", "value")
YES: Final = ("true", "t", "yes", "y", "1", "1.0")
NO: Final = ("false", "f", "no", "n", "0", "0.0")


@dataclass(frozen=True)
class LabelColumns:
    """Which columns a table's labels stand in; '' is the first with a known name.

    Attributes:
        subject: The person's id, as the source of the store has it.
        time: As of when is asked; what was recorded up to and including it is read.
        value: Whether the outcome came, as true/false, yes/no or 1/0. Where no name is known it is
            the only other column.
        time_format: How times are written, such as %d/%m/%Y; '' is 2020-01-31 or 2020-01-31 08:00.
    """

    subject: str = ""
    time: str = ""
    value: str = ""
    time_format: str = ""


@dataclass(frozen=True)
class TableLabels:
    """A table's labels.

    Attributes:
        where: The file's name.
        labels: MEDS's columns, by person and time, each once.
        unknown: Rows without a time or an outcome, which are no labels.
    """

    where: str
    labels: pa.Table
    unknown: int

    @classmethod
    def read(cls, file: Path, columns: LabelColumns, options: ReaderOptions) -> TableLabels:
        """Read a table (CSV, compressed or not, or Parquet).

        Args:
            file: The table.
            columns: Its columns.
            options: How ids become subject_ids (`key`, `subjects`), and the site's time zone.

        Raises:
            IngestError: HF-301, HF-303, HF-305 to HF-308, HF-310.
        """
        if not file.is_file():
            raise IngestError(301, where=str(file), seen="there is no such file")
        table = TableFile(file, time_zone=options.time_zone)
        subject = _column(table, columns.subject, SUBJECTS, "subject-column")
        time = _column(table, columns.time, TIMES, "time-column")
        value = _value_column(table, columns.value, {subject, time})
        rows = _rows(table, (subject, time, value), columns.time_format)
        known = np.asarray(rows["known"].to_numpy(zero_copy_only=False), np.bool_)
        rows = rows.filter(pa.array(known))
        if not rows.num_rows:
            raise IngestError(
                306, where=file.name, seen="no row has a person, a time and an outcome"
            )
        who = np.asarray(linked(rows["person"], options, file.name).to_numpy(), np.int64)
        return cls(file.name, _once(file.name, who, rows), int((~known).sum()))

    def of(self, store: SiteStore) -> pa.Table:
        """Return the labels of a store's people."""
        whose = np.isin(self.labels["subject_id"].to_numpy(), store.subjects())
        return self.labels.filter(pa.array(whose))


def _column(table: TableFile, asked: str, known: tuple[str, ...], option: str) -> str:
    here = [name for name in ([asked.lower()] if asked else known) if name in table.columns]
    if here:
        return here[0]
    raise IngestError(
        307,
        where=table.path.name,
        seen=f'there is no column "{asked}"' if asked else f"none is one of {', '.join(known)}",
        wanted=f"one of {', '.join(table.columns)} is wanted",
        do=f"Name it with --{option}",
    )


def _value_column(table: TableFile, asked: str, others: set[str]) -> str:
    rest = [name for name in table.columns if name not in others]
    if not asked and len(rest) == 1 and rest[0] not in VALUES:
        return rest[0]
    return _column(table, asked, VALUES, "value-column")


def _rows(table: TableFile, columns: tuple[str, str, str], time_format: str) -> pa.Table:
    """Return person, time, value, and whether a row has all three.

    Raises:
        IngestError: HF-308 where a time or an outcome is written so that it cannot be read.
    """
    subject, time, value = columns
    texts = {name: f"lower(trim(CAST({table.column(name)} AS VARCHAR)))" for name in columns}
    form = time_format.replace("'", "''")
    when = table.cast(time, "TIMESTAMP")
    if form:
        when = f"try_strptime(trim(CAST({table.column(time)} AS VARCHAR)), '{form}')"
    yes, no = ("(" + ", ".join(f"'{one}'" for one in words) + ")" for words in (YES, NO))
    answer = (
        f"CASE WHEN {texts[value]} IN {yes} THEN true WHEN {texts[value]} IN {no} THEN false END"
    )
    sql = (
        f"SELECT trim(CAST({table.column(subject)} AS VARCHAR)) AS person, {when} AS time, "
        f"{answer} AS value, {texts[time]} <> '' AS timed, {texts[value]} <> '' AS said "
        f"FROM {table.source()}"
    )
    reader = DuckDBReader()
    rows = reader.table(sql, table.path)
    if reader.malformed().num_rows:
        raise unreadable(table.path, "some of its lines have other columns than the first")
    _refuse_unread(table, rows, time, "timed", "time", "2020-01-31, or what --time-format says,")
    _refuse_unread(table, rows, value, "said", "value", "true or false, yes or no, 1 or 0")
    known = [_held(rows, name) for name in ("person", "time", "value")]
    known.append(np.array([bool(name) for name in rows["person"].to_pylist()], np.bool_))
    return rows.append_column("known", pa.array(np.all(known, axis=0)))


def _refuse_unread(
    table: TableFile, rows: pa.Table, column: str, said: str, read: str, wanted: str
) -> None:
    unread = rows[said].fill_null(False).to_numpy() & ~_held(rows, read)
    if unread.any():
        raise IngestError(
            308,
            where=f'{table.path.name}, column "{column}"',
            seen=f"{int(unread.sum()):,} cells are written in another way than is read",
            wanted=f"{wanted} is wanted",
            do="Correct the table",
        )


def _held(rows: pa.Table, column: str) -> Bool:
    return np.asarray(rows[column].is_valid().to_numpy(), np.bool_)


def _once(where: str, who: Int64, rows: pa.Table) -> pa.Table:
    """Return the labels, one where two rows say the same.

    Raises:
        IngestError: HF-305 where two rows give one person other answers at one time.
    """
    us = rows["time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    value = np.asarray(rows["value"].to_numpy(), np.bool_)
    first = ~repeated([who, us, value.astype(np.int64)])
    labels = label_table(who[first], us[first], value[first])
    twice = int(repeated([who[first], us[first]]).sum())
    if twice:
        raise IngestError(
            305,
            where=where,
            seen=f"it gives two answers for one person at one time, {twice:,}×",
            wanted="one answer for each person and time is wanted",
            do="Correct the table",
        )
    return labels
