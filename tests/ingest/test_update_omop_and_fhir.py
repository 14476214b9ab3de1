"""Deltas as OMOP and FHIR deliver them: new partitions, new rows of known people, people anew."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from healthfm_client.ingest import ingest, update_store
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError

CDM = Path(__file__).parent / "omop_cdm"
GLUCOSE = "LOINC//2345-7//mg/dL"
MEASUREMENT = (
    "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number,"
    "value_as_concept_id,unit_concept_id,unit_source_value\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The CDM, its measurements in a folder of partitions."""
    folder = tmp_path / "cdm"
    shutil.copytree(CDM, folder)
    (folder / "measurement").mkdir()
    (folder / "note.csv").write_text("note_id,person_id\n1,1\n2,1\n")
    (folder / "measurement.csv").rename(folder / "measurement" / "2010.csv")
    return folder


@pytest.fixture
def store(tmp_path: Path, folder: Path) -> Path:
    (path,) = ingest("omop", folder, tmp_path / "store")
    return path


def events(store: Path) -> list[str]:
    opened = SiteStore.open(store)
    opened.check()
    return sorted(map(repr, opened.events().to_pylist()))


def measured(folder: Path, *rows: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "measurement.csv").write_text(MEASUREMENT + "".join(f"{row}\n" for row in rows))


def glucose(store: Path, who: int) -> list[tuple[datetime, float]]:
    rows = SiteStore.open(store).narrowed(subjects=[who]).events().to_pylist()
    return [(row["time"], row["numeric_value"]) for row in rows if row["code"] == GLUCOSE]


def test_a_new_partition_is_read_and_person_again_but_nothing_else(
    tmp_path: Path, folder: Path, store: Path
) -> None:
    (folder / "measurement" / "2021.csv").write_text(
        MEASUREMENT
        + "6,1,3004501,2011-01-02,91,0,8840,mg/dL\n7,4,3004501,2021-01-02,92,0,8840,mg/dL\n"
    )
    person = (folder / "person.csv").read_text()
    (folder / "person.csv").write_text(person + "4,8507,1980,1,1,,0,0,\n")
    said: list[str] = []
    update_store("omop", folder, store, "rows", notify=said.append)
    (whole,) = ingest("omop", folder, tmp_path / "whole")
    assert events(store) == events(whole)
    assert said[0] == "Of 2 people of the source the store had 1."
    assert SiteStore.open(store).rejected == SiteStore.open(whole).rejected
    assert SiteStore.open(store).not_read == SiteStore.open(whole).not_read
    assert SiteStore.open(store).not_read["note"] == 2


def test_a_folder_of_new_rows_with_its_people_and_its_vocabulary(
    tmp_path: Path, store: Path
) -> None:
    delta = tmp_path / "delta"
    measured(delta, "6,1,3004501,2011-01-02,91,0,8840,mg/dL")
    for name in ("person", "concept"):
        shutil.copy(CDM / f"{name}.csv", delta)
    before = events(store)
    update_store("omop", delta, store, "rows")
    assert glucose(store, 1)[-1] == (datetime(2011, 1, 2), 91.0)
    assert len(events(store)) == len(before) + 1


def test_without_the_vocabulary_codes_would_be_others_and_it_is_refused(
    tmp_path: Path, store: Path
) -> None:
    delta = tmp_path / "delta"
    measured(delta, "6,1,3004501,2011-01-02,91,0,8840,mg/dL")
    shutil.copy(CDM / "person.csv", delta)
    with pytest.raises(IngestError, match=r"HF-320\]: store: .* another table CONCEPT"):
        update_store("omop", delta, store, "rows")


def test_a_persons_whole_record_corrects_and_deletes(tmp_path: Path, store: Path) -> None:
    delta = tmp_path / "delta"
    measured(delta, "1,1,3004501,2010-01-02,95,0,8840,mg/dL")
    shutil.copy(CDM / "concept.csv", delta)
    person = (CDM / "person.csv").read_text().splitlines()
    (delta / "person.csv").write_text("\n".join(person[:2]).replace("1950", "1951"))
    others = [row for row in events(store) if "'subject_id': 1," not in row]
    update_store("omop", delta, store, "people")
    assert glucose(store, 1) == [(datetime(2010, 1, 2), 95.0)]
    codes = SiteStore.open(store).narrowed(subjects=[1]).events()
    assert codes["time"].to_pylist()[-2] == datetime(1951, 3, 2)
    assert "MEDS_DEATH" not in codes["code"].to_pylist(), "it is in the delta no more"
    assert [row for row in events(store) if "'subject_id': 1," not in row] == others


def resource(kind: str, number: str, **more: object) -> str:
    return json.dumps({"resourceType": kind, "id": number, **more})


def observed(number: str, person: str, day: str, value: float) -> str:
    coding = {"system": "http://loinc.org", "code": "2345-7"}
    quantity = {"value": value, "system": "http://unitsofmeasure.org", "code": "mg/dL"}
    return resource(
        "Observation",
        number,
        status="final",
        subject={"reference": f"Patient/{person}"},
        code={"coding": [coding]},
        effectiveDateTime=day,
        valueQuantity=quantity,
    )


def bundle(folder: Path, **files: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, lines in files.items():
        (folder / f"{name}.ndjson").write_text("\n".join(lines) + "\n")
    return folder


def test_what_a_bulk_export_has_changed_since_adds_or_replaces(tmp_path: Path) -> None:
    people = [resource("Patient", f"p{n}", birthDate="1950-01-01") for n in (1, 2)]
    first = [observed(f"o{n}", f"p{n}", "2020-01-01", 90.0 + n) for n in (1, 2)]
    export = bundle(tmp_path / "export", Patient=people, Observation=first)
    (store,) = ingest("fhir", export, tmp_path / "store")
    who = SiteStore.open(store).subjects().tolist()
    since = bundle(tmp_path / "since", Observation=[observed("o3", "p1", "2020-02-01", 99.0)])
    update_store("fhir", since, store, "rows")
    assert SiteStore.open(store).subjects().tolist() == who
    found = {n: [value for _, value in glucose(store, n)] for n in who}
    assert sorted(found.values()) == [[91.0, 99.0], [92.0]]
    whole = bundle(
        tmp_path / "whole",
        Patient=people[:1],
        Observation=[observed("o1", "p1", "2020-01-01", 95.0)],
    )
    update_store("fhir", whole, store, "people")
    found = {n: [value for _, value in glucose(store, n)] for n in who}
    assert sorted(found.values()) == [[92.0], [95.0]]
