"""Days of a wearable as any table: a row per person and day, or one of each person's means.

``subject_id, date, steps, resting_heart_rate``, as CSV or Parquet, from whatever device. A column
is read where its name says what it is (`CHANNELS`) or the site names it; every other one is
counted as not read. A person's means over days stand at the day by which they were known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Final, Self

import pyarrow as pa
from pydantic import Field, model_validator

from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.readers.fitbit import kind_of
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    check_gzip,
    is_table,
)
from healthfm_client.ingest.tables.local_time import times_of_utc
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.wearable_days import (
    PER_DAY,
    cells_not_read,
    day_values,
    stretched,
)
from healthfm_core.errors import IngestError

SUBJECTS: Final = (
    *("subject_id", "person_id", "participant_id", "patient_id", "subject", "participant"),
    *("patient", "id"),
)
DAYS: Final = ("date", "day", "calendar_date", "activity_date", "summary_date", "sleep_date")
CHANNELS: Final[Mapping[str, tuple[str, ...]]] = {
    "STEPS": ("steps", "total_steps", "step_count", "steps_total", "daily_steps"),
    "ENERGY": ("calories", "calories_out", "total_calories", "total_kilocalories"),
    "ACTIVE_ENERGY": ("active_calories", "activity_calories", "active_kilocalories"),
    "VERY_ACTIVE": ("very_active_minutes", "vigorous_minutes", "mvpa_minutes"),
    "FAIRLY_ACTIVE": ("fairly_active_minutes", "moderate_minutes"),
    "LIGHTLY_ACTIVE": ("lightly_active_minutes", "light_minutes"),
    "SEDENTARY": ("sedentary_minutes",),
    "ASLEEP": ("minutes_asleep", "minute_asleep", "total_minutes_asleep", "sleep_minutes"),
    "IN_BED": ("minutes_in_bed", "minute_in_bed", "total_time_in_bed"),
    "AWAKE": ("minutes_awake", "minute_awake"),
    "LIGHT_SLEEP": ("minutes_light", "minute_light"),
    "DEEP_SLEEP": ("minutes_deep", "minute_deep"),
    "REM_SLEEP": ("minutes_rem", "minute_rem"),
    "HR": ("heart_rate", "mean_heart_rate", "average_heart_rate", "avg_heart_rate"),
    "RESTING_HR": ("resting_heart_rate", "resting_hr", "rhr"),
    "HRV": ("hrv", "rmssd", "hrv_rmssd"),
    "SPO2": ("spo2", "oxygen_saturation"),
    "RESPIRATORY_RATE": ("respiratory_rate", "breathing_rate"),
}
"""Quantity → names of its columns, which leave no doubt of the unit: steps, kcal, min, beats/min,
ms, %, breaths/min. Distances, sleep in hours and glucose are read where the site names them."""
_QUANTITIES: Final = {
    re.sub(r"[^a-z0-9]", "", name): quantity for quantity, of in CHANNELS.items() for name in of
}
_NAMED: Final = re.compile(r"(?P<column>[^=]+)(=(?P<quantity>[A-Za-z][A-Za-z0-9_]*))?")


class DailyTableOptions(ReaderOptions):
    """Options of ``daily_table``."""

    subject_column: str = Field("", description="column of the person's id [subject_id, …]")
    day_column: str = Field("", description="column of the day [date, day, …]")
    date_format: str = Field("", description="how days are written, %d/%m/%Y [2020-01-31]")
    columns: tuple[str, ...] = Field(
        (), description="columns to read, COLUMN or COLUMN=QUANTITY [those with known names]"
    )
    means: bool = Field(
        False, description="rows are a person's means over days, known by their day"
    )
    as_of: date | None = Field(
        None, description="the day by which means were known, in a table without a day"
    )

    @model_validator(mode="after")
    def _columns_can_be_read(self) -> Self:
        wrong = [name for name in self.columns if not _NAMED.fullmatch(name)]
        if wrong:
            raise ValueError(f"{wrong[0]} is not COLUMN or COLUMN=QUANTITY")
        if self.as_of is not None and self.day_column:
            raise ValueError("the day is as_of's or day_column's, not both's")
        return self


def read(path: Path, options: DailyTableOptions) -> Iterator[Site]:
    """Yield everyone's days as one site."""
    values, odd = [], []
    not_read: dict[str, int] = {}
    of_utc: list[str] = []
    for file in _files(path, options.time_zone):
        check_gzip(file.path)
        subject = _column(file, options.subject_column, SUBJECTS, "subject_column")
        day = _day_column(file, options)
        channels = _channels(file, options, {subject, day})
        _refuse_other_days(file, day, options)
        good, bad = day_values(
            file, file.column(subject), _day(file, day, options), channels, options
        )
        values.append(good)
        odd.append(bad)
        for name, cells in cells_not_read(file, {*channels, subject, day}).items():
            not_read[name] = not_read.get(name, 0) + cells
        of_utc += [column for column in file.of_utc() if column.endswith(f", {day}")]
    rows, again = stretched(values)
    refuse_empty(rows, path.name)
    rejected = {"impossible_day": pa.concat_tables(odd), "repeated_day": again}
    yield Site(
        None,
        wearables={PER_DAY: rows},
        rejected={reason: table for reason, table in rejected.items() if table.num_rows},
        not_read=not_read,
        notices=(*times_of_utc(of_utc, options.time_zone), *_told(not_read)),
    )


def _told(not_read: Mapping[str, int]) -> tuple[str, ...]:
    names = ", ".join(sorted(not_read))
    said = f"These columns were not read: {names}. Name those that are wanted with --columns."
    return (said,) if not_read else ()


def _column(file: TableFile, asked: str, known: tuple[str, ...], option: str) -> str:
    """Return the column that is asked for, or the first of the known names.

    Raises:
        IngestError: HF-307 where there is none.
    """
    here = [name for name in ([asked.lower()] if asked else known) if name in file.columns]
    if not here:
        raise IngestError(
            307,
            where=file.path.name,
            seen=f'there is no column "{asked}"' if asked else f"none is one of {', '.join(known)}",
            wanted=f"one of {', '.join(file.columns)} is wanted",
            do=f"Name it with --{option.replace('_', '-')}",
        )
    return here[0]


def _day_column(file: TableFile, options: DailyTableOptions) -> str:
    """Return the column of the day, '' for means of a day that the site names.

    Raises:
        IngestError: HF-307 where there is none.
    """
    if options.as_of is not None:
        return ""
    if options.day_column or any(name in file.columns for name in DAYS):
        return _column(file, options.day_column, DAYS, "day_column")
    raise IngestError(
        307,
        where=file.path.name,
        seen=f"no column of the day is one of {', '.join(DAYS)}",
        wanted="a day in every row is wanted, or the day by which a person's means were known",
        do="Name the column with --day-column, or give --as-of 2020-01-31 for means",
    )


def _channels(file: TableFile, options: DailyTableOptions, keys: set[str]) -> dict[str, str]:
    """Return column → channel of what is read.

    Raises:
        IngestError: HF-307 where a column is absent, none is known, or two are one channel.
    """
    chosen: dict[str, str] = {}
    asked = [match for name in options.columns if (match := _NAMED.fullmatch(name))]
    for match in asked:
        column = match["column"].lower()
        _column(file, column, (), "columns")
        chosen[column] = match["quantity"] or _quantity(column) or column
    if not asked:
        others = [name for name in file.columns if name not in keys]
        chosen = {name: known for name in others if (known := _quantity(name))}
    kind = "_MEAN" if options.means or options.as_of is not None else "_DAY"
    channels = {column: _channel(quantity, kind) for column, quantity in chosen.items()}
    twice = len(set(channels.values())) < len(channels)
    if twice or not channels:
        raise IngestError(
            307,
            where=file.path.name,
            seen="two columns are one quantity" if twice else "no column's name is known",
            wanted=f"columns of {', '.join(file.columns)} are wanted, a quantity each",
            do="Name them: --columns COLUMN=QUANTITY",
        )
    return channels


def _quantity(column: str) -> str | None:
    return _QUANTITIES.get(re.sub(r"[^a-z0-9]", "", column.lower()))


def _channel(quantity: str, kind: str) -> str:
    plain = re.sub(r"[^A-Z0-9]+", "_", quantity.upper()).strip("_")
    return plain.removesuffix("_DAY").removesuffix("_MEAN") + kind


def _day(file: TableFile, column: str, options: DailyTableOptions) -> str:
    """Return the day of a row as SQL."""
    if options.as_of is not None:
        return f"TIMESTAMP '{options.as_of}'"
    if not options.date_format:
        return file.cast(column, "TIMESTAMP")
    form = options.date_format.replace("'", "''")
    return f"try_strptime(CAST({file.column(column)} AS VARCHAR), '{form}')"


def _refuse_other_days(file: TableFile, column: str, options: DailyTableOptions) -> None:
    """Raise HF-308 where the days are written in another way than is read."""
    if not column:
        return
    text = f"trim(CAST({file.column(column)} AS VARCHAR)) <> ''"
    sql = f"SELECT count(*) FILTER ({text}) AS said, count({_day(file, column, options)}) AS known"
    (row,) = DuckDBReader().table(f"{sql} FROM {file.source()}", file.path).to_pylist()
    if row["said"] - row["known"] > options.max_set_aside * row["said"]:
        raise IngestError(
            308,
            where=file.path.name,
            seen=f'column "{column}" has days that are not written so',
            wanted=f"days as {options.date_format or '2020-01-31'} are wanted",
            do="Say how they are written, for example --date-format %d/%m/%Y",
        )


def _files(path: Path, time_zone: str | None) -> list[TableFile]:
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    files = [file for file in inside if file.is_file() and is_table(file)]
    if not files:
        raise IngestError(306, where=path.name, seen="there is no table")
    return [TableFile(file, time_zone=time_zone) for file in files]


def sniff(path: Path) -> bool:
    """Whether the file is a table of days with a column of a known name, and not Fitbit's."""
    if not path.is_file() or not is_table(path):
        return False
    file = TableFile(path)
    try:
        columns = set(file.columns)
    except IngestError:
        return False
    keyed = bool(columns.intersection(SUBJECTS) and columns.intersection(DAYS))
    known = any(_quantity(name) for name in columns)
    return keyed and known and "code" not in columns and kind_of(file.columns) is None


READER = Reader(
    name="daily_table",
    summary="days of a wearable: subject, day, a column per quantity; or means; one site",
    reads=(
        "steps, energy, activity, sleep, heart rate and the like by the day, whatever the device; "
        "a person's means over days; further columns that the site names"
    ),
    not_read="columns without a known name are counted, as are days that cannot be true",
    tried_on=(
        "daily totals of 33 people (Furberg et al., Zenodo 53894), renamed; files that the tests "
        "write"
    ),
    sniff=sniff,
    read=read,
    options=DailyTableOptions,
    links=True,
)
