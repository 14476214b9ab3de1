"""People who never lived: what is true of them, by the clock of the hospital that sees them.

Three burdens of a person (metabolic, vascular, inflammatory) drift with time; measurements and new
conditions come of them, drugs and examinations of the conditions. So records foretell something.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from tests.ingest.one_truth.concepts import (
    CONDITIONS,
    EXAMINED_BY,
    INFLUENZA_VACCINE,
    SMOKING,
    TREATED_WITH,
    Code,
)
from tests.ingest.one_truth.measurements import LIMITED, MEASUREMENTS, Measurement

ZONE = "Europe/Vienna"
RACES = {"1": "1002-5", "2": "2028-9", "3": "2054-5", "4": "2076-8", "5": "2106-3"}
"""Code in OMOP's vocabulary Race → that of the United States' CDC, which FHIR uses."""
ETHNICITIES = {"Hispanic": "2135-2", "Not Hispanic": "2186-5"}
GENDERS = {"M": "male", "F": "female", "other": "other", "unknown": "unknown"}
VISITS = {"OP": "AMB", "IP": "IMP", "ER": "EMER"}
_MEASURED = 0.45
_AGAIN = 0.5
_HALF_LIFE_DAYS = 500.0


@dataclass(frozen=True)
class Visit:
    """A stay at the hospital: OMOP's code of its kind, and from when to when."""

    kind: str
    start: datetime
    end: datetime


@dataclass(frozen=True)
class Found:
    """A measurement's value, in the store's unit; `limit` is "<" where it is less than that."""

    at: datetime
    measurement: Measurement
    value: float
    limit: str = ""


@dataclass(frozen=True)
class Noted:
    """A code, and when; `by_day` where the source gives the day alone."""

    at: datetime
    code: Code
    by_day: bool = False


@dataclass
class Person:
    """All that is true of one."""

    subject: int
    born: datetime
    gender: str
    race: str
    ethnicity: str
    died: datetime | None = None
    visits: list[Visit] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)


def made_people(
    count: int, seed: int | list[int], first: int = 1, shift: float = 0.0
) -> list[Person]:
    """Return so many people.

    Args:
        count: How many.
        seed: Of chance.
        first: The first one's number.
        shift: What their vascular burden is above others', in its standard deviation.
    """
    rng = np.random.default_rng(seed)
    return [_person(rng, number, shift) for number in range(first, first + count)]


def _person(rng: np.random.Generator, subject: int, shift: float) -> Person:
    born = datetime(1935, 1, 1) + timedelta(days=int(rng.integers(0, 365 * 55)))
    one = Person(
        subject,
        born,
        str(rng.choice(list(GENDERS), p=[0.48, 0.48, 0.02, 0.02])),
        str(rng.choice(list(RACES), p=[0.05, 0.2, 0.2, 0.05, 0.5])),
        str(rng.choice(list(ETHNICITIES), p=[0.2, 0.8])),
    )
    mean = rng.normal(size=3) * 0.8 + np.array([0.0, shift, 0.0])
    burden, has = mean + rng.normal(size=3) * 0.6, set[Code]()
    day = datetime(2015, 1, 1) + timedelta(days=int(rng.integers(0, 700)))
    for _ in range(int(rng.integers(4, 14))):
        gap = rng.gamma(1.5, 90.0)
        day += timedelta(days=1 + int(gap))
        stays = 0.5 ** (gap / _HALF_LIFE_DAYS)
        noise = rng.normal(size=3) * 0.6 * np.sqrt(1 - stays**2)
        burden = mean + (burden - mean) * stays + noise
        _visit(rng, one, day, burden, has)
    if rng.random() < 1 / (1 + np.exp(3.0 - burden[1])):
        days = int(rng.integers(2, 200))
        one.died = one.visits[-1].end.replace(second=0) + timedelta(days=days)
    return one


def _visit(
    rng: np.random.Generator, one: Person, day: datetime, burden: np.ndarray, has: set[Code]
) -> None:
    start = day + timedelta(hours=int(rng.integers(7, 16)), minutes=int(rng.integers(0, 60)))
    kind = str(rng.choice(list(VISITS), p=[0.8, 0.12, 0.08]))
    hours = {"OP": 1, "IP": 24 * int(rng.integers(1, 8)), "ER": 5}[kind]
    one.visits.append(Visit(kind, start, start + timedelta(hours=hours)))
    for test in MEASUREMENTS:
        if rng.random() < _MEASURED or test.loinc in ("8480-6", "8462-4"):
            _measure(rng, one, start + timedelta(minutes=10), test, burden)
    for condition, (base, loads, stays) in CONDITIONS.items():
        odds = base + float(np.dot(loads, burden))
        if condition in has and stays:
            odds = np.log(_AGAIN / (1 - _AGAIN))
        if rng.random() < 1 / (1 + np.exp(-odds)):
            _note(rng, one, start + timedelta(minutes=20), condition, has)
    if rng.random() < 0.15:
        one.noted.append(Noted(start + timedelta(minutes=30), INFLUENZA_VACCINE))
    if rng.random() < 0.2:
        answer = SMOKING[one.subject % 3]
        one.noted.append(Noted(start + timedelta(minutes=5), answer))


def _measure(
    rng: np.random.Generator, one: Person, at: datetime, test: Measurement, burden: np.ndarray
) -> None:
    value = test.usual + float(np.dot(test.loads, burden)) + test.spread * float(rng.normal())
    least = LIMITED.get(test.loinc, test.usual / 20)
    limit = "<" if test.loinc in LIMITED and value < least else ""
    value = least if limit else max(value, least)
    one.found.append(Found(at, test, float(f"{value:.4g}"), limit))


def _note(
    rng: np.random.Generator, one: Person, at: datetime, condition: Code, has: set[Code]
) -> None:
    new = condition not in has
    has.add(condition)
    one.noted.append(Noted(at, condition))
    if new and rng.random() < 0.2:
        before = datetime(at.year - 1, 1 + at.month % 12, 15)
        one.noted.append(Noted(before, condition, by_day=True))
    for follows in (TREATED_WITH, EXAMINED_BY):
        if condition in follows and rng.random() < 0.7:
            one.noted.append(Noted(at + timedelta(minutes=10), follows[condition]))


Event = tuple[int, datetime | None, str, float | None]
"""Subject, time by the hospital's clock, code, number."""


def true_events(people: list[Person]) -> list[Event]:
    """Return what a store of these people is to hold, in no order."""
    events: list[Event] = []
    for one in people:
        who = one.subject
        events += [
            (who, None, f"Gender//{one.gender}", None),
            (who, None, f"Race//{one.race}", None),
            (who, None, f"Ethnicity//{one.ethnicity}", None),
            (who, one.born, "MEDS_BIRTH", None),
        ]
        if one.died is not None:
            events.append((who, one.died, "MEDS_DEATH", None))
        for visit in one.visits:
            days = (visit.end - visit.start) / timedelta(days=1)
            events.append((who, visit.start, f"Visit//{visit.kind}", days))
            events.append((who, visit.end, f"Visit//{visit.kind}//END", None))
        for found in one.found:
            test = found.measurement
            code = f"LOINC//{test.loinc}//{found.limit}{test.unit}"
            events.append((who, found.at, code, found.value))
        for noted in one.noted:
            at = noted.at.replace(hour=0, minute=0) if noted.by_day else noted.at
            events.append((who, at, noted.code.name, None))
    return sorted(set(events), key=repr)
