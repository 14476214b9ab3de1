"""The parts of FHIR R4 resources that are read; whatever else a resource says is passed over.

Nothing here refers back to what it is part of, so that Python's collector of cycles need not look.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct


class Coding(Struct, gc=False):
    """A code of a system."""

    system: str | None = None
    code: str | None = None
    display: str | None = None


class Concept(Struct, gc=False):
    """Codes for one thing, best first."""

    coding: list[Coding] = []
    text: str | None = None


class Reference(Struct, gc=False):
    """Where another resource is."""

    reference: str | None = None


class Quantity(Struct, gc=False):
    """A number and its unit, in UCUM where `system` says so; ``<`` of one below its limit."""

    value: float | None = None
    comparator: str | None = None
    unit: str | None = None
    system: str | None = None
    code: str | None = None


class Period(Struct, gc=False):
    """From when to when."""

    start: str | None = None
    end: str | None = None


class Valued(Struct, gc=False):
    """What has a value, in one of FHIR's forms."""

    valueQuantity: Quantity | None = None
    valueCodeableConcept: Concept | None = None
    valueInteger: int | None = None
    valueBoolean: bool | None = None
    valueString: str | None = None
    valueRange: msgspec.Raw = msgspec.Raw(b"")
    valueRatio: msgspec.Raw = msgspec.Raw(b"")
    valueSampledData: msgspec.Raw = msgspec.Raw(b"")
    valueTime: msgspec.Raw = msgspec.Raw(b"")
    valueDateTime: msgspec.Raw = msgspec.Raw(b"")
    valuePeriod: msgspec.Raw = msgspec.Raw(b"")


class Component(Valued, gc=False):
    """One of the values of an observation."""

    code: Concept | None = None


class Contained(Struct, gc=False):
    """A resource inside another: only a medication's code is wanted."""

    id: str | None = None
    code: Concept | None = None


class Extension(Struct, gc=False):
    """What a profile adds to a resource: ``ombCategory`` of a race and the like."""

    url: str = ""
    valueCoding: Coding | None = None
    extension: list[Extension] = []


class Resource(Valued, gc=False):
    """A resource of any type: the fields of those that are read."""

    resourceType: str = ""
    id: str | None = None
    status: str | None = None
    intent: str | None = None
    code: Concept | None = None
    vaccineCode: Concept | None = None
    medicationCodeableConcept: Concept | None = None
    medicationReference: Reference | None = None
    contained: msgspec.Raw = msgspec.Raw(b"")
    verificationStatus: Concept | None = None
    subject: Reference | None = None
    patient: Reference | None = None
    period: Period | None = None
    onsetDateTime: str | None = None
    onsetPeriod: Period | None = None
    recordedDate: str | None = None
    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    effectiveInstant: str | None = None
    issued: str | None = None
    authoredOn: str | None = None
    dateAsserted: str | None = None
    whenHandedOver: str | None = None
    whenPrepared: str | None = None
    performedDateTime: str | None = None
    performedPeriod: Period | None = None
    occurrenceDateTime: str | None = None
    birthDate: str | None = None
    gender: str | None = None
    deceasedDateTime: str | None = None
    deceasedBoolean: bool | None = None
    component: list[Component] = []
    extension: msgspec.Raw = msgspec.Raw(b"")
    class_: Coding | None = msgspec.field(name="class", default=None)


class FhirType(Struct, gc=False):
    """Of what type a resource is."""

    resourceType: str = ""


class BundleEntry(Struct, gc=False):
    """An entry of a bundle."""

    resource: msgspec.Raw = msgspec.Raw(b"")
    fullUrl: str | None = None


class Bundle(Struct, gc=False):
    """Resources in one document."""

    resourceType: str = ""
    entry: list[BundleEntry] = []


READ: Final = frozenset(
    {
        "Patient",
        "Encounter",
        "Condition",
        "Observation",
        "MedicationRequest",
        "MedicationAdministration",
        "MedicationDispense",
        "MedicationStatement",
        "AllergyIntolerance",
        "Procedure",
        "Immunization",
        "DiagnosticReport",
    }
)
"""The types that become events."""
VALUES_NOT_READ: Final = (
    *("valueRange", "valueRatio", "valueSampledData"),
    *("valueTime", "valueDateTime", "valuePeriod"),
)
"""Forms of an observation's value that are neither one number nor one answer."""
NOT_SO: Final = frozenset(
    {"entered-in-error", "not-done", "refuted", "cancelled", "draft"}
    | {"not-taken", "intended", "declined", "preparation", "planned"}
)
"""Status of what did not happen, or is not known to have."""
RESOURCE: Final = msgspec.json.Decoder(Resource)
BUNDLE: Final = msgspec.json.Decoder(Bundle)
KIND: Final = msgspec.json.Decoder(FhirType)
CONTAINED: Final = msgspec.json.Decoder(list[Contained])
EXTENSIONS: Final = msgspec.json.Decoder(list[Extension])
_US_CORE: Final = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
RACES: Final = {f"{_US_CORE}race": "Race", f"{_US_CORE}ethnicity": "Ethnicity"}
"""Extension of a person → what it says: the profiles of the United States give race so."""

VOCABULARIES: Final = {
    "http://snomed.info/sct": "SNOMED",
    "http://loinc.org": "LOINC",
    "http://www.nlm.nih.gov/research/umls/rxnorm": "RxNorm",
    "http://hl7.org/fhir/sid/icd-10-cm": "ICD10CM",
    "http://hl7.org/fhir/sid/icd-10": "ICD10",
    "http://hl7.org/fhir/sid/icd-9-cm": "ICD9CM",
    "http://www.cms.gov/Medicare/Coding/ICD10": "ICD10PCS",
    "http://hl7.org/fhir/sid/cvx": "CVX",
    "http://www.ama-assn.org/go/cpt": "CPT4",
    "http://www.whocc.no/atc": "ATC",
    "http://hl7.org/fhir/sid/ndc": "NDC",
}
"""System → its name among OMOP's vocabularies, so that sites of both formats share their codes."""
STANDARD: Final = frozenset(
    {
        "http://snomed.info/sct",
        "http://loinc.org",
        "http://www.nlm.nih.gov/research/umls/rxnorm",
        "http://hl7.org/fhir/sid/cvx",
    }
)
"""Systems whose codes are OMOP's standard concepts: one of them is preferred to a billing code."""
UCUM: Final = "http://unitsofmeasure.org"
