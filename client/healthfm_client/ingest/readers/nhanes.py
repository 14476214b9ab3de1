"""NHANES 2003 to 2006: clinic, a week of hip accelerometer, mortality; groups of PSUs as sites.

Source: the rnhanesdata package (Leroux et al. 2019) and the activity summaries of Smirnova et al.
2020, J Gerontol A 75:1779. An examination has a wave but no date: 2004-01-01 stands for wave 3,
2006-01-01 for wave 4; the accelerometer was worn from the next day on for seven days, and a
prediction is made when it comes off.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pydantic import Field

from healthfm_client.ingest.codes.shared_spellings import shared_spelling
from healthfm_client.ingest.event_site import event_site
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_client.ingest.tables.parquet_columns import (
    ColumnKind,
    has_columns,
    read_columns,
    refuse_nulls,
    rows_of,
    series,
)
from healthfm_client.ingest.tables.wearable_minutes import MINUTES
from healthfm_core.arrays import Float64, Int64
from healthfm_core.data.store.events import as_float32, ids
from healthfm_core.data.store.labels import died_within, label_table
from healthfm_core.data.store.schemas import WEARABLE
from healthfm_core.data.store.wearables import DAY_US, stretches

TASK: Final = "five_year_death"
TASK_ALL: Final = "five_year_death_all"
TASK_LATER: Final = "nine_year_death_all"
MONTHS: Final = 60.0
LATER_MONTHS: Final = 108.0
"""Nearly everybody is followed so long, to the end of 2015; twice as many have died by then."""
DAYS_WORN: Final = 7
EXAM_US: Final = {3: 1_072_915_200 * 1_000_000, 4: 1_136_073_600 * 1_000_000}
"""Wave → 2004-01-01, 2006-01-01."""

OLDEST_YEARS: Final = 130.0
SUMMARIES: Final = (
    ["TAC", "TLAC", "WT", "ST", "MVPA", "ABout", "SBout", "SATP", "ASTP"]
    + [f"TLAC_{two_hours}" for two_hours in range(1, 13)]
    + [f"mi{component}" for component in range(1, 7)]
    + [f"si{component}" for component in range(1, 7)]
    + ["sPC6"]
)
"""Activity of a person's week: totals, minutes and transitions, by two-hour window, and scores of
the principal components of day profiles (means and SDs)."""
STATIC: Final = {"Race": "Race", "Gender": "Gender"}
CATEGORIES: Final = {
    "DIABETES": "Diabetes",
    "CHF": "CHF",
    "CHD": "CHD",
    "CANCER": "Cancer",
    "STROKE": "Stroke",
    "EDUCATION": "EducationAdult",
    "MOBILITY": "MobilityProblem",
    "DRINK": "DrinkStatus",
    "SMOKE": "SmokeCigs",
}
NUMBERS: Final = {
    "BMI": "BMI",
    "SYS": "smirnova_SYS",
    "TC": "smirnova_LBXTC",
    "HDL": "smirnova_LBDHDD",
}
"""kg/m², mmHg, mg/dL, mg/dL."""

_SUBJECTS: Final = {
    "subject_id": ColumnKind.INTEGER,
    "SDDSRVYR": ColumnKind.INTEGER,
    "site_psu": ColumnKind.INTEGER,
    "RIDAGEEX": ColumnKind.NUMBER,
    "RIDAGEMN": ColumnKind.NUMBER,
    "RIDAGEYR": ColumnKind.NUMBER,
    "eligstat_2015": ColumnKind.INTEGER,
    "mortstat_2015": ColumnKind.NUMBER,
    "permth_exm_2015": ColumnKind.NUMBER,
    "in_smirnova": ColumnKind.FLAG,
    "smirnova_yr5_mort": ColumnKind.NUMBER,
    **dict.fromkeys((STATIC | CATEGORIES).values(), ColumnKind.TEXT),
    **dict.fromkeys(NUMBERS.values(), ColumnKind.NUMBER),
    **{f"smirnova_{name}": ColumnKind.NUMBER for name in SUMMARIES},
}
_WEAR: Final = {
    "subject_id": ColumnKind.INTEGER,
    "day_index": ColumnKind.INTEGER,
    "wear": ColumnKind.SERIES,
}


class NhanesOptions(ReaderOptions):
    """Options of ``nhanes``."""

    groups: int = Field(10, ge=1, description="sites to fold the 60 geographic clusters into")
    wear_minutes: bool = Field(False, description="keep the wear flags of every minute (large)")


def _numbers(table: pa.Table, name: str) -> Float64:
    return np.asarray(table[name].fill_null(np.nan).to_numpy(), np.float64)


def age_years(people: pa.Table) -> Float64:
    """Return the age at the examination, in months where NHANES gives them (under 85)."""
    exact, nearly = _numbers(people, "RIDAGEEX") / 12, _numbers(people, "RIDAGEMN") / 12
    age = np.where(np.isfinite(exact), exact, nearly)
    return np.where(np.isfinite(age), age, _numbers(people, "RIDAGEYR"))


def clinical_events(people: pa.Table, exam_us: Int64) -> pa.Table:
    """Return the clinic's covariates as MEDS rows: birth, two statics, the rest at the exam.

    A covariate that was not asked or not measured gives no row.
    """
    subject, age = ids(people), age_years(people)
    known = (age >= 0) & (age <= OLDEST_YEARS)
    birth = exam_us[known] - np.rint(age[known] * 365.25).astype(np.int64) * DAY_US
    parts = [
        _rows(subject[known], birth, "MEDS_BIRTH"),
        _rows(subject[known], exam_us[known], "AGE_YEARS", age[known]),
    ]
    for code, column in NUMBERS.items():
        value = _numbers(people, column)
        known = np.isfinite(value)
        parts.append(_rows(subject[known], exam_us[known], code, value[known]))
    for prefix, column in (STATIC | CATEGORIES).items():
        known = np.asarray(people[column].is_valid().to_numpy(), np.bool_)
        said = people[column].drop_null().to_pylist()
        codes = [shared_spelling(f"{prefix}//{value}") for value in said]
        at = None if prefix in STATIC else exam_us[known]
        parts.append(_rows(subject[known], at, codes))
    return pa.concat_tables(parts)


def _rows(
    subject: Int64,
    time_us: Int64 | None,
    code: str | list[str],
    value: Float64 | None = None,
) -> pa.Table:
    size = len(subject)
    stamp = pa.timestamp("us")
    number = pa.float32()
    return pa.table(
        {
            "subject_id": pa.array(subject, pa.int64()),
            "time": pa.nulls(size, stamp) if time_us is None else pa.array(time_us).cast(stamp),
            "code": pa.array([code] * size if isinstance(code, str) else code, pa.string()),
            "numeric_value": pa.nulls(size, number) if value is None else as_float32(value),
        }
    )


def activity_daily(people: pa.Table, exam_us: Int64) -> pa.Table:
    """Return the week's activity summaries, one sample per channel on the first day of wearing."""
    parts = []
    for name in SUMMARIES:
        value = _numbers(people, f"smirnova_{name}")
        known = np.abs(value) < np.finfo(np.float32).max
        day = value[known].astype(np.float32)[:, None]
        start = exam_us[known] + DAY_US
        parts.append(stretches(ids(people)[known], start, name, 1 / 86400, day))
    return pa.concat_tables(parts)


def wear_minute(days: pa.Table, subject: Int64, exam_us: Int64) -> pa.Table:
    """Return whether the device was worn, a row of 1440 minutes per person-day.

    A minute is 1, 0, or not on record (255 in the source), which the mask says.

    Args:
        days: subject_id, day_index (1 to 7), wear.
        subject: [S] the people wanted.
        exam_us: [S] their examination.
    """
    days = rows_of(days, subject)
    if not days.num_rows:
        return WEARABLE.empty_table()
    order = np.argsort(subject)
    exam = exam_us[order[np.searchsorted(subject, ids(days), sorter=order)]]
    start = exam + ids(days, "day_index") * DAY_US
    worn = series(days, "wear", MINUTES, "wear_minutes")
    return stretches(ids(days), start, "wear", 1 / 60, worn, worn <= 1)


def death_labels(people: pa.Table, exam_us: Int64) -> dict[str, pa.Table]:
    """Return five-year death of the published sample, and of every adult whose fate is known.

    Nine-year death is there to learn from: whoever dies in the sixth year was ill in the first.
    """
    subject, at = ids(people), exam_us + (1 + DAYS_WORN) * DAY_US
    published = np.asarray(people["in_smirnova"].to_numpy(), np.bool_)
    early = _numbers(people, "smirnova_yr5_mort") == 1
    labels = {TASK: label_table(subject[published], at[published], early[published])}
    months, dead = _numbers(people, "permth_exm_2015"), _numbers(people, "mortstat_2015") == 1
    for task, horizon in ((TASK_ALL, MONTHS), (TASK_LATER, LATER_MONTHS)):
        died, known = died_within(months, dead, horizon)
        known &= ids(people, "eligstat_2015") == 1
        labels[task] = label_table(subject[known], at[known], died[known])
    return labels


def read(path: Path, options: NhanesOptions) -> Iterator[Site]:
    """Yield the groups of clusters: cluster r of R (by number) goes to group r mod `groups`."""
    file = _only(path, "subjects_")
    people = read_columns(file, _SUBJECTS)
    refuse_nulls(people, ["subject_id", "SDDSRVYR", "site_psu", "eligstat_2015"], file.name)
    days = _days(_only(path, "wear_minutes_")) if options.wear_minutes else None
    rank = np.unique(ids(people, "site_psu"), return_inverse=True)[1] % options.groups
    for group in range(options.groups):
        members = people.filter(pa.array(rank == group))
        if members.num_rows:
            yield _site(f"psu-{group:02d}", members, days, options.now_us)


def _days(file: Path) -> pa.Table:
    days = read_columns(file, _WEAR)
    refuse_nulls(days, ["subject_id", "day_index"], file.name)
    return days


def _site(name: str, people: pa.Table, days: pa.Table | None, now_us: int) -> Site:
    wave = ids(people, "SDDSRVYR")
    exam = np.where(wave == 3, EXAM_US[3], EXAM_US[4]).astype(np.int64)
    site = event_site(name, clinical_events(people, exam), now_us=now_us)
    devices = {"activity_daily": activity_daily(people, exam)}
    if days is not None:
        devices["wear_minute"] = wear_minute(days, ids(people), exam)
    return Site(
        name=name,
        events=site.events,
        wearables=devices,
        labels=death_labels(people, exam),
        rejected=site.rejected,
    )


def _only(path: Path, start: str) -> Path:
    return next(iter(sorted(path.glob(f"{start}*.parquet"))), path / f"{start}2003_2006.parquet")


def sniff(path: Path) -> bool:
    """Whether the folder has NHANES people with linked mortality."""
    return path.is_dir() and has_columns(_only(path, "subjects_"), ["SDDSRVYR", "mortstat_2015"])


READER = Reader(
    name="nhanes",
    summary="NHANES 2003-2006: clinic, accelerometer, mortality; sites are groups of PSUs",
    reads=("clinic, questionnaires, summaries of a week of activity, mortality to 2015 as labels"),
    not_read="columns that the model of Smirnova et al. 2020 does not have",
    tried_on="rnhanesdata (Leroux et al. 2019): 20,470 people",
    sniff=sniff,
    read=read,
    options=NhanesOptions,
)
