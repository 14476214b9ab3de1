"""Heart-failure patients with a week of minute-level activity (the tidyfun ``chf`` data).

Days are named, not dated: each week is put to begin on Monday, 2001-01-01.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pydantic import Field

from healthfm_client.ingest.codes.shared_spellings import sex_code
from healthfm_client.ingest.event_site import event_site
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.tables.parquet_columns import (
    ColumnKind,
    has_columns,
    read_columns,
    refuse_empty,
    refuse_nulls,
    series,
)
from healthfm_client.ingest.tables.wearable_minutes import MINUTES
from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.wearables import DAY_US, hourly_summaries, stretches
from healthfm_core.errors import IngestError

MONDAY_US: Final = 978_307_200 * 1_000_000
"""2001-01-01."""
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
OLDEST_YEARS: Final = 130.0
DEVICE: Final = "activity_minute"
CHANNEL: Final = "log_activity"
TASKS: Final = {"hospitalisation": "Hospitalization", "emergency_room": "Emergency Room"}
"""Task → the first event of the follow-up, all of which comes after the week that was worn."""

_COLUMNS: Final = {
    "id": ColumnKind.INTEGER,
    "gender": ColumnKind.TEXT,
    "age": ColumnKind.NUMBER,
    "bmi": ColumnKind.NUMBER,
    "event_type": ColumnKind.TEXT,
    "day": ColumnKind.TEXT,
    "log_activity": ColumnKind.SERIES,
}


class ActigraphyOptions(ReaderOptions):
    """Options of ``chf_actigraphy``."""

    summaries: bool = Field(True, description="hourly means as MEDS rows too")


def read(path: Path, options: ActigraphyOptions) -> Iterator[Site]:
    """Yield the one site: a row of 1440 minutes per person-day, and the first event as labels."""
    file = _file(path)
    days = read_columns(file, _COLUMNS)
    refuse_empty(days, file.name)
    refuse_nulls(days, ["id", "day"], file.name)
    wearable = _minutes(days, file.name)
    subject, first = np.unique(ids(days, "id"), return_index=True)
    people = days.take(pa.array(first))
    events = _events(people, subject)
    if options.summaries:
        events = pa.concat_tables(
            [events, hourly_summaries(wearable, {CHANNEL: "log_counts"}).drop(["text_value"])]
        )
    site = event_site(None, events, now_us=options.now_us)
    after = np.full(len(subject), MONDAY_US + len(DAYS) * DAY_US, np.int64)
    kind = np.asarray(people["event_type"].fill_null("").to_pylist())
    yield Site(
        name=None,
        events=site.events,
        wearables={DEVICE: wearable},
        labels={task: label_table(subject, after, kind == name) for task, name in TASKS.items()},
        rejected=site.rejected,
    )


def _minutes(days: pa.Table, where: str) -> pa.Table:
    names = np.asarray(days["day"].to_pylist())
    if not np.isin(names, DAYS).all():
        raise IngestError(
            308,
            where=where,
            seen='column "day" holds other words than the days of the week',
            wanted=f"one of {', '.join(DAYS)} is wanted",
        )
    weekday = np.select([names == day for day in DAYS], list(range(len(DAYS))))
    start = MONDAY_US + weekday.astype(np.int64) * DAY_US
    value = series(days, "log_activity", MINUTES, where)
    return stretches(ids(days, "id"), start, CHANNEL, 1 / 60, value)


def _events(people: pa.Table, subject: Int64) -> pa.Table:
    size = len(subject)
    monday = np.full(size, MONDAY_US, np.int64)
    age = np.asarray(people["age"].fill_null(np.nan).to_numpy(), np.float64)
    possible = (age >= 0) & (age <= OLDEST_YEARS)
    birth = np.where(possible, monday - np.rint(age * 365.25) * DAY_US, np.nan)
    gender = [sex_code(value) for value in people["gender"].fill_null("unknown").to_pylist()]
    parts = [
        (gender, pa.nulls(size, pa.int64()), pa.nulls(size, pa.float32())),
        (
            ["MEDS_BIRTH"] * size,
            pa.array(birth, pa.float64(), from_pandas=True).cast(pa.int64()),
            pa.nulls(size, pa.float32()),
        ),
        (["BMI"] * size, pa.array(monday), people["bmi"].cast(pa.float32()).combine_chunks()),
    ]
    return pa.concat_tables(
        pa.table(
            {
                "subject_id": pa.array(subject, pa.int64()),
                "time": time.cast(pa.timestamp("us")),
                "code": pa.array(code, pa.string()),
                "numeric_value": value,
            }
        )
        for code, time, value in parts
    )


def _file(path: Path) -> Path:
    return path / "chf_minutes.parquet" if path.is_dir() else path


def sniff(path: Path) -> bool:
    """Whether there is a file of person-days with `log_activity`."""
    return has_columns(_file(path), _COLUMNS)


READER = Reader(
    name="chf_actigraphy",
    summary="heart-failure patients' minute-level activity; one site",
    reads=("log activity counts by the minute, age, gender, BMI, first hospital event as labels"),
    not_read="nothing of the table",
    tried_on="`chf` of the tidyfun package: 47 people, 7 days of 1,440 minutes",
    sniff=sniff,
    read=read,
    options=ActigraphyOptions,
)
