"""Sex, race, visits and death are one code each, whoever reads them."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.codes.shared_spellings import shared_spelling
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from tests.data.conftest import table
from tests.ingest.test_chf_actigraphy import days

AT = datetime(2020, 1, 1)
SHARED = {
    "Gender//F",
    "Race//5",
    "Ethnicity//Hispanic",
    "Visit//IP",
    "Visit//IP//END",
    "MEDS_DEATH",
}
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"


def omb(kind: str, code: str) -> dict:
    return {
        "url": US_CORE + kind,
        "extension": [{"url": "ombCategory", "valueCoding": {"code": code}}],
    }


def fhir(folder: Path) -> Path:
    who = {"subject": {"reference": "Patient/7"}}
    found = [
        {"resourceType": "Patient", "id": "7", "gender": "female", "deceasedDateTime": "2021"}
        | {"extension": [omb("race", "2106-3"), omb("ethnicity", "2135-2"), {"url": "other"}]},
        {"resourceType": "Encounter", "class": {"code": "IMP"}, **who}
        | {"period": {"start": "2020-01-01", "end": "2020-01-03"}},
    ]
    folder.mkdir()
    (folder / "all.ndjson").write_text("\n".join(map(json.dumps, found)))
    return folder


def omop(folder: Path, *, concepts: bool) -> Path:
    of = "8532,8527,38003563,,," if concepts else "0,0,,female,White,hispanic"
    stay = "9201," if concepts else "0,Inpatient"
    tables = {
        "person": "person_id,year_of_birth,gender_concept_id,race_concept_id,"
        "ethnicity_concept_id,gender_source_value,race_source_value,ethnicity_source_value\n"
        f"7,1950,{of}\n",
        "visit_occurrence": "person_id,visit_concept_id,visit_source_value,visit_start_date,"
        f"visit_end_date\n7,{stay},2020-01-01,2020-01-03\n",
        "death": "person_id,death_date\n7,2021-01-01\n",
    }
    folder.mkdir()
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def events(*codes: str) -> pa.Table:
    size = len(codes)
    return pa.table(
        {
            "subject_id": pa.array([7] * size, pa.int64()),
            "time": pa.array([AT] * size, pa.timestamp("us")),
            "code": list(codes),
            "numeric_value": pa.nulls(size, pa.float32()),
        }
    )


AS_MIMIC = ("GENDER//F", "RACE//WHITE - RUSSIAN", "ETHNICITY//Hispanic", "VISIT//Inpatient")
AS_MIMIC += ("VISIT//inpatient//end", "DEATH", "LAB//x")


def event_table(folder: Path) -> Path:
    folder.mkdir()
    pq.write_table(events(*AS_MIMIC), folder / "events.parquet")
    return folder


def meds(folder: Path) -> Path:
    rows = [(7, AT, code, None, None) for code in ("Gender//F", *AS_MIMIC)]
    writer = StoreWriter(folder, dataset_name="a")
    writer.add_events(table(rows))
    writer.write()
    return folder


def codes(folder: Path) -> set[str]:
    found = duckdb.sql(f"select distinct code from '{folder}/data/*/*.parquet'").fetchall()
    return {code for (code,) in found} - {"MEDS_BIRTH", "LAB//x"}


@pytest.mark.parametrize("source", ["fhir", "omop", "omop without concepts", "event_table"])
def test_every_reader_spells_a_person_and_a_stay_alike(tmp_path, source):
    path, options = tmp_path / "in", {}
    if source == "fhir":
        fhir(path)
    elif source == "event_table":
        event_table(path)
        options["site_column"] = ""
    else:
        omop(path, concepts=source == "omop")
    (out,) = ingest(source.split()[0], path, tmp_path / "out", **options)
    assert codes(out) == SHARED


def test_two_spellings_in_a_meds_dataset_are_one_event_of_one_described_code(tmp_path):
    (out,) = ingest("meds", meds(tmp_path / "in"), tmp_path / "out")
    store = SiteStore.open(out)
    store.check()
    assert codes(out) == SHARED
    assert store.rejected == {"duplicate": 1}
    described = duckdb.sql(f"select code from '{out}/metadata/codes.parquet'").fetchall()
    assert {code for (code,) in described} == SHARED | {"LAB//x"}


def test_actigraphy_says_sex_as_a_hospital_does(tmp_path):
    pq.write_table(days(gender=["Female", "Female"]), tmp_path / "chf_minutes.parquet")
    (out,) = ingest("chf_actigraphy", tmp_path, tmp_path / "out", summaries=False)
    assert codes(out) == {"Gender//F", "BMI"}


@pytest.mark.parametrize(
    ("code", "spelled"),
    [
        ("Gender//F", "Gender//F"),
        ("SEX//male", "Gender//M"),
        ("GENDER//intersex", "GENDER//intersex"),
        ("RACE//Black or African American", "Race//3"),
        ("ETHNICITY//Caucasian", "Race//5"),
        ("Race//5", "Race//5"),
        ("RACE//Martian", "RACE//Martian"),
        ("Visit//ER//END", "Visit//ER//END"),
        ("VISIT//Outpatient", "Visit//OP"),
        ("VISIT//IP//BED 7", "VISIT//IP//BED 7"),
        ("death", "MEDS_DEATH"),
        ("DEATH//cause", "DEATH//cause"),
        ("LOINC//2345-7//mg/dL", "LOINC//2345-7//mg/dL"),
    ],
)
def test_only_what_is_known_is_respelt(code, spelled):
    assert shared_spelling(code) == spelled
    assert shared_spelling(spelled) == spelled
