"""Oura: an account's export as CSV between semicolons or as JSON, a folder or .zip of each person.

Public code that reads real exports agrees on the form: a file of each kind (``sleepmodel.csv``,
``dailyactivity.csv``, ``heartrate.csv``, ``dailyspo2.csv``) with the names of Oura's API, lists as
JSON in a cell; as JSON the same lists below ``sleep``, ``daily_activity`` and so on, with the API's
names, or those of its first version. Stages are one digit for five minutes from the beginning of
the night (1 deep, 2 light, 3 REM, 4 awake), METs one for a minute from the beginning of the day.
These times have an offset; heart rates by day are UTC's, and are brought to the wall's clock as the
nights and days around them tell it, or by ``--time-zone``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from pydantic import Field

from healthfm_client.ingest.person_wearing import (
    LEVELS,
    Night,
    PersonWearing,
    WallClock,
    ahead_by,
    as_it_is,
    wearing_stream,
)
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.tables.csv_texts import csv_texts
from healthfm_client.ingest.tables.json_values import (
    NO_JSON,
    list_of,
    mapping_of,
    number_of,
    numbers_of,
    plain,
    text_of,
)
from healthfm_client.ingest.tables.local_time import clock_us, times_of_utc
from healthfm_client.ingest.tables.person_files import (
    FILE_AT_MOST,
    PersonFile,
    contents,
    head_of,
    people_files,
    some_file,
)
from healthfm_client.ingest.tables.wearable_minutes import MINUTE_US
from healthfm_core.arrays import Int64
from healthfm_core.data.store.wearables import DAY_US, SECOND_US

DEVICE: Final = "oura"
INSIDE: Final = frozenset({"app data", "oura", "data"})
SLEEP, ACTIVITY, HEART, SPO2 = "sleep", "activity", "heartrate", "spo2"
_KINDS: Final = {
    "sleepmodel": SLEEP,
    "sleep": SLEEP,
    "dailyactivity": ACTIVITY,
    "activity": ACTIVITY,
    "heartrate": HEART,
    "dailyspo2": SPO2,
}
"""Name of a file or of a list in JSON, without what joins its words → kind."""
_OTHERS: Final = frozenset(
    {
        *("dailysleep", "dailyreadiness", "readiness", "dailystress", "daytimestress", "vo2max"),
        *("dailyresilience", "dailycardiovascularage", "temperature", "sleeptime", "session"),
        *("workout", "enhancedtag", "tag", "ringbatterylevel", "ringconfiguration", "restmode"),
        *("personalinfo", "profile", "bedtime", "idealbedtimes", "restmodeperiod"),
    }
)
_STAGES: Final = {
    "1": LEVELS["deep"],
    "2": LEVELS["light"],
    "3": LEVELS["rem"],
    "4": LEVELS["wake"],
}
_EPOCH_US: Final = 5 * MINUTE_US
_LONGEST_NIGHT: Final = 24 * 12
_LONGEST_DAY: Final = 25 * 60
_WORN_MET: Final = 0.5
"""METs under this are a ring that nobody wears; who lies still has about one."""
_NOT_ASLEEP: Final = ("deleted", "rest")
_OLD_SLEEP: Final = {
    "summary_date": "day",
    "hypnogram_5min": "sleep_phase_5_min",
    "total": "total_sleep_duration",
    "duration": "time_in_bed",
    "awake": "awake_time",
    "light": "light_sleep_duration",
    "deep": "deep_sleep_duration",
    "rem": "rem_sleep_duration",
    "rmssd": "average_hrv",
    "hr_lowest": "lowest_heart_rate",
    "breath_average": "average_breath",
}
"""Names of the API's first version → those of today."""
_OLD_ACTIVITY: Final = {
    "summary_date": "day",
    "cal_active": "active_calories",
    "cal_total": "total_calories",
}
_SLEEP_DAYS: Final = {
    "total_sleep_duration": "ASLEEP_DAY",
    "time_in_bed": "IN_BED_DAY",
    "awake_time": "AWAKE_DAY",
    "light_sleep_duration": "LIGHT_SLEEP_DAY",
    "deep_sleep_duration": "DEEP_SLEEP_DAY",
    "rem_sleep_duration": "REM_SLEEP_DAY",
}
_OF_THE_NIGHT: Final = {
    "average_hrv": "HRV_DAY",
    "lowest_heart_rate": "RESTING_HR_DAY",
    "average_breath": "RESPIRATORY_RATE_DAY",
}
_ACTIVITY_DAYS: Final = {
    "steps": ("STEPS_DAY", 1.0),
    "active_calories": ("ACTIVE_ENERGY_DAY", 1.0),
    "total_calories": ("ENERGY_DAY", 1.0),
    "sedentary_time": ("SEDENTARY_DAY", 1 / 60),
    "low_activity_time": ("LIGHTLY_ACTIVE_DAY", 1 / 60),
    "medium_activity_time": ("FAIRLY_ACTIVE_DAY", 1 / 60),
    "high_activity_time": ("VERY_ACTIVE_DAY", 1 / 60),
    "inactive": ("SEDENTARY_DAY", 1.0),
    "low": ("LIGHTLY_ACTIVE_DAY", 1.0),
    "medium": ("FAIRLY_ACTIVE_DAY", 1.0),
    "high": ("VERY_ACTIVE_DAY", 1.0),
}
"""Today's names in seconds, the first version's in minutes."""
_ANY: Final = msgspec.json.Decoder()
Record = Mapping[str, Any]


class OuraOptions(ReaderOptions):
    """Options of ``oura``."""

    person: str | None = Field(
        None, min_length=1, description="whose all of it is [the folder or .zip of each]"
    )


@dataclass
class Ring:
    """What one person's ring says, as far as it is of another record than the one that is read.

    Attributes:
        one: What is read of the person.
        zone: See `ReaderOptions.time_zone`.
        seen: Records that were read: kind, and id or beginning.
        heart: Heart rates, which wait until all offsets are known.
        ahead: µs of UTC → how far the wall's clock was ahead.
    """

    one: PersonWearing
    zone: str | None
    seen: set[tuple[str, Any]] = field(default_factory=set)
    heart: list[Record] = field(default_factory=list)
    ahead: dict[int, int] = field(default_factory=dict)

    def take(self, kind: str, records: Sequence[Any]) -> None:
        """Take the records of one list."""
        for said in records:
            record = mapping_of(said)
            if kind == HEART:
                self.heart.append(record)
                continue
            name = text_of(record.get("id")) or text_of(record.get("bedtime_start"))
            name = name or text_of(record.get("day")) or text_of(record.get("summary_date"))
            if name is None or (kind, name) in self.seen:
                self.one.not_read["record without a day, or there twice"] += 1
                continue
            self.seen.add((kind, name))
            if kind == SLEEP:
                self._sleep(_renamed(record, _OLD_SLEEP))
            elif kind == ACTIVITY:
                self._activity(_renamed(record, _OLD_ACTIVITY))
            else:
                self._day(record, {"SPO2_DAY": _average(record.get("spo2_percentage"))})

    def end(self) -> None:
        """Take the heart rates, at the clock that the nights and days around them tell."""
        texts = [text_of(record.get("timestamp")) for record in self.heart]
        utc = [clock_us(text, "UTC") for text in texts]
        bpm = numbers_of([record.get("bpm") for record in self.heart])
        known = np.array([at is not None for at in utc], np.bool_) & np.isfinite(bpm)
        self.one.not_read["reading without a number or a time"] += int((~known).sum())
        time = np.array([at or 0 for at in utc], np.int64)
        self.one.readings("HR", time[known], bpm[known], self._wall(texts, time))

    def _wall(self, texts: Sequence[str | None], utc: Int64) -> WallClock:
        if self.zone is None and self.ahead:
            return ahead_by(*(np.array(list(of), np.int64) for of in _columns(self.ahead)))
        if not len(utc):
            return as_it_is
        wall = [clock_us(text, self.zone) for text in texts]
        ahead = np.array([0 if at is None else at for at in wall], np.int64) - utc
        return ahead_by(utc, np.where([at is None for at in wall], 0, ahead))

    def _span(self, text: str | None) -> tuple[int, int] | None:
        """Return (µs of UTC, how far the wall's clock was ahead) of a time with an offset."""
        utc, wall = clock_us(text, "UTC"), clock_us(text, self.zone)
        if utc is None or wall is None:
            return None
        self.ahead[utc] = wall - utc
        return utc, wall - utc

    def _sleep(self, record: Record) -> None:
        if record.get("type") in _NOT_ASLEEP:
            self.one.not_read["sleep that Oura took back"] += 1
            return
        span = self._span(text_of(record.get("bedtime_start")))
        stages = _digits(record.get("sleep_phase_5_min"))[:_LONGEST_NIGHT]
        if span is None or not self._night(span, stages):
            self.one.not_read["sleep without stages"] += 1
        if span is not None:
            self._series("HR", record.get("heart_rate"), record.get("hr_5min"), span)
        values = {name: number_of(record.get(name)) / 60 for name in _SLEEP_DAYS}
        self._day(record, {_SLEEP_DAYS[name]: of for name, of in values.items()}, add=True)
        if record.get("type", "long_sleep") == "long_sleep" and record.get("is_longest", 1):
            of_night = {c: number_of(record.get(name)) for name, c in _OF_THE_NIGHT.items()}
            self._day(record, {c: value for c, value in of_night.items() if value != 0})

    def _night(self, span: tuple[int, int], stages: str) -> bool:
        level = np.array([_STAGES.get(digit, np.nan) for digit in stages], np.float64)
        start = span[0] + np.arange(len(level)) * _EPOCH_US
        known = np.isfinite(level)
        rank = np.zeros(int(known.sum()), np.int64)
        ends = start[known] + _EPOCH_US
        return self.one.night(Night(start[known], ends, level[known], rank, span[1]))

    def _activity(self, record: Record) -> None:
        self._day(
            record,
            {
                channel: number_of(record[name]) * factor
                for name, (channel, factor) in _ACTIVITY_DAYS.items()
                if name in record
            },
        )
        begin = text_of(record.get("timestamp")) or text_of(record.get("day_start"))
        span = self._span(begin)
        if span is not None:
            self._series("MET", record.get("met"), record.get("met_1min"), span)

    def _series(self, channel: str, now: Any, before: Any, span: tuple[int, int]) -> None:
        """Add a list of readings that follow each other from a beginning on.

        Args:
            channel: What was measured.
            now: An object with ``interval`` (s), ``items`` and ``timestamp``, or it as JSON.
            before: The list alone, of the first version.
            span: When the record begins, and how far the wall's clock was ahead.
        """
        inner = mapping_of(_decoded(now))
        every = number_of(inner.get("interval")) if inner else 60.0 if channel == "MET" else 300.0
        items = list_of(inner.get("items")) or list_of(_decoded(before))
        span = self._span(text_of(inner.get("timestamp"))) or span
        if not 1 <= every <= 3600 or not items:
            return
        value = numbers_of(items[:_LONGEST_DAY])
        start = span[0] + np.rint(np.arange(len(value)) * every * SECOND_US).astype(np.int64)
        known = np.isfinite(value) & (value != 0)
        if channel == "MET":
            self.one.not_read["minutes in which the ring was not worn"] += int(
                (known & (value < _WORN_MET)).sum()
            )
            known &= value >= _WORN_MET
        ends = start + round(every * SECOND_US)
        self.one.lasting(channel, start[known], ends[known], value[known], lambda t: t + span[1])

    def _day(self, record: Record, said: Mapping[str, float], *, add: bool = False) -> None:
        day_us = clock_us(text_of(record.get("day")), None)
        for channel, value in said.items():
            if day_us is not None and np.isfinite(value):
                self.one.day(channel, day_us // DAY_US, value, add=add)


def read(path: Path, options: OuraOptions) -> Iterator[Site]:
    """Yield everyone's exports as one site."""
    people = people_files(path, INSIDE, _is_read, options.person)

    def take(one: PersonWearing, name: str) -> None:
        ring = Ring(one, options.time_zone)
        for file, text in contents(people.files(name), FILE_AT_MOST):
            _take(ring, file, text)
        ring.end()

    alone = any(_is_without_offset(people.files(name)) for name in people.of)
    yield Site(
        None,
        wearing=wearing_stream(path.name, list(people.of), options, DEVICE, take),
        not_read={"files of nobody": people.others},
        notices=(
            *times_of_utc(["heartrate.csv, timestamp"] if alone else [], options.time_zone),
            *people.notices(),
        ),
    )


def _take(ring: Ring, file: PersonFile, text: bytes | None) -> None:
    """Take what one file says."""
    name, _, ending = file.name.rpartition(".")
    kind = _kind(name)
    if ending not in ("csv", "json", "zip"):
        ring.one.not_read["other files"] += 1
    elif text is None or ending == "zip":
        ring.one.unreadable(kind)
    elif ending == "json":
        _take_json(ring, kind, text)
    elif (table := csv_texts(text)) is None:
        ring.one.unreadable(kind)
    else:
        ring.one.not_read["line that is no row"] += table.malformed
        _take_list(ring, kind, table.rows.to_pylist())


def _take_json(ring: Ring, kind: str, text: bytes) -> None:
    try:
        whole = _ANY.decode(plain(text))
    except NO_JSON:
        ring.one.unreadable(kind)
        return
    if isinstance(whole, list):
        _take_list(ring, kind, whole)
    for name, records in mapping_of(whole).items():
        inner = mapping_of(records).get("data", records)
        _take_list(ring, kind if name == "data" else _kind(name), list_of(inner))


def _take_list(ring: Ring, kind: str, records: Sequence[Any]) -> None:
    if kind in _KINDS.values():
        ring.take(kind, records)
    elif records:
        ring.one.not_read[f"records of {kind}"] += len(records)


def _kind(name: str) -> str:
    """Return the kind that a file or a list is by its name, or what it is called if not read."""
    joined = re.sub(r"^oura|[^a-z0-9]|\d{4,}", "", name.lower())
    return _KINDS.get(joined, joined if joined in _OTHERS else "another kind")


def _renamed(record: Record, names: Mapping[str, str]) -> Record:
    """Return a record under today's names, which hold where there are both."""
    return {names.get(name, name): value for name, value in record.items()} | {
        name: value for name, value in record.items() if name not in names
    }


def _average(value: Any) -> float:
    """Return a number, or the average in an object."""
    inner = _decoded(value)
    return number_of(mapping_of(inner).get("average") if isinstance(inner, dict) else inner)


def _decoded(value: Any) -> Any:
    """Return what a text of JSON says; any other value as it is."""
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        return _ANY.decode(value)
    except NO_JSON:
        return None


def _digits(value: Any) -> str:
    return value.strip('"') if isinstance(value, str) else ""


def _columns(ahead: Mapping[int, int]) -> tuple[list[int], list[int]]:
    return list(ahead), list(ahead.values())


def _is_without_offset(files: Sequence[PersonFile]) -> bool:
    """Whether a person's heart rates stand alone: nothing else says what the wall's clock was."""
    kinds = {_kind(file.name.rpartition(".")[0]) for file in files}
    return HEART in kinds and not kinds & {SLEEP, ACTIVITY}


def _is_read(file: PersonFile) -> bool:
    name, _, ending = file.name.rpartition(".")
    if ending == "csv" and _kind(name) in _KINDS.values():
        head = head_of(file).split(b"\n", 1)[0].lower()
        return b";" in head and (b"day" in head or b"bpm" in head)
    if ending != "json":
        return False
    head = head_of(file)
    own = (b'"bedtime_start"', b'"class_5_min"', b'"class_5min"')
    return any(word in head for word in own) or (b'"bpm"' in head and b'"timestamp"' in head)


def sniff(path: Path) -> bool:
    """Whether there is an export of a ring here, in a .zip or not."""
    return some_file(path, _is_read)


READER = Reader(
    name="oura",
    summary="Oura: folders or .zips of the account's CSV or JSON, one of each person; one site",
    reads=(
        "heart rate, METs and stages of sleep by the minute; days of steps, energy, activity, "
        "sleep, and of the night's HRV, heart rate, respiration and SpO2"
    ),
    not_read=(
        "scores, stress, temperature, tags, workouts, sleep that Oura took back: counted, as are "
        "minutes in which the ring was not worn"
    ),
    tried_on="exports that the tests write as public code describes them; none of a real person",
    sniff=sniff,
    read=read,
    options=OuraOptions,
    links=True,
    opens_archives=True,
)
