"""Apple Health's export.xml, read as a stream: one person, named by an option.

Heart rate and steps become days of 1,440 minutes, steps spread over the minutes they were counted
in; other quantities MEDS rows ``HK//BodyMass//kg`` at their start. Each record says its offset; the
clock it was made on is kept. Entities are refused, since an export declares none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.parsers import expat

import numpy as np
import pyarrow as pa
from pydantic import Field

from healthfm_client.ingest.codes.distinct_codes import joined, tidy
from healthfm_client.ingest.codes.units import canonical
from healthfm_client.ingest.event_site import event_site
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.subject_linking import numbers
from healthfm_client.ingest.tables.duckdb_reader import unreadable
from healthfm_client.ingest.tables.local_time import clock_us
from healthfm_client.ingest.tables.parquet_columns import refuse_empty
from healthfm_client.ingest.tables.wearable_minutes import MINUTE_US, by_day, possible
from healthfm_core.data.store.events import as_float32
from healthfm_core.errors import IngestError

DEVICE: Final = "apple"
_CHUNK: Final = 1 << 20
_QUANTITY: Final = "HKQuantityTypeIdentifier"
_MINUTES: Final = {"HeartRate": "HR", "StepCount": "STEPS"}
_LONGEST_US: Final = 24 * 60 * MINUTE_US
_TEXT_AT_MOST: Final = 4096


class AppleOptions(ReaderOptions):
    """Options of ``apple_health``."""

    person: str = Field("1", min_length=1, description="whose export it is: an id of the site's")


@dataclass
class Records:
    """What the records say: readings by channel, events, and how many could not be read."""

    readings: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    events: list[tuple[int, str, float]] = field(default_factory=list)
    unreadable: int = 0
    time_zone: str | None = None

    def take(self, name: str, said: dict[str, str]) -> None:
        """Take one element."""
        kind = said.get("type", "")
        if name != "Record" or not kind.startswith(_QUANTITY):
            return
        start = clock_us(said.get("startDate"), self.time_zone)
        end = clock_us(said.get("endDate"), self.time_zone) or start
        try:
            value = float(said.get("value", "")[:64])
        except ValueError:
            start = None
        if start is None or end is None or not 0 <= end - start <= _LONGEST_US:
            self.unreadable += 1
            return
        what = kind.removeprefix(_QUANTITY)
        if what in _MINUTES:
            self._spread(_MINUTES[what], start, end, value)
        else:
            unit = canonical(said.get("unit", "")[:_TEXT_AT_MOST])
            number = value * unit.factor + unit.offset
            self.events.append((start, joined("HK", tidy(what), unit.name), number))

    def _spread(self, channel: str, start: int, end: int, value: float) -> None:
        first, last = start // MINUTE_US, max(start, end - 1) // MINUTE_US
        each = value / (last - first + 1) if channel == "STEPS" else value
        minutes = self.readings.setdefault(channel, [])
        minutes += [(minute * MINUTE_US, each) for minute in range(first, last + 1)]


def read(path: Path, options: AppleOptions) -> Iterator[Site]:
    """Yield the one person's site."""
    file = _file(path)
    records = _records(file, options.time_zone)
    (subject,) = numbers([options.person], options, file.name)
    wearables, rejected = [], {}
    for channel, readings in sorted(records.readings.items()):
        time = np.array([at for at, _ in readings], np.int64)
        value = np.array([number for _, number in readings], np.float64)
        good = possible(value, time, channel, options.now_us)
        if good.any():
            who = np.full(int(good.sum()), subject, np.int64)
            wearables.append(_days(who, time[good], value[good], channel))
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
    )


def _days(who: np.ndarray, time: np.ndarray, value: np.ndarray, channel: str) -> pa.Table:
    """Return days; steps of one minute from several records add up, heart rates average."""
    if channel == "STEPS":
        minutes, at = np.unique(time, return_inverse=True)
        value, time, who = np.bincount(at, weights=value), minutes, who[: len(minutes)]
    return by_day(who, time, value, channel)


def _events(records: Records, subject: int, now_us: int) -> Site:
    table = pa.table(
        {
            "subject_id": pa.array([subject] * len(records.events), pa.int64()),
            "time": pa.array([at for at, _, _ in records.events], pa.timestamp("us")),
            "code": pa.array([code for _, code, _ in records.events], pa.string()),
            "numeric_value": pa.array(as_float32(np.array([n for *_, n in records.events]))),
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
        "heart rate and steps by the minute, other quantities (`HKQuantityType…`) as events "
        "in their unit"
    ),
    not_read=(
        "what is no quantity: sleep, workouts, ECG, clinical records, the birth date and "
        "sex of `Me`; records without a number or a time are counted"
    ),
    tried_on="exports that the tests write, after Apple's own; none of a real person",
    sniff=sniff,
    read=read,
    options=AppleOptions,
    links=True,
)
