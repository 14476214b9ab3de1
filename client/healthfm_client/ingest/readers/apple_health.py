"""Apple Health's export.xml, read as a stream: one person, named by an option.

Heart rate, steps and sleep become days of 1,440 minutes, steps spread over the minutes they were
counted in; other quantities MEDS rows ``HK//BodyMass//kg`` at their start, workouts
``HK//Workout:Running//s`` at their end. Where two devices counted at the same time, one is taken:
the watch, then the telephone, then others, or the order of an option (Apple's own order is the
person's, and not in the export). Each record says its offset; the clock it was made on is kept.
Entities are refused, since an export declares none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.parsers import expat

import numpy as np
import pyarrow as pa
from pydantic import Field

from healthfm_client.ingest.codes.distinct_codes import joined, tidy
from healthfm_client.ingest.codes.healthkit_units import of_healthkit
from healthfm_client.ingest.event_site import event_site
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.ingest.tables.duckdb_reader import unreadable
from healthfm_client.ingest.tables.local_time import clock_us
from healthfm_client.ingest.tables.overlapping_sources import Counted, by_minute, share_left
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.tables.wearable_minutes import MINUTE_US, by_day, possible
from healthfm_core.arrays import Float64, Int64
from healthfm_core.data.store.events import as_float32
from healthfm_core.errors import ConfigError, IngestError

DEVICE: Final = "apple"
_CHUNK: Final = 1 << 20
_QUANTITY: Final = "HKQuantityTypeIdentifier"
_CATEGORY: Final = "HKCategoryTypeIdentifier"
_CHARACTERISTIC: Final = "HKCharacteristicTypeIdentifier"
_SLEEP: Final = "HKCategoryValueSleepAnalysis"
_ACTIVITY: Final = "HKWorkoutActivityType"
_TOP_LEVEL: Final = 2
"""Depth of a record; one inside a Correlation is there at the top level too."""
_SUMMED: Final = frozenset(
    {"StepCount", "FlightsClimbed", "PushCount", "SwimmingStrokeCount", "NikeFuel"}
    | {f"Distance{way}" for way in ("WalkingRunning", "Cycling", "Swimming", "Wheelchair")}
    | {"ActiveEnergyBurned", "BasalEnergyBurned"}
    | {f"Apple{what}Time" for what in ("Exercise", "Stand", "Move")}
)
"""Quantities that devices count, so that those of two at one time must not be added."""
_STAGES: Final = {
    "Awake": 0.0,
    "AsleepCore": 1.0,
    "Asleep": 2.0,
    "AsleepUnspecified": 2.0,
    "AsleepREM": 2.0,
    "AsleepDeep": 3.0,
}
"""Stage of sleep → level, as Fitbit's are; core sleep is light."""
_SEXES: Final = {"Female": "F", "Male": "M", "Other": "OTHER"}
_LONGEST_US: Final = 24 * 60 * MINUTE_US
_TEXT_AT_MOST: Final = 4096


class AppleOptions(ReaderOptions):
    """Options of ``apple_health``."""

    person: str = Field("1", min_length=1, description="whose export it is: an id of the site's")
    sources: tuple[str, ...] = Field(
        (), description="names of sources, preferred ones first [watch, telephone, others]"
    )


@dataclass
class Stretches:
    """Records of one kind: from when to when, how much, of which source."""

    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    source: list[int] = field(default_factory=list)

    def counted(self, rank: Int64) -> Counted:
        """Return them as arrays, one that is there twice once.

        Args:
            rank: [S] the rank of each source.
        """
        start = np.array(self.start, np.int64)
        end = np.maximum(np.array(self.end, np.int64), start + 1)
        value = np.array(self.value, np.float64)
        source = np.array(self.source, np.int64)
        once = np.unique(np.stack([start, end, value.view(np.int64), source]), axis=1)
        return Counted(once[0], once[1], once[2].view(np.float64), rank[once[3]])


@dataclass
class Records:
    """What an export says.

    Attributes:
        time_zone: See `ReaderOptions`.
        heart_rate: (start, end, value) of each.
        summed: Kind → what devices counted of it, in its unit of a store.
        units: Kind → that unit.
        sleep: Levels.
        events: (time or None, code, value) of all else.
        sources: Name of each source → (its number, 0 for a watch, 1 a telephone, 2 neither).
        not_read: Kind → how many.
        unreadable: Records without a number or a time.
        depth: Of the element that is being read.
    """

    time_zone: str | None = None
    heart_rate: list[tuple[int, int, float]] = field(default_factory=list)
    summed: dict[str, Stretches] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    sleep: Stretches = field(default_factory=Stretches)
    events: list[tuple[int | None, str, float]] = field(default_factory=list)
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)
    not_read: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    depth: int = 0

    def take(self, name: str, said: dict[str, str]) -> None:
        """Take one element as it begins."""
        self.depth += 1
        if self.depth != _TOP_LEVEL or name in ("ExportDate", "Correlation"):
            return
        if name == "Me":
            self._person(said)
        elif name == "Workout":
            self._workout(said)
        elif name == "Record":
            self._record(said)
        else:
            self.not_read[tidy(name)] += 1

    def leave(self, name: str) -> None:
        """Note that an element ends."""
        self.depth -= 1

    def _person(self, said: dict[str, str]) -> None:
        born = clock_us(said.get(f"{_CHARACTERISTIC}DateOfBirth"), self.time_zone)
        sex = said.get(f"{_CHARACTERISTIC}BiologicalSex", "").removeprefix("HKBiologicalSex")
        if born is not None:
            self.events.append((born, "MEDS_BIRTH", np.nan))
        if sex in _SEXES:
            self.events.append((None, joined("Gender", _SEXES[sex]), np.nan))

    def _workout(self, said: dict[str, str]) -> None:
        span = self._span(said)
        if span is None:
            return
        kind = tidy(said.get("workoutActivityType", "").removeprefix(_ACTIVITY))[:_TEXT_AT_MOST]
        seconds = (span[1] - span[0]) / 1e6
        self.events.append((span[1], joined("HK", f"Workout:{kind or 'Other'}", "s"), seconds))

    def _record(self, said: dict[str, str]) -> None:
        kind = said.get("type", "")
        if kind == f"{_CATEGORY}SleepAnalysis":
            self._sleep(said)
        elif kind.startswith(_QUANTITY):
            self._quantity(tidy(kind.removeprefix(_QUANTITY)), said)
        else:
            self.not_read[tidy(kind.removeprefix(_CATEGORY)) or "Record"] += 1

    def _sleep(self, said: dict[str, str]) -> None:
        level = _STAGES.get(said.get("value", "").removeprefix(_SLEEP))
        if level is None:
            self.not_read["SleepAnalysis other than asleep or awake"] += 1
        elif (span := self._span(said)) is not None:
            self._stretch(self.sleep, span, level, said)

    def _quantity(self, what: str, said: dict[str, str]) -> None:
        try:
            value = float(said.get("value", "")[:64])
        except ValueError:
            self.unreadable += 1
            return
        span = self._span(said)
        if span is None:
            return
        if what == "HeartRate":
            self.heart_rate.append((*span, value))
            return
        unit = of_healthkit(said.get("unit", "")[:_TEXT_AT_MOST])
        value = value * unit.factor + unit.offset
        if what in _SUMMED:
            self.units[what] = unit.name
            self._stretch(self.summed.setdefault(what, Stretches()), span, value, said)
        else:
            self.events.append((span[0], joined("HK", what, unit.name), value))

    def _span(self, said: dict[str, str]) -> tuple[int, int] | None:
        """Return from when to when, None and counted where it does not say."""
        start = clock_us(said.get("startDate"), self.time_zone)
        end = clock_us(said.get("endDate"), self.time_zone) or start
        if start is None or end is None or not 0 <= end - start <= _LONGEST_US:
            self.unreadable += 1
            return None
        return start, end

    def _stretch(
        self, of: Stretches, span: tuple[int, int], value: float, said: dict[str, str]
    ) -> None:
        name = said.get("sourceName", "")
        if name not in self.sources:
            about = f"{name} {said.get('device', '')}".lower()
            telephone = "iphone" in about or "ipod" in about
            kind = 0 if "watch" in about else 1 if telephone else 2
            self.sources[name] = (len(self.sources), kind)
        of.start.append(span[0])
        of.end.append(span[1])
        of.value.append(value)
        of.source.append(self.sources[name][0])

    def rank(self, preferred: tuple[str, ...]) -> Int64:
        """Return [S] the rank of each source, 0 for the one that is preferred to all.

        Raises:
            ConfigError: HF-102 for a name that no record has.
        """
        unknown = [name for name in preferred if name not in self.sources]
        if unknown:
            raise ConfigError(
                102,
                where="apple_health, option sources",
                seen=f"no record is of {unknown[0]}",
                wanted=f"one of {', '.join(sorted(self.sources)) or 'none'} is wanted",
                do="Correct the option",
            )
        order = {name: place for place, name in enumerate(preferred)}
        keys = [
            (order.get(name, len(order)), kind, name) for name, (_, kind) in self.sources.items()
        ]
        place = {key: rank for rank, key in enumerate(sorted(keys))}
        return np.array([place[key] for key in keys], np.int64)


def read(path: Path, options: AppleOptions) -> Iterator[Site]:
    """Yield the one person's site."""
    file = _file(path)
    if not file.is_file():
        raise IngestError(301, where=path.name, seen="there is no export.xml in it")
    records = _records(file, options.time_zone)
    rank = records.rank(options.sources)
    (subject,) = numbers([options.person], options, file.name)
    wearables, rejected = [], {}
    for channel, (time, value) in _minutes(records, rank).items():
        good = possible(value, time, channel, options.now_us)
        if good.any():
            who = np.full(int(good.sum()), subject, np.int64)
            wearables.append(by_day(who, time[good], value[good], channel))
        if not good.all():
            odd = {"time": time[~good], "value": value[~good]}
            rejected[f"impossible_{channel.lower()}"] = pa.table(odd)
    if records.unreadable:
        rejected["unreadable_record"] = pa.table({"records": [records.unreadable]})
    site = _events(records, int(subject), options.now_us) if records.events else None
    if not wearables and site is None:
        refuse_empty(pa.table({}), file.name)
    yield Site(
        None,
        events=None if site is None else site.events,
        wearables={DEVICE: pa.concat_tables(wearables)} if wearables else {},
        rejected=rejected | (dict(site.rejected) if site else {}),
        not_read=dict(records.not_read),
    )


def _minutes(records: Records, rank: Int64) -> dict[str, tuple[Int64, Float64]]:
    """Return channel → (the beginnings of minutes in µs, what was measured in each).

    A heart rate that was measured over several minutes is that of each of them.
    """
    found = {}
    if records.heart_rate:
        start, end, value = np.array(records.heart_rate, np.float64).T
        first, last = start // MINUTE_US, np.maximum(start, end - 1) // MINUTE_US
        times = (last - first + 1).astype(np.int64)
        within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
        minute = np.repeat(first.astype(np.int64), times) + within
        found["HR"] = (minute * MINUTE_US, np.repeat(value, times))
    if records.sleep.start:
        found["SLEEP"] = by_minute(records.sleep.counted(rank), MINUTE_US, level=True)
    steps = _summed(records, rank)
    if steps is not None:
        found["STEPS"] = by_minute(steps, MINUTE_US)
    return found


def _summed(records: Records, rank: Int64) -> Counted | None:
    """Return the steps, and add what devices counted else to the events.

    What a preferred source counted too is left out, and how many records that are is noted.
    """
    steps = None
    for what, stretches in sorted(records.summed.items()):
        counted = stretches.counted(rank)
        left = share_left(counted)
        records.not_read[f"{what} of a second source"] += int((left == 0).sum())
        if what == "StepCount":
            steps = counted
            continue
        code, some = joined("HK", what, records.units[what]), left > 0
        rows = zip(counted.start[some].tolist(), (counted.value * left)[some].tolist(), strict=True)
        records.events += [(start, code, value) for start, value in rows]
    return steps


def _events(records: Records, subject: int, now_us: int) -> Site:
    table = pa.table(
        {
            "subject_id": pa.array([subject] * len(records.events), pa.int64()),
            "time": pa.array([at for at, _, _ in records.events], pa.timestamp("us")),
            "code": pa.array([code for _, code, _ in records.events], pa.string()),
            "numeric_value": pa.array(
                as_float32(np.array([n for *_, n in records.events])), from_pandas=True
            ),
        }
    )
    return event_site(None, table, now_us=now_us)


def _records(file: Path, time_zone: str | None) -> Records:
    """Return what a file's records say; nothing of the tree is kept.

    Raises:
        IngestError: HF-303 for what is no whole XML, HF-310 for entities.
    """
    records = Records(time_zone=time_zone)

    def entity(*_: object) -> None:
        raise IngestError(
            310,
            where=file.name,
            seen="it declares entities",
            wanted="an export declares none",
            do="Export it again from the Health app",
        )

    parser = expat.ParserCreate()
    parser.StartElementHandler = records.take
    parser.EndElementHandler = records.leave
    parser.EntityDeclHandler = entity
    try:
        with file.open("rb") as raw:
            while chunk := raw.read(_CHUNK):
                parser.Parse(chunk, False)
            parser.Parse(b"", True)
    except (expat.ExpatError, OSError, ValueError, LookupError) as error:
        raise unreadable(file, "it is cut off or no XML") from error
    return records


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    inside = sorted(path.rglob("export.xml"))
    return inside[0] if inside else path / "export.xml"


def sniff(path: Path) -> bool:
    """Whether there is an XML file of HealthData."""
    file = _file(path)
    if not file.is_file() or file.suffix.lower() != ".xml":
        return False
    with file.open("rb") as raw:
        return b"HealthData" in raw.read(4096)


READER = Reader(
    name="apple_health",
    summary="Apple Health's export.xml of one person",
    reads=(
        "heart rate, steps and stages of sleep by the minute, of several devices at one time one; "
        "other quantities (`HKQuantityType…`) in one unit each, workouts, birth and sex"
    ),
    not_read=(
        "other categories (symptoms, mindfulness), time in bed, ECG, clinical records, daily "
        "totals, routes: counted, as is what a second device counted at the same time"
    ),
    tried_on="exports that the tests write, after Apple's own; none of a real person",
    sniff=sniff,
    read=read,
    options=AppleOptions,
    links=True,
)
