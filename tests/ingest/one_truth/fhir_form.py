"""The truth as FHIR R4 in the form of US Core: a bulk export as ndjson, or a bundle of each person.

Times have the hospital's offset or are UTC's, turn by turn; codings stand in the order of a billing
system, its own first.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.ingest.one_truth.concepts import Code, Kind
from tests.ingest.one_truth.made_people import (
    ETHNICITIES,
    GENDERS,
    RACES,
    VISITS,
    ZONE,
    Found,
    Noted,
    Person,
)
from tests.ingest.one_truth.measurements import BLOOD_PRESSURE

Resource = dict[str, Any]
_SYSTEMS = {
    "SNOMED": "http://snomed.info/sct",
    "LOINC": "http://loinc.org",
    "RxNorm": "http://www.nlm.nih.gov/research/umls/rxnorm",
    "ICD10CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "NDC": "http://hl7.org/fhir/sid/ndc",
    "CPT4": "http://www.ama-assn.org/go/cpt",
    "CVX": "http://hl7.org/fhir/sid/cvx",
}
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_CDC = "urn:oid:2.16.840.1.113883.6.238"
_SNOMED_UNITS = {"8867-4": "258983007"}
"""Of these tests the unit's code is SNOMED's, and UCUM's stands in `unit`."""


def write_fhir(people: list[Person], folder: Path, *, as_bundles: bool = False) -> Path:
    """Write these people's resources.

    Args:
        people: Who is in it.
        folder: New folder.
        as_bundles: A bundle for each person, instead of a file of lines for each type.
    """
    folder.mkdir(parents=True)
    lines: dict[str, list[str]] = defaultdict(list)
    for one in people:
        resources = list(_resources(one))
        if as_bundles:
            entries = [{"resource": resource} for resource in resources]
            bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
            (folder / f"{one.subject}.json").write_text(json.dumps(bundle))
        for resource in resources:
            lines[resource["resourceType"]].append(json.dumps(resource))
    if not as_bundles:
        for kind, texts in lines.items():
            (folder / f"{kind}.ndjson").write_text("\n".join(texts) + "\n")
    return folder


def _resources(one: Person) -> Iterator[Resource]:
    turns = count()
    zone = ZoneInfo(ZONE)

    def clock(at: datetime) -> str:
        moment = at.replace(tzinfo=zone)
        if next(turns) % 2:
            return moment.isoformat()
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")

    yield _patient(one, clock)
    who = {"subject": {"reference": f"Patient/{one.subject}"}}
    for visit in one.visits:
        period = {"start": clock(visit.start), "end": clock(visit.end)}
        kind = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode"}
        yield (
            {"resourceType": "Encounter", "status": "finished", "period": period}
            | {"class": kind | {"code": VISITS[visit.kind]}}
            | who
        )
    for resource in _observations(one, clock):
        yield resource | who
    for number, noted in enumerate(one.noted):
        for resource in _noted(noted, number, f"{one.subject}-{number}", clock):
            yield (
                resource if resource["resourceType"] == "Medication" else resource | _of(one, noted)
            )


def _of(one: Person, noted: Noted) -> Resource:
    name = "patient" if noted.code.kind is Kind.VACCINE else "subject"
    return {name: {"reference": f"Patient/{one.subject}"}}


def _patient(one: Person, clock: Callable[[datetime], str]) -> Resource:
    race = _demographic("race", RACES[one.race])
    patient = {
        "resourceType": "Patient",
        "id": str(one.subject),
        "birthDate": one.born.date().isoformat(),
        "gender": GENDERS[one.gender],
        "extension": [race, _demographic("ethnicity", ETHNICITIES[one.ethnicity])],
    }
    return patient if one.died is None else patient | {"deceasedDateTime": clock(one.died)}


def _demographic(name: str, code: str) -> Resource:
    coding = {"url": "ombCategory", "valueCoding": {"system": _CDC, "code": code}}
    return {"url": f"{_US_CORE}{name}", "extension": [coding, {"url": "text", "valueString": "x"}]}


def _concept(*codes: tuple[str, str]) -> Resource:
    return {"coding": [{"system": _SYSTEMS[v], "code": code} for v, code in codes]}


def _codes(code: Code) -> Resource:
    billed = [] if code.also is None else [code.also]
    return _concept(*billed, (code.vocabulary, code.code))


def _measured(found: Found) -> Resource:
    form = found.measurement.forms[1]
    unit = {"unit": form.unit, "system": "http://unitsofmeasure.org", "code": form.unit}
    if form.loinc in _SNOMED_UNITS:
        unit |= {"system": _SYSTEMS["SNOMED"], "code": _SNOMED_UNITS[form.loinc]}
    limit = {"comparator": found.limit} if found.limit else {}
    value = {"value": found.value * form.times + form.plus} | limit | unit
    return {"code": _concept(("LOINC", form.loinc)), "valueQuantity": value}


def _observations(one: Person, clock: Callable[[datetime], str]) -> Iterator[Resource]:
    panels: dict[datetime, list[Resource]] = defaultdict(list)
    for found in one.found:
        if found.measurement.loinc in BLOOD_PRESSURE:
            panels[found.at].append(_measured(found))
            continue
        head = {"resourceType": "Observation", "status": "final"}
        yield head | {"effectiveDateTime": clock(found.at)} | _measured(found)
    for at, parts in panels.items():
        head = {"resourceType": "Observation", "status": "final", "effectiveDateTime": clock(at)}
        yield head | {"code": _concept(("LOINC", "85354-9")), "component": parts}


def _noted(
    noted: Noted, number: int, name: str, clock: Callable[[datetime], str]
) -> Iterator[Resource]:
    code = noted.code
    at = noted.at.date().isoformat() if noted.by_day else clock(noted.at)
    if code.kind is Kind.CONDITION:
        yield {"resourceType": "Condition", "code": _codes(code), "onsetDateTime": at}
    elif code.kind is Kind.PROCEDURE:
        done = {"status": "completed", "performedPeriod": {"start": at}}
        yield {"resourceType": "Procedure", "code": _codes(code)} | done
    elif code.kind is Kind.VACCINE:
        given = {"status": "completed", "occurrenceDateTime": at}
        yield {"resourceType": "Immunization", "vaccineCode": _codes(code)} | given
    elif code.kind is Kind.ANSWER and code.answer is not None:
        asked = _concept((code.vocabulary, code.code))
        said = {"valueCodeableConcept": _concept(code.answer), "effectiveDateTime": at}
        yield {"resourceType": "Observation", "status": "final", "code": asked} | said
    else:
        yield from _drug(code, number, name, at)


def _drug(code: Code, number: int, name: str, at: str) -> Iterator[Resource]:
    """Yield a drug as one of the four resources that FHIR has, with a code or a Medication's."""
    own = {"medicationCodeableConcept": _codes(code)}
    if number % 2:
        yield {"resourceType": "Medication", "id": name, "code": _codes(code)}
        own = {"medicationReference": {"reference": f"Medication/{name}"}}
    kinds: list[Resource] = [
        {"resourceType": "MedicationRequest", "intent": "order", "authoredOn": at},
        {"resourceType": "MedicationAdministration", "effectivePeriod": {"start": at}},
        {"resourceType": "MedicationDispense", "whenHandedOver": at},
        {"resourceType": "MedicationStatement", "effectiveDateTime": at},
    ]
    yield kinds[number % 4] | {"status": "completed"} | own
