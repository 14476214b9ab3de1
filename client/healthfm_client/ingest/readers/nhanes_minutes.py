"""NHANES 2003 to 2006, minute by minute: PAXRAW as a table, or days of 1,440 columns or a list.

PAXRAW has a row per minute (SEQN, PAXN from 1, PAXINTEN), rnhanesdata's tables a row per day (SEQN,
MIN1 … MIN1440, days in order). Counts are kept as they are; a minute that is not given is masked.
Whether the device was worn is not in them: a minute of 0 may be either. Days of a device out of
calibration or not reliable (PAXCAL, PAXSTAT other than 1) are set aside. Dates are as `nhanes` has
them, the first day the day after 1 January of the wave's second year.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.readers.nhanes import DAYS_WORN, EXAM_US
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    check_gzip,
    is_table,
)
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.tables.wearable_minutes import MINUTES
from healthfm_core.arrays import Float32, Float64, Int64
from healthfm_core.data.store.wearables import DAY_US, stretches
from healthfm_core.errors import IngestError

DEVICE: Final = "activity_minute"
CHANNEL: Final = "COUNTS"
WEEK: Final = DAYS_WORN * MINUTES
_LONG: Final = frozenset({"seqn", "paxn", "paxinten"})
_WIDE: Final = frozenset({"seqn", "min1", "min1440"})
_LISTS: Final = frozenset({"subject_id", "counts"})
_WAVE_D: Final = re.compile(r"(_d\b|2005)", re.IGNORECASE)


@dataclass
class Weeks:
    """Everyone's week of minutes.

    Attributes:
        first_us: SEQN → when its first day begins.
        minutes: SEQN → [10080] counts, NaN where there is none.
        days: SEQN → days that came without a number, so far.
        rejected: Reason → rows.
    """

    first_us: dict[int, int] = field(default_factory=dict)
    minutes: dict[int, Float32] = field(default_factory=dict)
    days: dict[int, int] = field(default_factory=dict)
    rejected: dict[str, list[pa.Table]] = field(default_factory=dict)

    def add(self, who: int, wave: int, start: int, counts: Float32) -> None:
        """Write counts into a person's week from minute `start` on."""
        week = self.minutes.setdefault(who, np.full(WEEK, np.nan, np.float32))
        self.first_us.setdefault(who, EXAM_US.get(wave, EXAM_US[3]) + DAY_US)
        week[start : start + len(counts)] = counts

    def reject(self, reason: str, rows: pa.Table) -> None:
        """Keep rows that are not used; a minute's count as a list of one, as a day's are lists."""
        counts = rows["counts"].combine_chunks()
        if not pa.types.is_list(counts.type):
            each = pa.ListArray.from_arrays(
                pa.array(np.arange(len(counts) + 1), pa.int32()), counts
            )
            rows = rows.set_column(rows.column_names.index("counts"), "counts", each)
        self.rejected.setdefault(reason, []).append(rows)


def read(path: Path, options: ReaderOptions) -> Iterator[Site]:
    """Yield everyone as one site."""
    weeks = Weeks()
    for file in _files(path):
        check_gzip(file.path)
        reading = _long if _LONG.issubset(file.columns) else _days
        for rows in _reliable(file, weeks):
            reading(rows, weeks)
    tables = [_table(who, weeks) for who in sorted(weeks.minutes)]
    tables = [table for table in tables if table.num_rows]
    if not tables:
        refuse_empty(pa.table({}), path.name)
    rejected = {
        reason: pa.concat_tables(t, promote_options="permissive")
        for reason, t in weeks.rejected.items()
    }
    yield Site(None, wearables={DEVICE: pa.concat_tables(tables)}, rejected=rejected)


def _table(who: int, weeks: Weeks) -> pa.Table:
    week = weeks.minutes[who].reshape(-1, MINUTES)
    days = np.flatnonzero(np.isfinite(week).any(axis=1))
    start = weeks.first_us[who] + days * DAY_US
    return stretches(np.full(len(days), who, np.int64), start, CHANNEL, 1 / 60, week[days])


def _reliable(file: TableFile, weeks: Weeks) -> Iterator[pa.Table]:
    """Yield who, wave, n and counts of a file's rows; what is not to be used is rejected."""
    wide = _WIDE.issubset(file.columns)
    minutes = [file.column(f"min{n}") for n in range(1, MINUTES + 1)]
    listed = ", ".join(f"TRY_CAST({name} AS FLOAT)" for name in minutes)
    counts = f"[{listed}]" if wide else f"TRY_CAST({file.column('counts')} AS FLOAT[])"
    if _LONG.issubset(file.columns):
        counts = f"TRY_CAST({file.column('paxinten')} AS FLOAT)"
    person = "subject_id" if _LISTS.issubset(file.columns) else "seqn"
    wave = 4 if _WAVE_D.search(file.path.name) else 3
    good = " AND ".join(
        f"coalesce(TRY_CAST({file.column(name)} AS DOUBLE), 1) = 1"
        for name in ("paxcal", "paxstat")
    )
    sql = (
        f"SELECT CAST(TRY_CAST({file.column(person)} AS DOUBLE) AS BIGINT) AS who, "
        f"coalesce(CAST(TRY_CAST({file.column('sddsrvyr')} AS DOUBLE) AS BIGINT), {wave}) AS wave, "
        f"CAST(TRY_CAST({file.column('paxn')} AS DOUBLE) AS BIGINT) AS n, {counts} AS counts, "
        f"{good} AS good FROM {file.source()}"
    )
    for rows in DuckDBReader().batches(sql, file.path):
        usable = pc.and_(rows["good"], pc.is_valid(rows["who"]))
        odd = rows.filter(pc.invert(usable))
        if odd.num_rows:
            weeks.reject("not_reliable", odd)
        yield rows.filter(usable)


def _long(rows: pa.Table, weeks: Weeks) -> None:
    n = np.asarray(rows["n"].fill_null(0).to_numpy(), np.int64)
    inside = (n >= 1) & (n <= WEEK)
    if not inside.all():
        weeks.reject("beyond_the_week", rows.filter(pa.array(~inside)))
    who = np.asarray(rows["who"].to_numpy(), np.int64)[inside]
    counts = np.asarray(rows["counts"].fill_null(np.nan).to_numpy(), np.float32)[inside]
    wave, n = np.asarray(rows["wave"].to_numpy(), np.int64)[inside], n[inside]
    for one in np.unique(who):
        its = who == one
        weeks.add(int(one), int(wave[its][0]), 0, np.zeros(0, np.float32))
        weeks.minutes[int(one)][n[its] - 1] = counts[its]


def _days(rows: pa.Table, weeks: Weeks) -> None:
    everyone: Int64 = np.asarray(rows["who"].to_numpy(), np.int64)
    for row, who in enumerate(everyone.tolist()):
        day = weeks.days.get(who, 0)
        weeks.days[who] = day + 1
        counts = _numbers(rows["counts"][row].values)
        if day >= DAYS_WORN or len(counts) != MINUTES:
            weeks.reject("beyond_the_week", rows.slice(row, 1))
        else:
            wave = int(rows["wave"][row].as_py())
            weeks.add(who, wave, day * MINUTES, np.asarray(counts, np.float32))


def _numbers(cells: pa.Array | None) -> Float64:
    """Return a day's counts, none of one that is null."""
    if cells is None:
        return np.zeros(0)
    return np.asarray(cells.fill_null(np.nan).to_numpy(zero_copy_only=False), np.float64)


def _files(path: Path) -> list[TableFile]:
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [TableFile(f) for f in inside if f.is_file() and is_table(f) and _is_minutes(f)]


def _is_minutes(file: Path) -> bool:
    try:
        columns = set(TableFile(file).columns)
    except IngestError:
        return False
    return any(wanted <= columns for wanted in (_LONG, _WIDE, _LISTS))


def sniff(path: Path) -> bool:
    """Whether there is a table of minutes here, and not the whole study's people beside it."""
    beside = path.is_dir() and any(path.glob("subjects_*.parquet"))
    return not beside and bool(_files(path))


READER = Reader(
    name="nhanes_minutes",
    summary="NHANES 2003-2006 minutes: PAXRAW as a table, or a row per day; one site",
    reads="activity counts by the minute",
    not_read="days of a device that was not reliable and minutes beyond the week are counted",
    tried_on="50 people of NHANES 2003-2004",
    sniff=sniff,
    read=read,
)
