"""Fitbit: the tables of All of Us, and Fitabase exports.

A file's columns say which table it is, since names change between releases. Times are the clock
that was worn, as Fitbit keeps them: no offset is in these tables, so that a traveller's day is the
day of where they were. A minute without steps may be one in which nothing was worn; Fitbit does not
tell. Steps, heart rate, intensity and sleep become days of 1,440 minutes; daily totals a device of
their own, with one sample a day (`wearable_days`). What is in no known column is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.subject_linking import linked
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    check_gzip,
    is_table,
)
from healthfm_client.ingest.tables.local_time import times_of_utc
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.tables.wearable_minutes import MINUTE_US, by_day, possible
from healthfm_client.ingest.wearable_days import (
    PER_DAY,
    cells_not_read,
    day_values,
    stretched,
)
from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import coded, ids, repeated, times_us
from healthfm_core.data.store.wearables import DAY_US
from healthfm_core.errors import IngestError

DEVICE: Final = "fitbit"
FORMATS: Final = (
    "%Y-%m-%dT%H:%M:%S",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y",
    "%d-%m-%Y %I:%M:%S %p",
    "%d-%m-%Y",
    "%d-%m-%Y %H:%M:%S",
    "%m-%d-%Y %H:%M",
    "%m-%d-%Y",
)
"""What Fitabase writes, besides ISO: month first with slashes, day first with dashes, unless a
spreadsheet put ``00:00`` behind a date, or no month is over 12."""
_LEVELS: Final = {
    "deep": 3,
    "rem": 2,
    "asleep": 2,
    "light": 1,
    "restless": 1,
    "wake": 0,
    "awake": 0,
}


@dataclass(frozen=True)
class Minutes:
    """A table with a row per reading: channel, and the columns of person, time and value."""

    channel: str
    person: str
    time: str
    value: str


@dataclass(frozen=True)
class Wide:
    """A table with a row per hour: channel, and what the 60 columns begin with."""

    channel: str
    start: str


@dataclass(frozen=True)
class Days:
    """A table with a row per day: columns of person and day, column → channel of what is kept.

    Attributes:
        pieces: Column that tells several rows of a day apart, which add up; '' for one a day.
    """

    person: str
    day: str
    kept: tuple[tuple[str, str], ...]
    pieces: str = ""


NARROW: Final = (
    Minutes("HR", "person_id", "datetime", "heart_rate_value"),
    Minutes("STEPS", "person_id", "datetime", "steps"),
    Minutes("STEPS", "id", "activityminute", "steps"),
    Minutes("INTENSITY", "id", "activityminute", "intensity"),
    Minutes("HR", "id", "time", "value"),
)
WIDE: Final = (Wide("STEPS", "steps"), Wide("INTENSITY", "intensity"))
DAILY: Final = (
    Days(
        "id",
        "activitydate",
        (
            ("totalsteps", "STEPS_DAY"),
            ("calories", "ENERGY_DAY"),
            ("veryactiveminutes", "VERY_ACTIVE_DAY"),
            ("fairlyactiveminutes", "FAIRLY_ACTIVE_DAY"),
            ("lightlyactiveminutes", "LIGHTLY_ACTIVE_DAY"),
            ("sedentaryminutes", "SEDENTARY_DAY"),
        ),
    ),
    Days(
        "id",
        "sleepday",
        (("totalminutesasleep", "ASLEEP_DAY"), ("totaltimeinbed", "IN_BED_DAY")),
    ),
    Days(
        "person_id",
        "date",
        (
            ("steps", "STEPS_DAY"),
            ("calories_out", "ENERGY_DAY"),
            ("activity_calories", "ACTIVE_ENERGY_DAY"),
            ("very_active_minutes", "VERY_ACTIVE_DAY"),
            ("fairly_active_minutes", "FAIRLY_ACTIVE_DAY"),
            ("lightly_active_minutes", "LIGHTLY_ACTIVE_DAY"),
            ("sedentary_minutes", "SEDENTARY_DAY"),
        ),
    ),
    Days(
        "person_id",
        "sleep_date",
        (
            ("minute_asleep", "ASLEEP_DAY"),
            ("minute_in_bed", "IN_BED_DAY"),
            ("minute_awake", "AWAKE_DAY"),
            ("minute_light", "LIGHT_SLEEP_DAY"),
            ("minute_deep", "DEEP_SLEEP_DAY"),
            ("minute_rem", "REM_SLEEP_DAY"),
        ),
        pieces="is_main_sleep",
    ),
)
_SLEEP: Final = ("person_id", "level", "start_datetime", "duration_in_min")

Table = Minutes | Wide | Days | str


def kind_of(columns: list[str]) -> Table | None:
    """Return which table has these columns (in lower case), None where none of Fitbit's has."""
    if set(_SLEEP) <= set(columns):
        return "sleep"
    for wide in WIDE:
        if {"id", "activityhour", f"{wide.start}00", f"{wide.start}59"} <= set(columns):
            return wide
    for one in NARROW:
        if {one.person, one.time, one.value} <= set(columns):
            return one
    for days in DAILY:
        here = {days.person, days.day} <= set(columns)
        if here and any(column in columns for column, _ in days.kept):
            return days
    return None


def read(path: Path, options: ReaderOptions) -> Iterator[Site]:
    """Yield everyone's tables as one site."""
    minutes: list[pa.Table] = []
    days: list[pa.Table] = []
    rejected: dict[str, pa.Table] = {}
    not_read: dict[str, int] = {}
    of_utc: list[str] = []
    for file in _files(path, options.time_zone):
        kind = kind_of(file.columns)
        stem = file.path.name.split(".")[0]
        if kind is None:
            not_read |= _rows_of_another(file)
            continue
        of_utc += file.of_utc()
        check_gzip(file.path)
        if isinstance(kind, Days):
            values, odd = _days(file, kind, options)
            days.append(values)
            not_read |= {f"{name} of {stem}": n for name, n in _other_columns(file, kind).items()}
        else:
            rows, odd = _parted(_readings(file, kind), _channel(kind), options.now_us)
            if rows.num_rows:
                minutes.append(_minutes(rows, _channel(kind), options, file.path.name))
        if odd.num_rows:
            rejected[f"{stem}_impossible"] = odd
    totals, again = stretched(days)
    if not minutes and not totals.num_rows:
        refuse_empty(pa.table({}), path.name)
    devices = {DEVICE: _once(pa.concat_tables(minutes))} if minutes else {}
    yield Site(
        None,
        wearables=devices | ({PER_DAY: totals} if totals.num_rows else {}),
        rejected=rejected | ({"repeated_day": again} if again.num_rows else {}),
        not_read=not_read,
        notices=times_of_utc(of_utc, options.time_zone),
    )


def _rows_of_another(file: TableFile) -> dict[str, int]:
    """Return how many rows a table has that is none of Fitbit's known ones."""
    sql = f"SELECT count(*) AS n FROM {file.source()}"
    (row,) = DuckDBReader().table(sql, file.path).to_pylist()
    return {f"rows of {file.path.name.split('.')[0]}": row["n"]}


def _minutes(rows: pa.Table, channel: str, options: ReaderOptions, where: str) -> pa.Table:
    who = ids(pa.table({"s": linked(rows["person"], options, where)}), "s")
    value = np.asarray(rows["value"].to_numpy(), np.float64)
    return by_day(who, times_us(rows, "time"), value, channel)


def _once(table: pa.Table) -> pa.Table:
    """Return the rows, the first where a subject, day and channel are there twice."""
    again = repeated([ids(table), times_us(table, "start"), coded(table["channel"])[0]])
    return table.filter(pa.array(~again))


def _channel(kind: Minutes | Wide | str) -> str:
    return "SLEEP" if isinstance(kind, str) else kind.channel


def _parted(rows: pa.Table, channel: str, now_us: int) -> tuple[pa.Table, pa.Table]:
    """Return (readings that can be true, the others)."""
    value = np.asarray(rows["value"].fill_null(np.nan).to_numpy(), np.float64)
    known = np.asarray(pc.is_valid(rows["person"]).to_numpy(), np.bool_)
    good = possible(value, times_us(rows, "time"), channel, now_us) & known
    return rows.filter(pa.array(good)), rows.filter(pa.array(~good))


def _readings(file: TableFile, kind: Minutes | Wide | str) -> pa.Table:
    """Return person, time, value of every reading."""
    if isinstance(kind, Wide):
        return _wide(file, kind)
    if isinstance(kind, str):
        return _sleep(file)
    person = f"TRY_CAST({file.column(kind.person)} AS VARCHAR) AS person"
    value = f"TRY_CAST({file.column(kind.value)} AS DOUBLE) AS value"
    time = f"{_stamp(file, kind.time)} AS time"
    return DuckDBReader().table(f"SELECT {person}, {time}, {value} FROM {file.source()}", file.path)


def _wide(file: TableFile, kind: Wide) -> pa.Table:
    """Return a wide table's minutes.

    An export in which ``Date`` stands apart may have lost whether its hours are before or after
    noon (12 PM, 1 AM … 11 AM, 12 PM, 1 AM …): its rows are in order, so an hour that comes the
    second time of a day is an afternoon's, and a noon before a 1 AM is a midnight.
    """
    split = "date" in file.columns
    minutes = ", ".join(
        f"TRY_CAST({file.column(f'{kind.start}{n:02d}')} AS DOUBLE)" for n in range(60)
    )
    hour = _stamp(file, "activityhour")
    if split:
        clock = f"try_strptime({file.column('activityhour')}, '%I:%M:%S %p')"
        hour = f"{_stamp(file, 'date')} + ({clock} - TIMESTAMP '1900-01-01')"
    person = f"TRY_CAST({file.column('id')} AS VARCHAR)"
    rows = DuckDBReader().table(
        f"SELECT {person} AS person, {hour} AS time, [{minutes}] AS value FROM {file.source()}",
        file.path,
    )
    known = np.asarray(rows["time"].is_valid().to_numpy(), np.bool_)
    time = np.asarray(rows["time"].cast(pa.int64()).fill_null(0).to_numpy(), np.int64)
    if split:
        time = _hours_in_order(rows["person"].fill_null("").to_pylist(), time)
    within = np.tile(np.arange(60, dtype=np.int64) * MINUTE_US, len(time))
    every = pa.array(np.repeat(time, 60) + within, pa.int64(), mask=np.repeat(~known, 60))
    return pa.table(
        {
            "person": rows["person"].take(pa.array(np.repeat(np.arange(len(time)), 60))),
            "time": every.cast(pa.timestamp("us")),
            "value": pc.list_flatten(rows["value"]),
        }
    )


def _hours_in_order(person: list[str], time_us: Int64) -> Int64:
    """Return hours put right, see `_wide`.

    Args:
        person: [N] whose row it is.
        time_us: [N] the hour as it is written; rows in the file's order.
    """
    who = np.unique(np.array(person), return_inverse=True)[1].astype(np.int64)
    days, group = np.unique(np.stack([who, time_us // DAY_US]), axis=1, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(group.ravel(), minlength=days.shape[1]))
    fixed = time_us.copy()
    for rows in np.split(order, ends[:-1]):
        fixed[rows] += _shifts(time_us[rows] % DAY_US)
    return fixed


def _shifts(within: Int64) -> Int64:
    """Return what to add to the hours of one day, in the order they stand in the file."""
    half = DAY_US // 2
    again = repeated([within])
    if again.any():
        return within % half + again * half - within
    before_a_morning = np.append(within[1:] < within[:-1], False)
    return np.where(before_a_morning & (within == half), -half, 0).astype(np.int64)


def _sleep(file: TableFile) -> pa.Table:
    """Return the level of every minute asleep: 0 awake, 1 light, 2 REM or asleep, 3 deep."""
    level = " ".join(f"WHEN '{name}' THEN {level}" for name, level in _LEVELS.items())
    person, text, _, length = (file.column(name) for name in _SLEEP)
    sql = (
        f"SELECT person, time + to_minutes(n) AS time, value FROM (SELECT "
        f"TRY_CAST({person} AS VARCHAR) AS person, {_stamp(file, 'start_datetime')} AS time, "
        f"CAST(CASE lower({text}) {level} END AS DOUBLE) AS value, "
        f"least(TRY_CAST({length} AS DOUBLE), 1440) AS minutes FROM {file.source()}), "
        "unnest(range(greatest(coalesce(CAST(ceil(minutes) AS BIGINT), 0), 0))) AS t(n)"
    )
    return DuckDBReader().table(sql, file.path)


def _days(file: TableFile, kind: Days, options: ReaderOptions) -> tuple[pa.Table, pa.Table]:
    """Return a table's (days, those that cannot be true)."""
    channels = {column: channel for column, channel in kind.kept if column in file.columns}
    pieces = kind.pieces if kind.pieces in file.columns else ""
    person, day = file.column(kind.person), _stamp(file, kind.day)
    return day_values(file, person, day, channels, options, pieces=pieces)


def _other_columns(file: TableFile, kind: Days) -> dict[str, int]:
    known = (kind.person, kind.day, kind.pieces, *(column for column, _ in kind.kept))
    return cells_not_read(file, known)


def _stamp(file: TableFile, name: str) -> str:
    formats = ", ".join(f"'{one}'" for one in FORMATS)
    text = f"CAST({file.column(name)} AS VARCHAR)"
    typed = file.is_parquet and not file.is_instant(name)
    exact = f"TRY_CAST({text} AS TIMESTAMP)" if typed else file.cast(name, "TIMESTAMP")
    return f"coalesce({exact}, try_strptime({text}, [{formats}]))"


def _files(path: Path, time_zone: str | None = None) -> list[TableFile]:
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = (file for file in inside if file.is_file() and is_table(file))
    return [TableFile(file, time_zone=time_zone) for file in files]


def sniff(path: Path) -> bool:
    """Whether a file here has the columns of a table of Fitbit's."""
    for file in _files(path):
        try:
            if kind_of(file.columns) is not None:
                return True
        except IngestError:
            continue
    return False


READER = Reader(
    name="fitbit",
    summary="Fitbit: tables of All of Us, or a Fitabase export; one site",
    reads=(
        "steps, heart rate, intensity and sleep by the minute; totals of days: steps, energy, "
        "activity, sleep and its stages"
    ),
    not_read=(
        "rows of other tables and other columns of days are counted, as are readings that cannot "
        "be true"
    ),
    tried_on=(
        "Fitabase exports of 33 people (Furberg et al., Zenodo 53894); All of Us as its "
        "data dictionary has it"
    ),
    sniff=sniff,
    read=read,
    links=True,
)
