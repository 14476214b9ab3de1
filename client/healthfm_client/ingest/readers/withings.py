"""Withings: the CSV files of "Download my data", a folder or .zip of each person.

Public code that reads real exports, and the README in each of them, agree on the form: the files
``raw_<device>_<what>.csv`` have the columns ``start,duration,value``, the second and third lists
of as many seconds and values: steps in them, beats/min, stages of sleep (0 awake, 1 light, 2 deep,
3 REM). ``sleep.csv`` has seconds of stages by night, ``aggregates_steps.csv`` the steps of days;
these times have an offset. ``weight.csv`` and ``bp.csv`` are on the clock that was worn, a unit in
the header; they become events. The words of headers are in the language of the account, so that
columns are found by their place and their unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from pydantic import Field

from healthfm_client.ingest.codes.units import canonical
from healthfm_client.ingest.event_site import event_site
from healthfm_client.ingest.person_wearing import (
    LEVELS,
    PersonWearing,
    WallClock,
    ahead_by,
    wearing_stream,
)
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.ingest.tables.csv_texts import csv_texts
from healthfm_client.ingest.tables.json_values import number_of
from healthfm_client.ingest.tables.local_time import clock_us
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.tables.person_files import (
    FILE_AT_MOST,
    PeopleFiles,
    PersonFile,
    contents,
    people_files,
    some_file,
)
from healthfm_core.arrays import Float64, Int64
from healthfm_core.data.store.wearables import DAY_US, SECOND_US

DEVICE: Final = "withings"
INSIDE: Final = frozenset({"withings"})
_RAW: Final = re.compile(r"raw_(?P<device>[a-z0-9-]+)_(?P<what>[a-z0-9 _-]+)\.csv")
_READ: Final = frozenset({"steps", "hr", "sleep-state"})
_RAW_OTHERS: Final = frozenset(
    {
        *(
            "calories-earned",
            "distance",
            "elevation",
            "lap-pool",
            "altitude",
            "direction",
            "snoring",
        ),
        *("gps-speed", "horizontal-radius", "vertical-radius", "latitude", "longitude", "spo2"),
        *("quality_score", "respiratory-rate"),
    }
)
_OTHERS: Final = frozenset(
    {
        *("aggregates_calories-earned", "aggregates_calories-passive", "aggregates_distance"),
        *("aggregates_elevation", "activities", "height", "signal", "spo2", "pwv", "ecg"),
    }
)
"""Files that are not read, by the name that the summary gives them; others are "another kind"."""
_OF_EVENTS: Final = frozenset({"weight.csv", "bp.csv"})
_WHOLE: Final = frozenset({"sleep", "aggregates_steps", "weight", "bp"})
_STATES: Final = {0: LEVELS["wake"], 1: LEVELS["light"], 2: LEVELS["deep"], 3: LEVELS["rem"]}
_NIGHTS: Final = (
    ("LIGHT_SLEEP_DAY", 2),
    ("DEEP_SLEEP_DAY", 3),
    ("REM_SLEEP_DAY", 4),
    ("AWAKE_DAY", 5),
)
"""Channel → place of its column in ``sleep.csv``, in seconds, behind from and to."""
_UNIT: Final = re.compile(r"\((?P<unit>[^()]+)\)$")
_WEIGHT: Final = "LOINC//29463-7//kg"
_PRESSURES: Final = {"sys": "LOINC//8480-6//mm[Hg]", "dia": "LOINC//8462-4//mm[Hg]"}
"""What the header of a blood pressure begins with in any of the account's languages → code."""
_LISTS: Final = msgspec.json.Decoder(list[float])


class WithingsOptions(ReaderOptions):
    """Options of ``withings``."""

    person: str | None = Field(
        None, min_length=1, description="whose all of it is [the folder or .zip of each]"
    )


def read(path: Path, options: WithingsOptions) -> Iterator[Site]:
    """Yield everyone's exports as one site."""
    people = people_files(path, INSIDE, _is_read, options.person)
    events, odd = _events(path, people, options)

    def take(one: PersonWearing, name: str) -> None:
        nights: set[tuple[int, int]] = set()
        for file, text in contents(people.files(name), FILE_AT_MOST):
            _take(one, file, text, options.time_zone, nights)

    site = event_site(None, events, now_us=options.now_us) if events.num_rows else None
    yield Site(
        None,
        events=None if site is None else site.events,
        wearing=wearing_stream(
            path.name, list(people.of), options, DEVICE, take, alone=site is None
        ),
        rejected={} if site is None else site.rejected,
        not_read={"files of nobody": people.others, "measurement without a number or a time": odd},
        notices=people.notices(),
    )


def _take(
    one: PersonWearing,
    file: PersonFile,
    text: bytes | None,
    zone: str | None,
    nights: set[tuple[int, int]],
) -> None:
    """Take what one file says of wearing."""
    raw = _RAW.fullmatch(file.name)
    what = raw["what"] if raw else file.name.removesuffix(".csv")
    if not file.name.endswith((".csv", ".zip")):
        one.not_read["other files"] += 1
        return
    kind = what if what in _READ | _RAW_OTHERS | _OTHERS | _WHOLE else ""
    table = None if text is None else csv_texts(text)
    if table is None:
        one.unreadable(kind or "another kind")
        return
    one.not_read["line that is no row"] += table.malformed
    if raw and kind in _READ:
        _take_raw(one, kind, table.rows, zone)
    elif kind == "sleep":
        _take_nights(one, table.rows, zone, nights)
    elif kind == "aggregates_steps":
        _take_days(one, table.rows)
    elif file.name not in _OF_EVENTS:
        one.not_read[f"records of {kind or 'another kind'}"] += table.rows.num_rows


def _take_raw(one: PersonWearing, what: str, rows: pa.Table, zone: str | None) -> None:
    start, end, value, wall = _pieces(one, rows, zone)
    if not len(start):
        return
    if what == "steps":
        one.counted("STEPS", start, end, value, wall)
    elif what == "hr":
        one.lasting("HR", start, end, value, wall)
    else:
        level = np.array([_STATES.get(state, np.nan) for state in value.tolist()])
        one.stages(start, end, level, wall)


def _pieces(
    one: PersonWearing, rows: pa.Table, zone: str | None
) -> tuple[Int64, Int64, Float64, WallClock]:
    """Return ([N] starts and [N] ends in µs of UTC, [N] values, the wall's clock)."""
    begins, ahead, counts = [], [], []
    seconds: list[float] = []
    values: list[float] = []
    columns = [column.to_pylist() for column in rows.columns[:3]]
    for at, lasts, holds in zip(*columns, strict=True) if len(columns) == 3 else ():
        utc, wall = clock_us(at, "UTC"), clock_us(at, zone)
        duration, value = _list(lasts), _list(holds)
        sound = len(duration) == len(value) and all(0 <= s <= _LONGEST_S for s in duration)
        if utc is None or wall is None or not duration or not sound:
            one.not_read["reading without a number or a time"] += 1
            continue
        begins.append(utc)
        ahead.append(wall - utc)
        counts.append(len(duration))
        seconds += duration
        values += value
    begin = np.array(begins, np.int64)
    lasting = np.rint(np.array(seconds) * SECOND_US).astype(np.int64)
    first = np.cumsum([0, *counts])[:-1]
    until = np.cumsum(lasting)
    before = until - lasting
    start = np.repeat(begin, counts) + before - np.repeat(before[first], counts)
    clock = ahead_by(begin, np.array(ahead, np.int64))
    return start, start + lasting, np.array(values, np.float64), clock


_LONGEST_S: Final = 86_400


def _list(text: str) -> list[float]:
    """Return the numbers of a list in JSON, or the one number; none of anything else."""
    try:
        return _LISTS.decode(text if text.startswith("[") else f"[{text}]")
    except (msgspec.DecodeError, RecursionError):
        return []


def _take_nights(
    one: PersonWearing, rows: pa.Table, zone: str | None, nights: set[tuple[int, int]]
) -> None:
    """Take the minutes of stages of each night for the day on which it ends."""
    if not all(name.endswith("(s)") for name in rows.column_names[2:5]) or len(rows.columns) < 6:
        one.unreadable("sleep")
        return
    cells = [column.to_pylist() for column in rows.columns[:6]]
    for row in zip(*cells, strict=True):
        begins, ends = (clock_us(text, zone) for text in row[:2])
        if begins is None or ends is None:
            one.not_read["sleep without a day"] += 1
        elif (begins, ends) in nights:
            one.not_read["sleep that is there twice"] += 1
        else:
            nights.add((begins, ends))
            said = {channel: number_of(row[at]) / 60 for channel, at in _NIGHTS}
            asleep = np.nansum([of for channel, of in said.items() if channel != "AWAKE_DAY"])
            for channel, minutes in {**said, "ASLEEP_DAY": float(asleep)}.items():
                if np.isfinite(minutes):
                    one.day(channel, ends // DAY_US, minutes, add=True)


def _take_days(one: PersonWearing, rows: pa.Table) -> None:
    cells = [column.to_pylist() for column in rows.columns[:2]]
    for day, steps in zip(*cells, strict=True) if len(cells) == 2 else ():
        at, value = clock_us(day, None), number_of(steps)
        if at is None or not np.isfinite(value):
            one.not_read["reading without a number or a time"] += 1
        else:
            one.day("STEPS_DAY", at // DAY_US, value)


def _events(path: Path, people: PeopleFiles, options: WithingsOptions) -> tuple[pa.Table, int]:
    """Return (weights and blood pressures of everyone, how many have no number or no time)."""
    names = list(people.of)
    refuse_empty(pa.table({"person": pa.array(names, pa.string())}), path.name)
    who: list[int] = []
    when: list[int] = []
    codes: list[str] = []
    values: list[float] = []
    odd = 0
    subjects = numbers(names, options, path.name).tolist()
    for subject, name in zip(subjects, names, strict=True):
        wanted = [file for file in people.files(name) if file.name in _OF_EVENTS]
        seen: set[tuple[int, str]] = set()
        for _, text in contents(wanted, FILE_AT_MOST):
            table = None if text is None else csv_texts(text)
            for at, code, value in () if table is None else _measured(table.rows):
                if at is None or not np.isfinite(value):
                    odd += 1
                elif (at, code) not in seen:
                    seen.add((at, code))
                    who.append(subject)
                    when.append(at)
                    codes.append(code)
                    values.append(value)
    columns = {
        "subject_id": pa.array(who, pa.int64()),
        "time": pa.array(when, pa.timestamp("us")),
        "code": pa.array(codes, pa.string()),
        "numeric_value": pa.array(values, pa.float32()),
    }
    return pa.table(columns), odd


def _measured(rows: pa.Table) -> Iterator[tuple[int | None, str, float]]:
    """Yield (µs, code, value) of a table of weights or of blood pressures; empty cells are none."""
    times = [clock_us(text.strip(), None) for text in rows.column(0).to_pylist()]
    for name, column in zip(rows.column_names[1:], rows.columns[1:], strict=True):
        found = _UNIT.search(name)
        unit = canonical(found["unit"]) if found else None
        code = _PRESSURES.get(name[:3])
        if unit is not None and unit.name == "kg" and name == rows.column_names[1]:
            code = _WEIGHT
        if code is None:
            continue
        factor = unit.factor if unit is not None and code == _WEIGHT else 1.0
        for at, text in zip(times, column.to_pylist(), strict=True):
            if text.strip():
                yield at, code, number_of(text) * factor


def _is_read(file: PersonFile) -> bool:
    raw = _RAW.fullmatch(file.name)
    return (raw is not None and raw["what"] in _READ) or file.name == "aggregates_steps.csv"


def sniff(path: Path) -> bool:
    """Whether there is a file of steps, heart rates or stages of sleep here, in a .zip or not."""
    return some_file(path, _is_read)


READER = Reader(
    name="withings",
    summary="Withings: folders or .zips of the CSV of an account, one of each person; one site",
    reads=(
        "steps, heart rate and stages of sleep by the minute, of several devices at one time one; "
        "steps and sleep of days; weight and blood pressure as LOINC codes"
    ),
    not_read=(
        "distance, energy, elevation, positions, SpO2, respiration, ECG, workouts, fat and other "
        "masses: counted, but for the columns beside a weight"
    ),
    tried_on="exports that the tests write as public code describes them; none of a real person",
    sniff=sniff,
    read=read,
    options=WithingsOptions,
    links=True,
    opens_archives=True,
)
