"""FHIR R4: resources written here, as lines and as bundles, and synthetic people."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections import Counter
from itertools import chain
from pathlib import Path

import duckdb
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.codes.shared_spellings import visit_code
from healthfm_client.ingest.reader_registry import find
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError, IngestError

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
WHO = {"reference": "Patient/7"}


def concept(system: str, code: str) -> dict:
    return {"coding": [{"system": system, "code": code}]}


def observation(**more) -> dict:
    lab = {"resourceType": "Observation", "code": concept(LOINC, "2345-7"), "subject": WHO}
    return lab | {"effectiveDateTime": "2020-01-02T08:00:00+02:00"} | more


RESOURCES = [
    {"resourceType": "Patient", "id": "7", "birthDate": "1950-03", "gender": "female"}
    | {"deceasedDateTime": "2021-01-01"},
    {"resourceType": "Encounter", "class": {"code": "IMP"}, "subject": WHO}
    | {"period": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-03T12:00:00Z"}},
    {"resourceType": "Condition", "code": concept(SNOMED, "44054006"), "subject": WHO}
    | {"onsetDateTime": "2019-05-06"},
    {"resourceType": "Condition", "code": concept(SNOMED, "1"), "subject": WHO}
    | {"onsetDateTime": "2019-05-06", "verificationStatus": concept("x", "refuted")},
    observation(valueQuantity={"value": 90, "code": "mg/dL"}),
    observation(valueQuantity={"value": 1.1, "unit": "g/L"}),
    observation(valueCodeableConcept=concept(LOINC, "LA6576-8")),
    observation(
        code=concept(LOINC, "85354-9"),
        component=[
            {"code": concept(LOINC, "8480-6"), "valueQuantity": {"value": 16, "code": "kPa"}},
            {"code": concept(LOINC, "8462-4"), "valueQuantity": {"value": 80, "code": "mm[Hg]"}},
        ],
    ),
    {"resourceType": "MedicationRequest", "medicationReference": {"reference": "#m"}}
    | {"contained": [{"id": "m", "code": concept("http://www.whocc.no/atc", "C07AB02")}]}
    | {"subject": WHO, "authoredOn": "2020-01-02", "intent": "order"},
    {"resourceType": "MedicationRequest", "subject": WHO, "intent": "proposal"},
    {"resourceType": "MedicationAdministration", "status": "not-done", "subject": WHO},
    {"resourceType": "Procedure", "code": {"text": "Wound  care"}, "subject": WHO}
    | {"performedPeriod": {"start": "2020-01-02"}},
    {"resourceType": "Immunization", "vaccineCode": concept("http://hl7.org/fhir/sid/cvx", "08")}
    | {"patient": WHO, "occurrenceDateTime": "2020-01-02"},
    {"resourceType": "DiagnosticReport", "code": concept(LOINC, "58410-2"), "subject": WHO}
    | {"effectiveDateTime": "2020-01-02"},
    {"resourceType": "Procedure", "code": concept(SNOMED, "1"), "subject": WHO},
    {"resourceType": "Observation", "code": concept(LOINC, "1"), "valueQuantity": "odd"},
    {"resourceType": "CarePlan", "subject": "of another form"},
]
EVENTS = [
    (None, "Gender//F", None),
    ("1950-03-01 00:00:00", "MEDS_BIRTH", None),
    ("2019-05-06 00:00:00", "SNOMED//44054006", None),
    ("2020-01-01 00:00:00", "Visit//IP", 2.5),
    ("2020-01-02 00:00:00", "ATC//C07AB02", None),
    ("2020-01-02 00:00:00", "CVX//08", None),
    ("2020-01-02 00:00:00", "LOINC//58410-2", None),
    ("2020-01-02 00:00:00", "TEXT//Wound care", None),
    ("2020-01-02 08:00:00", "LOINC//2345-7//LOINC:LA6576-8", None),
    ("2020-01-02 08:00:00", "LOINC//2345-7//mg/dL", 90.0),
    ("2020-01-02 08:00:00", "LOINC//2345-7//mg/dL", 110.0),
    ("2020-01-02 08:00:00", "LOINC//8462-4//mm[Hg]", 80.0),
    ("2020-01-02 08:00:00", "LOINC//8480-6//mm[Hg]", pytest.approx(120.0099)),
    ("2020-01-03 12:00:00", "Visit//IP//END", None),
    ("2021-01-01 00:00:00", "MEDS_DEATH", None),
]
REJECTED = {"no_date": 1, "not_fhir": 2, "not_ordered": 1, "not_so": 2}


def rows(path: Path) -> list[tuple]:
    columns = "time::varchar, code, numeric_value"
    order = "time nulls first, code, numeric_value"
    return duckdb.sql(
        f"select {columns} from '{path}/data/*/*.parquet' order by {order}"
    ).fetchall()


def as_lines(folder: Path) -> Path:
    folder.mkdir()
    text = "\n".join([json.dumps(one) for one in RESOURCES] + ["{not json", ""])
    (folder / "all.ndjson").write_text(text)
    return folder


def as_bundle(folder: Path) -> Path:
    folder.mkdir()
    entries = [{"resource": one} for one in RESOURCES] + [{"resource": [1]}]
    entries[0]["fullUrl"] = "https://hospital/fhir/Patient/7"
    (folder / "one.json").write_text(json.dumps({"resourceType": "Bundle", "entry": entries}))
    return folder


@pytest.mark.parametrize("make", [as_lines, as_bundle])
def test_resources_become_events_and_say_what_was_set_aside(tmp_path, make):
    (out,) = ingest("auto", make(tmp_path / "in"), tmp_path / "out")
    store = SiteStore.open(out)
    store.check()
    assert store.subjects().tolist() == [7]
    assert rows(out) == EVENTS
    assert store.rejected == REJECTED
    assert store.not_read == {"CarePlan": 1}


def test_compressed_lines_are_the_same(tmp_path):
    folder = as_lines(tmp_path / "in")
    text = (folder / "all.ndjson").read_bytes()
    (folder / "all.ndjson").unlink()
    (folder / "all.ndjson.gz").write_bytes(gzip.compress(text))
    (out,) = ingest("fhir", folder, tmp_path / "out")
    assert rows(out) == EVENTS


def test_a_medication_of_its_own_file_is_found(tmp_path):
    (tmp_path / "in").mkdir()
    drug = {"resourceType": "Medication", "id": "m1", "code": concept("urn:oid:1.2", "X")}
    order = {"resourceType": "MedicationRequest", "subject": WHO, "authoredOn": "2020"}
    order["medicationReference"] = {"reference": "Medication/m1/_history/2"}
    (tmp_path / "in" / "Medication.ndjson").write_text(json.dumps(drug))
    (tmp_path / "in" / "MedicationRequest.ndjson").write_text(json.dumps(order))
    (out,) = ingest("fhir", tmp_path / "in", tmp_path / "out")
    assert rows(out) == [("2020-01-01 00:00:00", "1.2//X", None)]


def test_a_named_zone_puts_times_on_its_clock_summer_and_winter(tmp_path):
    (tmp_path / "in").mkdir()
    times = ["2020-01-02T08:00:00Z", "2020-07-02T08:00:00Z", "2020-10-25T00:30:00Z", "2020-07-02"]
    lines = [json.dumps(observation(effectiveDateTime=time)) for time in times]
    (tmp_path / "in" / "Observation.ndjson").write_text("\n".join(lines))
    (out,) = ingest("fhir", tmp_path / "in", tmp_path / "out", time_zone="Europe/London")
    seen = [time for time, *_ in rows(out)]
    assert seen == [
        "2020-01-02 08:00:00",
        "2020-07-02 00:00:00",
        "2020-07-02 09:00:00",
        "2020-10-25 01:30:00",
    ]
    with pytest.raises(ConfigError, match="HF-102"):
        ingest("fhir", tmp_path / "in", tmp_path / "no", time_zone="Mars/Phobos")


def test_a_bundle_cut_off_is_refused(tmp_path):
    folder = as_bundle(tmp_path / "in")
    text = (folder / "one.json").read_text()
    (folder / "one.json").write_text(text[: len(text) // 2])
    with pytest.raises(IngestError, match="HF-303"):
        ingest("fhir", folder, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_bundle_cut_off_beside_others_is_set_aside(tmp_path, compressed):
    folder = as_bundle(tmp_path / "in")
    whole = (folder / "one.json").read_bytes()
    damaged = gzip.compress(whole)[:-40] if compressed else whole[: len(whole) // 2]
    (folder / ("two.json.gz" if compressed else "two.json")).write_bytes(damaged)
    (out,) = ingest("fhir", folder, tmp_path / "out")
    assert rows(out) == EVENTS
    assert SiteStore.open(out).rejected == REJECTED | {"unreadable_bundle": 1}
    aside = duckdb.sql(f"select file from '{out}/rejected/unreadable_bundle.parquet'").fetchall()
    assert aside == [("two.json.gz" if compressed else "two.json",)]


def test_values_that_are_no_number_and_no_code_are_counted(tmp_path):
    span = {"low": {"value": 1}, "high": {"value": 2}}
    out = read_lines(
        tmp_path,
        observation(valueQuantity={"value": 5, "code": "mg/dL"}),
        observation(valueString="see the letter"),
        observation(valueRange=span),
        observation(component=[{"code": concept(LOINC, "1"), "valueRatio": {}}]),
        observation(valueDateTime="2020-01-01"),
        {"resourceType": "Claim", "id": "1"},
        {"resourceType": "Claim", "id": "2"},
        {"resourceType": "Medication", "id": "3"},
    )
    assert SiteStore.open(out).not_read == {
        "Claim": 2,
        "Observation.valueDateTime": 1,
        "Observation.valueRange": 1,
        "Observation.valueRatio": 1,
        "Observation.valueString": 1,
    }


def test_a_sites_key_makes_the_same_pseudonym_in_every_source(tmp_path):
    key = tmp_path / "site.key"
    (out,) = ingest("fhir", as_lines(tmp_path / "in"), tmp_path / "out", key=key)
    (again,) = ingest("fhir", as_bundle(tmp_path / "b"), tmp_path / "again", key=key)
    assert key.stat().st_mode & 0o777 == 0o600
    one, other = (SiteStore.open(path).subjects().tolist() for path in (out, again))
    assert one == other != [7]
    (stranger,) = ingest("fhir", tmp_path / "in", tmp_path / "s", key=tmp_path / "other.key")
    assert SiteStore.open(stranger).subjects().tolist() != one


def named(system: str, code: str, text: str) -> dict:
    return {"coding": [{"system": system, "code": code, "display": text}]}


def test_codes_of_known_systems_keep_the_name_they_come_with(tmp_path):
    """Of another system, a display may be anything."""
    (tmp_path / "in").mkdir()
    sugar, blood = named(LOINC, "2345-7", "Glucose\n[Mass]"), named(LOINC, "883-9", "ABO group")
    lab = {"code": sugar, "valueQuantity": {"value": 90, "code": "mg/dL"}}
    typed = {"code": blood, "valueCodeableConcept": named(SNOMED, "112144000", "Blood group A")}
    found = [
        observation(**lab),
        observation(**lab | {"code": named(LOINC, "2345-7", "Sugar")}),
        observation(**typed),
        {"resourceType": "Procedure", "code": named("urn:x", "1", "Ann's"), "subject": WHO}
        | {"performedDateTime": "2020-01-03"},
    ]
    (tmp_path / "in" / "all.ndjson").write_text("\n".join(map(json.dumps, found)))
    (out,) = ingest("fhir", tmp_path / "in", tmp_path / "out")
    said = duckdb.sql(f"select code, description from '{out}/metadata/codes.parquet'").fetchall()
    assert dict(said) == {
        "LOINC//2345-7": "Glucose [Mass]",
        "LOINC//2345-7//mg/dL": "Glucose [Mass]",
        "LOINC//883-9": "ABO group",
        "LOINC//883-9//SNOMED:112144000": "ABO group: Blood group A",
        "x//1": None,
    }


def test_one_test_under_two_codes_in_two_units_is_one_code(tmp_path):
    (tmp_path / "in").mkdir()
    amount = {"code": named(LOINC, "14682-9", "Creatinine [Moles/volume]")}
    mass = {"code": named(LOINC, "2160-0", "Creatinine [Mass/volume]")}
    found = [
        observation(**amount, valueQuantity={"value": 100, "code": "umol/L"}),
        observation(**mass, valueQuantity={"value": 2, "code": "mg/dL"}),
    ]
    (tmp_path / "in" / "all.ndjson").write_text("\n".join(map(json.dumps, found)))
    (out,) = ingest("fhir", tmp_path / "in", tmp_path / "out")
    code = "LOINC//2160-0//mg/dL"
    assert [(c, v) for _, c, v in rows(out)] == [(code, pytest.approx(1.1312)), (code, 2.0)]
    said = dict(
        duckdb.sql(f"select code, description from '{out}/metadata/codes.parquet'").fetchall()
    )
    assert said == {code: "Creatinine [Mass/volume]", code[:-7]: "Creatinine [Mass/volume]"}


RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"


def read_lines(folder: Path, *found: dict) -> Path:
    (folder / "in").mkdir()
    (folder / "in" / "all.ndjson").write_text("\n".join(map(json.dumps, found)))
    (out,) = ingest("fhir", folder / "in", folder / "out")
    return out


def test_drugs_handed_over_or_stated_and_allergies_are_read(tmp_path):
    drug = {"subject": WHO, "medicationCodeableConcept": concept(RXNORM, "6809")}
    statement = {"resourceType": "MedicationStatement"} | drug
    allergy = {"resourceType": "AllergyIntolerance", "patient": WHO, "recordedDate": "2020-03-04"}
    out = read_lines(
        tmp_path,
        {"resourceType": "MedicationDispense", "whenHandedOver": "2020-01-02"} | drug,
        {"resourceType": "MedicationDispense", "whenPrepared": "2020-01-03"} | drug,
        statement | {"effectivePeriod": {"start": "2020-02-03"}, "status": "active"},
        statement | {"dateAsserted": "2020-02-04"},
        statement | {"dateAsserted": "2020-02-05", "status": "not-taken"},
        *(allergy | {"code": concept(RXNORM, f"{n}")} for n in range(7980, 8000)),
    )
    assert rows(out)[:5] == [
        ("2020-01-02 00:00:00", "RxNorm//6809", None),
        ("2020-01-03 00:00:00", "RxNorm//6809", None),
        ("2020-02-03 00:00:00", "RxNorm//6809", None),
        ("2020-02-04 00:00:00", "RxNorm//6809", None),
        ("2020-03-04 00:00:00", "Allergy//RxNorm:7980", None),
    ]
    assert SiteStore.open(out).rejected == {"not_so": 1}


def test_a_limit_is_not_a_value_and_a_number_written_as_text_is_one(tmp_path):
    quantity = {"value": 5, "code": "mg/dL"}
    out = read_lines(
        tmp_path,
        observation(valueQuantity=quantity),
        observation(valueQuantity=quantity | {"comparator": "<"}),
        observation(valueString="5.1"),
        observation(valueString="> 600"),
        observation(valueString="12 to 15"),
        observation(component=[{"code": concept(LOINC, "1"), "valueString": "<=2"}]),
    )
    assert [(code, value) for _, code, value in rows(out)] == [
        ("LOINC//1//<=", 2.0),
        ("LOINC//2345-7", pytest.approx(5.1)),
        ("LOINC//2345-7", None),
        ("LOINC//2345-7//<mg/dL", 5.0),
        ("LOINC//2345-7//>", 600.0),
        ("LOINC//2345-7//mg/dL", 5.0),
    ]


ICD, SCT = ("http://hl7.org/fhir/sid/icd-10-cm", "E11.9"), (SNOMED, "44054006")
LOCAL = ("https://hospital/codes", "DM2")


@pytest.mark.parametrize(
    ("codings", "code"),
    [
        ([ICD, SCT], "SNOMED//44054006"),
        ([SCT, ICD], "SNOMED//44054006"),
        ([LOCAL, ICD], "ICD10CM//E11.9"),
        ([LOCAL], "codes//DM2"),
    ],
)
def test_the_standard_code_is_taken_wherever_it_stands(tmp_path, codings, code):
    said = {"coding": [{"system": system, "code": code} for system, code in codings]}
    found = {"resourceType": "Condition", "subject": WHO, "code": said, "onsetDateTime": "2020"}
    (tmp_path / "a.ndjson").write_text(json.dumps(found))
    (out,) = ingest("fhir", tmp_path / "a.ndjson", tmp_path / "out")
    assert [name for _, name, _ in rows(out)] == [code]


def test_a_visit_that_is_planned_has_not_been(tmp_path):
    kind = {"class": {"code": "AMB"}, "period": {"start": "2020-01-01T08:00:00Z"}}
    visits = [
        {"resourceType": "Encounter", "subject": WHO, "status": status} | kind
        for status in ("finished", "planned")
    ]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, visits)))
    (out,) = ingest("fhir", tmp_path / "a.ndjson", tmp_path / "out", max_set_aside=1)
    assert [name for _, name, _ in rows(out)] == ["Visit//OP"]
    assert SiteStore.open(out).rejected == {"not_so": 1}


@pytest.mark.parametrize("form", ["as columns", "by itself"])
def test_a_unit_that_is_coded_otherwise_than_in_ucum_is_read_from_its_text(tmp_path, form):
    unit = {"value": 72, "unit": "/min", "system": SNOMED, "code": "258983007"}
    pulse = observation(code=concept(LOINC, "8867-4"), valueQuantity=unit)
    line = pulse if form == "as columns" else pulse | {"component": []}
    (tmp_path / "a.ndjson").write_text(json.dumps(line))
    (out,) = ingest("fhir", tmp_path / "a.ndjson", tmp_path / "out")
    assert [one[1:] for one in rows(out)] == [("LOINC//8867-4//1/min", 72.0)]


@pytest.fixture(scope="module")
def synthetic(shared_data, tmp_path_factory) -> tuple[list[list[dict]], Path]:
    """Synthetic people: the resources of each bundle, and the store made of them."""
    path = shared_data / "formats" / "fhir_r4_synthetic" / "tietai30.tgz"
    assert find("fhir", path).name == "fhir"
    (out,) = ingest("auto", path, tmp_path_factory.mktemp("fhir") / "out")
    with tarfile.open(path) as tar:
        bundles = [json.load(tar.extractfile(member))["entry"] for member in tar]
    return [[entry["resource"] for entry in bundle] for bundle in bundles], out


@pytest.mark.realdata
def test_synthetic_people(synthetic):
    """Counts from the JSON itself: types, components, and visits that end."""
    bundles, out = synthetic
    kinds: Counter[str] = Counter()
    for one in chain.from_iterable(bundles):
        kinds[one["resourceType"]] += 1
        if one["resourceType"] == "Observation" and one.get("component"):
            has_own = any(key.startswith("value") for key in one)
            kinds["Observation"] += len(one["component"]) - 1 + has_own
        kinds["end"] += one["resourceType"] == "Encounter" and "end" in one["period"]
        kinds["death"] += "deceasedDateTime" in one
    wanted = ("Patient", "Encounter", "Condition", "Observation", "MedicationRequest", "end")
    wanted += ("MedicationAdministration", "Procedure", "Immunization", "DiagnosticReport", "death")
    wanted += ("AllergyIntolerance",)
    store = SiteStore.open(out)
    store.check()
    assert len(store.subjects()) == kinds["Patient"] == 30
    events = store.events().num_rows + sum(store.rejected.values())
    with_sex_race_and_ethnicity = 3 * kinds["Patient"]
    assert events == sum(kinds[kind] for kind in wanted) + with_sex_race_and_ethnicity
    assert store.rejected.keys() == {"after_today", "duplicate"}


@pytest.mark.realdata
def test_every_code_of_the_synthetic_people_is_counted(synthetic):
    """Codes as the JSON has them, whatever their system; visits by their class, twice."""
    bundles, out = synthetic
    counted: Counter[str] = Counter()
    for bundle in bundles:
        drugs = {one["id"]: one["code"] for one in bundle if one["resourceType"] == "Medication"}
        for one in bundle:
            if one["resourceType"] == "Encounter":
                counted[visit_code(one["class"]["code"]).removeprefix("Visit//")] += 2
            elif one["resourceType"] in CODED:
                counted.update(code["coding"][0]["code"] for code in codes_of(one, drugs))
    ours = " union all by name ".join(
        f"select code from '{out}/{files}'" for files in ("data/*/*.parquet", "rejected/*.parquet")
    )
    name = "split_part(split_part(code, '//', 2), ':', -1)"
    sql = f"select {name}, count(*) from ({ours}) where code like '%//%' "
    found = dict(
        duckdb.sql(
            f"{sql} and not regexp_matches(code, '^(Gender|Race|Ethnicity)') group by 1"
        ).fetchall()
    )
    assert found == dict(counted)
    assert len(found) > 300


CODED = ("Condition", "Observation", "MedicationRequest", "MedicationAdministration")
CODED += ("Procedure", "Immunization", "DiagnosticReport", "AllergyIntolerance")


def codes_of(one: dict, drugs: dict[str, dict]) -> list[dict]:
    """Return what a resource is of, and each of its components."""
    parts = [part["code"] for part in one.get("component", [])]
    if parts and not any(key.startswith("value") for key in one):
        return parts
    if "medicationReference" in one:
        return [drugs[one["medicationReference"]["reference"].removeprefix("urn:uuid:")]]
    names = ("code", "vaccineCode", "medicationCodeableConcept")
    return [next(one[name] for name in names if name in one), *parts]
