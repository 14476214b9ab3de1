"""UK Biobank's wrist accelerometer: processed time series (CSV).

A time series is what the `accelerometer` tool writes, and UK Biobank's field 90004: its first line
gives start, end and rate, or each row its time; a row is milli-g and whether it was imputed, which
is no reading. The eid begins the file's name, ``1234567_90004_0_0.csv.gz``. Minutes are means of
what was read in them. Times are the clock at the start of the week: where summer time begins or
ends in it, the series with a first line goes on by the old clock, that with times by the new. Raw
.cwa files are read by `accelerometer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pydantic import Field

from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.ingest.tables.duckdb_reader import (
    DuckDBReader,
    TableFile,
    check_gzip,
    is_table,
    unreadable,
)
from healthfm_client.ingest.tables.local_time import clock_us
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.tables.wearable_minutes import by_day, possible
from healthfm_core.arrays import Float64, Int64
from healthfm_core.data.store.events import STATIC_TIME, times_us
from healthfm_core.data.store.wearables import SECOND_US, hourly_summaries
from healthfm_core.errors import IngestError

DEVICE: Final = "axivity"
CHANNEL: Final = "ACCELERATION"
_HEADER: Final = re.compile(
    r"acceleration \(mg\) - (?P<start>[\d :.-]{19,26}) - (?P<end>[\d :.-]{19,26})"
    r" - samplerate = (?P<every_s>[\d.]+) seconds"
)
_EID: Final = re.compile(r"(\d+)_")
Readings = tuple[Int64, Float64]


class AccelerometerOptions(ReaderOptions):
    """Options of ``ukb_accelerometer``."""

    person: str | None = Field(None, description="whose file it is, where its name does not say")
    summaries: bool = Field(True, description="hourly means as MEDS rows too")


def read(path: Path, options: AccelerometerOptions) -> Iterator[Site]:
    """Yield everyone's files as one site."""
    files = list(_files(path))
    refuse_empty(pa.table({"file": [file.name for file in files]}), path.name)
    people = [_person(file, options.person if len(files) == 1 else None) for file in files]
    names = sorted(set(people))
    subject = dict(zip(names, numbers(names, options, path.name).tolist(), strict=True))
    tables, odd = [], []
    for name in names:
        its = [file for file, person in zip(files, people, strict=True) if person == name]
        readings = [_readings(file) for file in its]
        time = np.concatenate([times for times, _ in readings])
        value = np.concatenate([values for _, values in readings])
        good = possible(value, time, CHANNEL, options.now_us)
        if not good.all():
            odd.append(_set_aside(subject[name], time[~good], value[~good]))
        who = np.full(int(good.sum()), subject[name], np.int64)
        if good.any():
            tables.append(by_day(who, time[good], value[good], CHANNEL))
    if not tables:
        refuse_empty(pa.table({}), path.name)
    wearable = pa.concat_tables(tables)
    yield Site(
        None,
        events=hourly_summaries(wearable, {CHANNEL: "mg"}) if options.summaries else None,
        wearables={DEVICE: wearable},
        rejected={"impossible_reading": pa.concat_tables(odd)} if odd else {},
    )


def _set_aside(subject: int, time: Int64, value: Float64) -> pa.Table:
    who = pa.array(np.full(len(time), subject, np.int64))
    stamp = pa.array(time).cast(pa.timestamp("us"))
    return pa.table({"subject_id": who, "time": stamp, "milli_g": value})


def _person(file: Path, given: str | None) -> str:
    """Return whose file it is.

    Raises:
        IngestError: HF-305 where neither the name nor an option says it.
    """
    eid = _EID.match(file.name)
    if given is None and eid is None:
        raise IngestError(
            305,
            where="a file of accelerometer readings",
            seen="its name does not begin with a person's number and _",
            wanted="names as UK Biobank gives them are wanted: 1234567_90004_0_0.csv.gz",
            do="Rename the file, or read it by itself with --person",
        )
    return given or str(eid[1] if eid else "")


def _readings(file: Path) -> Readings:
    """Return (time in µs, milli-g) of what was read and not imputed.

    Raises:
        IngestError: HF-303, HF-310.
    """
    check_gzip(file)
    table = TableFile(file)
    column = next(name for name in table.columns if _is_acceleration(name))
    imputed = f"coalesce(TRY_CAST({table.column('imputed')} AS DOUBLE), 0) > 0"
    value = f"CASE WHEN NOT ({imputed}) THEN TRY_CAST({table.column(column)} AS DOUBLE) END"
    time = f"TRY_CAST(substr(CAST({table.column('time')} AS VARCHAR), 1, 19) AS TIMESTAMP)"
    rows = DuckDBReader().table(
        f"SELECT {time} AS time, {value} AS value FROM {table.source()}", file
    )
    mg = np.asarray(rows["value"].fill_null(np.nan).to_numpy(), np.float64)
    time_us = _stated(file, column, len(mg))
    if time_us is None:
        time_us = times_us(rows.set_column(0, "time", rows["time"].cast(pa.timestamp("us"))))
    known = np.isfinite(mg) & (time_us != STATIC_TIME)
    return time_us[known], mg[known]


def _stated(file: Path, header: str, count: int) -> Int64 | None:
    """Return each row's time as the first line states it; None where that gives none.

    Raises:
        IngestError: HF-303 where it states another number of rows.
    """
    times = _HEADER.match(header)
    if times is None:
        return None
    start, end = (clock_us(times[side].strip(), None) for side in ("start", "end"))
    every_us = round(float(times["every_s"]) * SECOND_US)
    if start is None or end is None or every_us <= 0:
        raise unreadable(file, "its first line gives no start, end and rate")
    stated = (end - start) // every_us + 1
    if stated != count:
        raise unreadable(file, f"its first line speaks of {stated} readings, there are {count}")
    return start + every_us * np.arange(count, dtype=np.int64)


def _is_acceleration(name: str) -> bool:
    return name == "acc" or _HEADER.match(name) is not None


def _is_series(file: Path) -> bool:
    try:
        columns = TableFile(file).columns
    except IngestError:
        return False
    channels = [name for name in columns if _is_acceleration(name)]
    return bool(channels) and ("time" in columns or channels[0] != "acc")


def _files(path: Path) -> Iterator[Path]:
    inside = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in (f for f in inside if f.is_file() and not f.name.startswith(".")):
        if is_table(file) and _is_series(file):
            yield file


def sniff(path: Path) -> bool:
    """Whether there is a time series here."""
    return any(True for _ in _files(path))


READER = Reader(
    name="ukb_accelerometer",
    summary="UK Biobank's accelerometer: processed time series; raw .cwa: `accelerometer`",
    reads="milli-g by the minute",
    not_read="imputed readings; readings that cannot be true are counted",
    tried_on="files that the tests write after UK Biobank's field 90004; none of a real person",
    sniff=sniff,
    read=read,
    options=AccelerometerOptions,
    links=True,
)
