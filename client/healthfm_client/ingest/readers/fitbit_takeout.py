"""Fitbit from Google Takeout: the JSON files of ``Fitbit/Global Export Data``, or of Fitbit's own.

Public code that reads real exports (in the issues and repositories of fitbit2oscar, fitout and the
like) agrees on what is in them: ``steps-`` and ``heart_rate-2020-01-31.json`` have a row per minute
or reading at times of UTC (``01/31/20 23:59:00``); ``calories-`` one per minute and the totals of
days stand on the clock that was worn, as does ``sleep-`` (ISO). The person's zone is in
``Your Profile/Profile.csv``; without it, and without ``--time-zone``, UTC is kept and that is said.
Days after the last are padded with 1,440 sedentary minutes, days without a resting heart rate have
0, and a heart rate of confidence 0 was measured on nobody's skin. ``Physical Activity_GoogleData``
has the same readings again as CSV and is not read.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from healthfm_client.ingest.person_wearing import (
    LEVELS,
    Night,
    PersonWearing,
    WallClock,
    wearing_stream,
)
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.tables.json_values import (
    NO_JSON,
    list_of,
    mapping_of,
    number_of,
    numbers_of,
    plain,
    text_of,
)
from healthfm_client.ingest.tables.local_time import clock_us, times_of_utc, wall_us
from healthfm_client.ingest.tables.person_files import (
    FILE_AT_MOST,
    PersonFile,
    contents,
    people_files,
    some_file,
)
from healthfm_client.ingest.tables.wearable_minutes import MINUTES
from healthfm_core.arrays import Bool, Float64, Int64
from healthfm_core.data.store.events import times_us
from healthfm_core.data.store.wearables import DAY_US

DEVICE: Final = "fitbit"
INSIDE: Final = frozenset(
    {
        *("takeout", "fitbit", "google health", "global export data", "user-site-export"),
        *("physical activity", "sleep", "personal & account", "your profile", "heart"),
        *("physical activity_googledata", "health fitness data_googledata", "sleep score"),
        *("heart rate variability", "oxygen saturation (spo2)", "active zone minutes (azm)"),
        *("temperature", "stress score", "daily readiness", "menstrual health", "biometrics"),
        *("snore and noise detect", "mindfulness", "nutrition", "social", "activity goals"),
        *("paired devices", "atrial fibrillation ppg", "hydration", "application"),
    }
)
_NAME: Final = re.compile(r"(?P<kind>[a-z0-9_]+)-\d{4}-\d{2}-\d{2}\.json")
_PROFILE: Final = "profile.csv"
_PROFILE_AT_MOST: Final = 1 << 16
_DAYS: Final = {
    "sedentary_minutes": "SEDENTARY_DAY",
    "lightly_active_minutes": "LIGHTLY_ACTIVE_DAY",
    "moderately_active_minutes": "FAIRLY_ACTIVE_DAY",
    "very_active_minutes": "VERY_ACTIVE_DAY",
}
_READ: Final = frozenset({"steps", "heart_rate", "calories", "resting_heart_rate", "sleep", *_DAYS})
_OTHERS: Final = frozenset(
    {
        *("altitude", "distance", "exercise", "weight", "height", "swim_lengths_data", "badge"),
        *("time_in_heart_rate_zones", "demographic_vo2_max", "run_vo2_max", "food_logs"),
        *("estimated_oxygen_variation", "water_logs", "active_zone_minutes", "body_temperature"),
    }
)
"""Kinds of file that are not read, by the name that the summary gives them."""
_STAGES: Final = {**LEVELS, "awake": LEVELS["wake"], "restless": LEVELS["light"]}
_SLEEP_DAYS: Final = {
    "minutesAsleep": "ASLEEP_DAY",
    "timeInBed": "IN_BED_DAY",
    "minutesAwake": "AWAKE_DAY",
}
_STAGE_DAYS: Final = {
    "light": "LIGHT_SLEEP_DAY",
    "deep": "DEEP_SLEEP_DAY",
    "rem": "REM_SLEEP_DAY",
}


class TakeoutOptions(ReaderOptions):
    """Options of ``fitbit_takeout``."""

    person: str | None = Field(
        None, min_length=1, description="whose all of it is [the folder or .zip of each]"
    )


class HeartRate(msgspec.Struct):
    """A reading of the heart."""

    bpm: Any = None
    confidence: Any = None


class Reading(msgspec.Struct):
    """A row of most files: a time and a value; of any types, since few are sure."""

    dateTime: Any = None
    value: Any = None


class HeartReading(msgspec.Struct):
    """A row of a file of heart rates."""

    dateTime: str
    value: HeartRate


class SleepLog(msgspec.Struct):
    """One sleep."""

    logId: Any = None
    dateOfSleep: Any = None
    minutesAsleep: Any = None
    timeInBed: Any = None
    minutesAwake: Any = None
    levels: Any = None


_READINGS: Final = msgspec.json.Decoder(list[Reading])
_HEART: Final = msgspec.json.Decoder(list[HeartReading])
_SLEEPS: Final = msgspec.json.Decoder(list[SleepLog])
_ANY: Final = msgspec.json.Decoder(list[msgspec.Raw])


def read(path: Path, options: TakeoutOptions) -> Iterator[Site]:
    """Yield everyone's exports as one site."""
    people = people_files(path, INSIDE, _is_read, options.person)
    zones = {name: options.time_zone or _zone_of(people.files(name)) for name in people.of}
    of_utc = ["steps-….json, dateTime", "heart_rate-….json, dateTime"]

    def take(one: PersonWearing, name: str) -> None:
        _person(one, people.files(name), zones[name], set())

    yield Site(
        None,
        wearing=wearing_stream(path.name, list(people.of), options, DEVICE, take),
        not_read={"files of nobody": people.others},
        notices=(
            *(times_of_utc(of_utc, options.time_zone) if None in zones.values() else ()),
            *people.notices(),
        ),
    )


def _person(
    one: PersonWearing, files: Sequence[PersonFile], zone: str | None, logs: set[Any]
) -> None:
    wall = partial(wall_us, zone=zone)
    for file, text in contents(files, FILE_AT_MOST):
        _take(one, file, text, wall, logs)
    _days_of_calories(one)


def _take(
    one: PersonWearing, file: PersonFile, text: bytes | None, wall: WallClock, logs: set[Any]
) -> None:
    """Take what one file says."""
    match = _NAME.fullmatch(file.name)
    kind = match["kind"] if match else ""
    if not file.name.endswith((".json", ".zip")):
        if file.name != _PROFILE:
            one.not_read[f"files in {file.folder}" if file.folder in INSIDE else "other files"] += 1
        return
    named = kind if kind in _READ | _OTHERS else "another kind"
    try:
        if text is None:
            one.unreadable(named)
        elif kind not in _READ:
            one.not_read[f"records of {named}"] += len(_ANY.decode(plain(text)))
        elif kind == "sleep":
            _take_sleep(one, _SLEEPS.decode(plain(text)), logs)
        elif kind == "heart_rate":
            _take_heart_rate(one, plain(text), wall)
        else:
            _take_readings(one, kind, _READINGS.decode(plain(text)), wall)
    except NO_JSON:
        one.unreadable(named)


def _take_heart_rate(one: PersonWearing, text: bytes, wall: WallClock) -> None:
    try:
        rows = _HEART.decode(text)
        time, value = [row.dateTime for row in rows], [row.value.bpm for row in rows]
        sure = [row.value.confidence for row in rows]
    except msgspec.ValidationError:
        odd = _READINGS.decode(text)
        time = [row.dateTime for row in odd]
        inner = [mapping_of(row.value) for row in odd]
        value, sure = [of.get("bpm") for of in inner], [of.get("confidence") for of in inner]
    confidence = numbers_of(sure)
    on_skin = ~(confidence == 0)
    one.not_read["heart rate of confidence 0"] += int((~on_skin).sum())
    when, bpm = _times(time), numbers_of(value)
    known = _known(one, when, bpm) & on_skin
    one.readings("HR", when[known], bpm[known], wall)


def _take_readings(one: PersonWearing, kind: str, rows: list[Reading], wall: WallClock) -> None:
    when = _times([row.dateTime for row in rows])
    values: list[Any] = [row.value for row in rows]
    if kind == "resting_heart_rate":
        values = [of.get("value") if isinstance(of, dict) else of for of in values]
    value = numbers_of(values)
    known = _known(one, when, value)
    when, value = when[known], value[known]
    if kind == "steps":
        one.readings("STEPS", when, value, wall)
    elif kind == "calories":
        one.readings("ENERGY", when, value)
    else:
        channel = _DAYS.get(kind, "RESTING_HR_DAY")
        empty = value == (MINUTES if channel == "SEDENTARY_DAY" else 0)
        if channel in ("SEDENTARY_DAY", "RESTING_HR_DAY"):
            one.not_read[f"days of {kind} without wearing"] += int(empty.sum())
            when, value = when[~empty], value[~empty]
        for day, of_day in zip((when // DAY_US).tolist(), value.tolist(), strict=True):
            one.day(channel, day, of_day)


def _known(one: PersonWearing, when: Int64, value: Float64) -> Bool:
    """Return where a row has a time and a number, and count the others."""
    known = (when != _NO_TIME) & np.isfinite(value)
    one.not_read["reading without a number or a time"] += int((~known).sum())
    return np.asarray(known)


def _days_of_calories(one: PersonWearing) -> None:
    """Add up the minutes of energy of days that have all of them."""
    time, kcal = one.held("ENERGY")
    days, at, minutes = np.unique(time // DAY_US, return_inverse=True, return_counts=True)
    total = np.bincount(at, weights=kcal, minlength=len(days))
    for day, sum_, count in zip(days.tolist(), total.tolist(), minutes.tolist(), strict=True):
        if count == MINUTES:
            one.day("ENERGY_DAY", day, sum_)
        else:
            one.not_read["days of calories that are not whole"] += 1


def _take_sleep(one: PersonWearing, rows: list[SleepLog], logs: set[Any]) -> None:
    for row in rows:
        name = row.logId if isinstance(row.logId, int | str) else None
        if name is not None and name in logs:
            one.not_read["sleep that is there twice"] += 1
            continue
        logs.add(name)
        night = _night(row)
        if night is None or not one.night(night):
            one.not_read["sleep without stages"] += 1
        _days_of_sleep(one, row)


def _night(row: SleepLog) -> Night | None:
    """Return a sleep's stages; short times awake hold against the longer stages around them."""
    levels = mapping_of(row.levels)
    found: list[tuple[int, int, float, int]] = []
    for rank, name in enumerate(("shortData", "data")):
        for piece in list_of(levels.get(name)):
            said = mapping_of(piece)
            start = clock_us(text_of(said.get("dateTime")), None)
            seconds = number_of(said.get("seconds"))
            level = _STAGES.get(text_of(said.get("level")) or "")
            if start is None or level is None or not 0 < seconds <= 86_400:
                return None
            found.append((start, start + round(seconds * 1e6), level, rank))
    if not found:
        return None
    start_us, end_us, stage, ranks = (np.array(column) for column in zip(*found, strict=True))
    return Night(start_us, end_us, stage.astype(np.float64), ranks)


def _days_of_sleep(one: PersonWearing, row: SleepLog) -> None:
    """Add the minutes of a sleep to those of its day; naps add up."""
    day_us = clock_us(text_of(row.dateOfSleep), None)
    if day_us is None:
        one.not_read["sleep without a day"] += 1
        return
    summary = mapping_of(mapping_of(row.levels).get("summary"))
    said = {channel: getattr(row, name) for name, channel in _SLEEP_DAYS.items()}
    for stage, channel in _STAGE_DAYS.items():
        said[channel] = mapping_of(summary.get(stage)).get("minutes")
    values = numbers_of(list(said.values()))
    for channel, value in zip(said, values.tolist(), strict=True):
        if np.isfinite(value):
            one.day(channel, day_us // DAY_US, value, add=True)


_NO_TIME: Final = np.iinfo(np.int64).min


def _times(texts: list[Any]) -> Int64:
    """Return times like ``01/31/20 23:59:00`` in µs since 1970, `_NO_TIME` where one is none."""
    form = "%m/%d/%y %H:%M:%S"
    strings = pa.array([text if isinstance(text, str) else None for text in texts], pa.string())
    parsed = pc.strptime(strings, format=form, unit="us", error_is_null=True)
    return times_us(pa.table({"time": parsed.cast(pa.timestamp("us"))}))


def _zone_of(files: Sequence[PersonFile]) -> str | None:
    """Return the zone that a person's profile names, None where it names none that there is."""
    profiles = [file for file in files if file.name == _PROFILE]
    for _, text in contents(profiles, _PROFILE_AT_MOST):
        lines = (text or b"").decode("utf-8-sig", errors="replace").splitlines()
        try:
            rows = list(csv.DictReader(lines[:10]))
            return ZoneInfo(str(rows[0].get("timezone"))).key
        except (csv.Error, IndexError, KeyError, ValueError, OSError):
            continue
    return None


def _is_read(file: PersonFile) -> bool:
    match = _NAME.fullmatch(file.name)
    return match is not None and match["kind"] in _READ


def sniff(path: Path) -> bool:
    """Whether there is a file of steps, heart rates or sleep here, in a .zip or not."""
    return some_file(path, _is_read)


READER = Reader(
    name="fitbit_takeout",
    summary="Fitbit from Google Takeout: folders or .zips of JSON, one of each person; one site",
    reads=(
        "steps, heart rate and sleep by the minute; totals of days: energy, activity, resting "
        "heart rate, sleep and its stages; the person's time zone"
    ),
    not_read=(
        "exercise, distance, weight, zones, SpO2, temperature, HRV and the CSV of "
        "`…_GoogleData`, which has the same again: counted, as are heart rates of confidence 0"
    ),
    tried_on="exports that the tests write as public code describes them; none of a real person",
    sniff=sniff,
    read=read,
    options=TakeoutOptions,
    links=True,
    opens_archives=True,
)
