"""The truth as an OMOP CDM 5.4: Parquet with times adjusted to UTC, or CSV by the wall's clock.

Codes of standard vocabularies are real; concept ids are, where this file writes them down.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from tests.ingest.one_truth.concepts import Kind
from tests.ingest.one_truth.made_people import ZONE, Noted, Person

_KNOWN = {
    **{("Gender", code): n for code, n in (("M", 8507), ("F", 8532), ("O", 8521), ("U", 8551))},
    **{("Visit", code): n for code, n in (("IP", 9201), ("OP", 9202), ("ER", 9203))},
    ("Race", "5"): 8527,
    ("Ethnicity", "Hispanic"): 38003563,
    ("Ethnicity", "Not Hispanic"): 38003564,
    ("UCUM", "mg/dL"): 8840,
    ("UCUM", "%"): 8554,
    ("UCUM", "g/dL"): 8713,
    ("LOINC", "2345-7"): 3004501,
}
_LESS_THAN, _EQUAL = 4171756, 4172703
_TABLES = {
    Kind.CONDITION: ("condition_occurrence", "condition", "condition_start"),
    Kind.DRUG: ("drug_exposure", "drug", "drug_exposure_start"),
    Kind.VACCINE: ("drug_exposure", "drug", "drug_exposure_start"),
    Kind.PROCEDURE: ("procedure_occurrence", "procedure", "procedure"),
    Kind.ANSWER: ("observation", "observation", "observation"),
}
_NOT_STANDARD = ("ICD10CM", "NDC")


class Cdm:
    """Rows of the tables, and the concepts that they name."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, object]]] = defaultdict(list)
        self._concepts: dict[tuple[str, str], int] = {}

    def concept(self, vocabulary: str, code: str) -> int:
        """Return a concept's id."""
        key = (vocabulary, code)
        return self._concepts.setdefault(key, _KNOWN.get(key, 2_000_000_000 + len(self._concepts)))

    def close(self) -> None:
        """Write the table of concepts."""
        for (vocabulary, code), number in self._concepts.items():
            standard = None if vocabulary in _NOT_STANDARD else "S"
            self.rows["concept"].append(
                {"concept_id": number, "concept_name": f"{vocabulary} {code}"}
                | {"vocabulary_id": vocabulary, "concept_code": code, "standard_concept": standard}
            )


def write_omop(people: list[Person], folder: Path, *, as_csv: bool = False) -> Path:
    """Write a CDM of these people.

    Args:
        people: Who is in it.
        folder: New folder of the tables.
        as_csv: CSV by the hospital's clock, instead of Parquet in UTC.
    """
    cdm = Cdm()
    for one in people:
        _person(cdm, one)
    cdm.close()
    folder.mkdir(parents=True)
    for name, rows in cdm.rows.items():
        if as_csv:
            table = pa.Table.from_pylist(rows)
            csv.write_csv(table, folder / f"{name.upper()}.csv")
        else:
            pq.write_table(
                pa.Table.from_pylist([_utc(r) for r in rows]), folder / f"{name}.parquet"
            )
    return folder


def _utc(row: dict[str, object]) -> dict[str, object]:
    zone = ZoneInfo(ZONE)
    return {
        name: value.replace(tzinfo=zone).astimezone(UTC) if isinstance(value, datetime) else value
        for name, value in row.items()
    }


def _person(cdm: Cdm, one: Person) -> None:
    who = {"person_id": one.subject}
    gender = cdm.concept("Gender", one.gender[0].upper())
    cdm.rows["person"].append(
        who
        | {"year_of_birth": one.born.year, "month_of_birth": one.born.month}
        | {"day_of_birth": one.born.day, "gender_concept_id": gender}
        | {"race_concept_id": cdm.concept("Race", one.race)}
        | {"ethnicity_concept_id": cdm.concept("Ethnicity", one.ethnicity)}
    )
    if one.died is not None:
        died = {"death_date": one.died.date(), "death_datetime": one.died}
        cdm.rows["death"].append(who | died)
    for visit in one.visits:
        cdm.rows["visit_occurrence"].append(
            who
            | {"visit_concept_id": cdm.concept("Visit", visit.kind)}
            | {"visit_start_date": visit.start.date(), "visit_start_datetime": visit.start}
            | {"visit_end_date": visit.end.date(), "visit_end_datetime": visit.end}
        )
    _measurements(cdm, one)
    for noted in one.noted:
        _noted(cdm, one, noted)


def _measurements(cdm: Cdm, one: Person) -> None:
    for found in one.found:
        form = found.measurement.forms[0]
        has_unit = ("UCUM", form.unit) in _KNOWN
        cdm.rows["measurement"].append(
            {"person_id": one.subject}
            | {"measurement_concept_id": cdm.concept("LOINC", form.loinc)}
            | {"measurement_date": found.at.date(), "measurement_datetime": found.at}
            | {"operator_concept_id": _LESS_THAN if found.limit else _EQUAL}
            | {"value_as_number": found.value * form.times + form.plus}
            | {"value_as_concept_id": 0, "unit_source_value": form.unit}
            | {"unit_concept_id": cdm.concept("UCUM", form.unit) if has_unit else 0}
        )


def _noted(cdm: Cdm, one: Person, noted: Noted) -> None:
    table, about, start = _TABLES[noted.code.kind]
    code = noted.code
    own = cdm.concept(code.vocabulary, code.code)
    source = own if code.also is None else cdm.concept(*code.also)
    row = {
        "person_id": one.subject,
        f"{about}_concept_id": 0 if code.vocabulary in _NOT_STANDARD else own,
        f"{about}_source_concept_id": source,
        f"{about}_source_value": (code.also or (code.vocabulary, code.code))[1],
        f"{start}_date": noted.at.date(),
        f"{start}_datetime": None if noted.by_day else noted.at,
    }
    if code.answer is not None:
        row |= {"value_as_concept_id": cdm.concept(*code.answer), "value_as_number": None}
    cdm.rows[table].append(row)
