"""The mapping files of docs/any-tables.md on the data sets' own columns, and eICU taken apart."""

from __future__ import annotations

import gzip
import re
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.codes.distinct_codes import tidy
from healthfm_client.ingest.tables.event_mapping import read_mapping
from healthfm_core.data.store.site_store import SiteStore
from tests.ingest.test_mapped_tables import rows, store_of

PAGE = Path(__file__).parents[2] / "docs" / "any-tables.md"
PEOPLE = {
    "patient_id": ["P1", "P2"],
    "sex_category": ["Female", "Male"],
    "race_category": ["White", "Unknown"],
    "ethnicity_category": ["Hispanic", "Non-Hispanic"],
    "birth_date": pa.array([datetime(1950, 3, 2), datetime(1960, 1, 1)], pa.timestamp("us")),
}
MIMIC = {
    "hosp/patients": "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
    "10000032,F,52,2180,2014 - 2016,2180-09-09\n10000048,M,23,2126,2008 - 2010,\n",
    "hosp/admissions": "subject_id,hadm_id,admittime,dischtime,deathtime,admission_type,"
    "admit_provider_id,admission_location,discharge_location,insurance,language,marital_status,"
    "race,edregtime,edouttime,hospital_expire_flag\n"
    "10000032,22595853,2180-05-06 22:23:00,2180-05-07 17:15:00,,URGENT,P49,"
    "TRANSFER FROM HOSPITAL,HOME,Medicaid,English,WIDOWED,WHITE,2180-05-06 19:17:00,"
    "2180-05-06 23:30:00,0\n"
    "10000048,22841357,2126-06-26 18:27:00,2126-06-27 18:49:00,2126-06-27 18:49:00,EW EMER.,P78,"
    "EMERGENCY ROOM,,Medicaid,English,WIDOWED,BLACK/AFRICAN AMERICAN,,,1\n",
    "hosp/diagnoses_icd": "subject_id,hadm_id,seq_num,icd_code,icd_version\n"
    "10000032,22595853,1,5723,9\n10000048,22841357,1,K7030,10\n",
    "hosp/labevents": "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,"
    "charttime,storetime,value,valuenum,valueuom,ref_range_lower,ref_range_upper,flag,priority,"
    "comments\n"
    "1,10000032,,2704548,50931,P69,2180-05-06 22:30:00,2180-05-06 23:00:00,95,95.0,mg/dL,70,100,,"
    "ROUTINE,\n"
    "2,10000032,,2704548,51237,P69,2180-05-06 22:30:00,2180-05-06 23:00:00,___,,,,,,ROUTINE,x\n",
    "icu/chartevents": "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,"
    "valuenum,valueuom,warning\n"
    "10000032,22595853,39553978,18704,2180-05-07 12:36:00,2180-05-07 12:45:00,226512,39.4,39.4,kg,0"
    "\n10000032,22595853,39553978,18704,2180-05-07 12:36:00,2180-05-07 12:45:00,226707,High,,,0\n",
    "hosp/d_labitems": "itemid,label,fluid,category\n50931,Glucose,Blood,Chemistry\n",
}


def example(name: str) -> str:
    """Return the mapping file of a name from the page."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(f"# {name}\n")]
    return found


def test_every_mapping_file_of_the_page_is_one(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        file = tmp_path / "file.yaml"
        file.write_text(block)
        assert read_mapping(file)


def test_clif_is_read_by_the_pages_file(tmp_path):
    def at(*moments: datetime) -> pa.Array:
        return pa.array(moments, pa.timestamp("us", "UTC"))

    tables = {
        "clif_patient": {
            **PEOPLE,
            "death_dttm": at(datetime(2020, 3, 3, 3), None),
            "language_category": ["English", "English"],
        },
        "clif_hospitalization": {
            "patient_id": ["P1", "P2"],
            "hospitalization_id": ["H1", "H2"],
            "admission_dttm": at(datetime(2020, 3, 1, 12), datetime(2020, 5, 1, 12)),
            "discharge_dttm": at(datetime(2020, 3, 3, 3), datetime(2020, 5, 2, 12)),
            "admission_type_category": ["ed", "elective"],
            "discharge_category": ["Expired", "Home"],
        },
        "clif_labs": {
            "hospitalization_id": ["H1", "H2", "H1"],
            "lab_result_dttm": at(*[datetime(2020, 3, 1, 13)] * 3),
            "lab_category": ["creatinine", "creatinine", "lactate"],
            "lab_value": ["1.1", "97.2", "<0.5"],
            "lab_value_numeric": [1.1, 97.2, None],
            "reference_unit": ["mg/dL", "umol/L", "mmol/L"],
        },
        "clif_vitals": {
            "hospitalization_id": ["H1"],
            "recorded_dttm": at(datetime(2020, 3, 1, 13, 5)),
            "vital_category": ["heart_rate"],
            "vital_value": [88.0],
        },
        "clif_respiratory_support": {
            "hospitalization_id": ["H2", "H2"],
            "recorded_dttm": at(*[datetime(2020, 5, 1, 13)] * 2),
            "device_category": ["IMV", None],
            "fio2_set": [0.4, None],
            "peep_set": [None, 5.0],
        },
        "clif_hospital_diagnosis": {
            "hospitalization_id": ["H2"],
            "diagnosis_code": ["E11.9"],
            "diagnosis_code_format": ["ICD10CM"],
        },
    }
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), raw / f"{name}.parquet")
    file = tmp_path / "clif.yaml"
    file.write_text(example("clif.yaml"))
    store = store_of(tmp_path, raw, events=file, time_zone="America/Chicago")
    one, two = (
        {event[1:4] for event in rows(store) if event[0] == subject} for subject in store.subjects()
    )
    if (datetime(1950, 3, 2), "MEDS_BIRTH", None) in two:
        one, two = two, one
    f32 = pa.scalar(1.1, pa.float32()).as_py()
    assert one == {
        (None, "Gender//F", None),
        (None, "Race//5", None),
        (None, "Ethnicity//Hispanic", None),
        (datetime(1950, 3, 2), "MEDS_BIRTH", None),
        (datetime(2020, 3, 1, 6), "HOSPITAL_ADMISSION//ed", None),
        (datetime(2020, 3, 1, 7), "CLIF_LAB//creatinine//mg/dL", f32),
        (datetime(2020, 3, 1, 7), "CLIF_LAB//lactate", None),
        (datetime(2020, 3, 1, 7, 5), "CLIF_VITAL//heart_rate", 88.0),
        (datetime(2020, 3, 2, 21), "HOSPITAL_DISCHARGE//Expired", None),
        (datetime(2020, 3, 2, 21), "MEDS_DEATH", None),
    }
    assert (datetime(2020, 5, 2, 7), "ICD10CM//E11.9", None) in two
    assert any(code == "CLIF_LAB//creatinine//mmol/L" for _, code, _ in two)
    assert [event[1:] for event in sorted(two, key=str) if "RESPIRATORY" in event[1]] == [
        ("CLIF_RESPIRATORY//IMV", None),
        ("CLIF_RESPIRATORY//UNK", None),
        ("CLIF_RESPIRATORY//fio2_set", pa.scalar(0.4, pa.float32()).as_py()),
        ("CLIF_RESPIRATORY//peep_set", 5.0),
    ]
    assert store.rejected == {}


def test_mimic_iv_is_read_by_the_pages_file(tmp_path):
    for name, text in MIMIC.items():
        file = tmp_path / "raw" / f"{name}.csv.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode()))
    mapping = tmp_path / "mimic-iv.yaml"
    mapping.write_text(example("mimic-iv.yaml"))
    store = store_of(tmp_path, tmp_path / "raw", events=mapping, today="2220-12-31")
    late = datetime(2180, 5, 7, 12, 36)
    kg = pa.scalar(39.4, pa.float32()).as_py()
    assert {event[1:] for event in rows(store) if event[0] == 10000032} == {
        (None, "Gender//F", None, None),
        (None, "Race//5", None, None),
        (datetime(2128, 1, 1), "MEDS_BIRTH", None, None),
        (datetime(2180, 5, 6, 19, 17), "ED_REGISTRATION", None, None),
        (
            datetime(2180, 5, 6, 22, 23),
            "HOSPITAL_ADMISSION//URGENT//TRANSFER FROM HOSPITAL",
            None,
            None,
        ),
        (datetime(2180, 5, 6, 22, 30), "MIMIC_LAB//50931//mg/dL", 95.0, None),
        (datetime(2180, 5, 6, 22, 30), "MIMIC_LAB//51237", None, None),
        (late, "MIMIC_CHART//226512//kg", kg, None),
        (late, "MIMIC_CHART//226707", None, "High"),
        (datetime(2180, 5, 7, 17, 15), "HOSPITAL_DISCHARGE//HOME", None, None),
        (datetime(2180, 5, 7, 17, 15), "DIAGNOSIS//ICD//9//5723", None, None),
        (datetime(2180, 9, 9), "MEDS_DEATH", None, None),
    }
    other = {event[2]: event[1] for event in rows(store) if event[0] == 10000048}
    assert other["MEDS_DEATH"] == datetime(2126, 6, 27, 18, 49)
    assert other["MEDS_BIRTH"] == datetime(2103, 1, 1)
    assert "HOSPITAL_DISCHARGE//UNK" in other
    assert store.not_read == {
        "hosp/admissions/emergency: no time": 1,
        "hosp/d_labitems": 1,
    }


EICU = """
subject_id_col: patienthealthsystemstayid
_STATIC:
  fact: {code: $said, time: null, numeric_value: value}
lab: &timed
  join:
    input_prefix: patient
    left_on: visit
    right_on: visit
    columns_from_right: [patienthealthsystemstayid, admitted]
  result:
    code: f"{$domain}//{$said}"
    time: $admitted + $offset::seconds
    numeric_value: value
nursing: *timed
bare:
  join:
    input_prefix: patient
    left_on: visit
    right_on: visit
    columns_from_right: [patienthealthsystemstayid, admitted]
  event:
    code: col(said)
    time: $admitted + $offset::seconds
    numeric_value: value
"""
SPLIT_UP = """
create table e as select *, strpos(code, '//') as cut from '{events}';
create table p as select subject_id as patienthealthsystemstayid, 'v' || subject_id as visit,
    coalesce(min(time) filter (code <> 'MEDS_BIRTH'), min(time)) as admitted from e group by all;
create table o as select visit, left(code, cut - 1) as domain, substr(code, cut + 2) as tail,
    code, cut, date_diff('second', admitted, time) as "offset", numeric_value as value,
    subject_id, time from e join p on subject_id = patienthealthsystemstayid;
copy p to '{raw}/patient.parquet';
copy (select subject_id as patienthealthsystemstayid, code as said, value from o where time is null)
    to '{raw}/static.csv';
copy (select visit, domain, tail as said, "offset", value from o
    where time is not null and cut > 0 and domain in ('LAB', 'DX', 'MED')) to '{raw}/lab.csv.gz';
copy (select visit, domain, tail as said, "offset", value from o
    where time is not null and cut > 0 and domain not in ('LAB', 'DX', 'MED'))
    to '{raw}/nursing.parquet';
copy (select visit, code as said, "offset", value from o where time is not null and cut = 0)
    to '{raw}/bare.tsv' (delimiter '\t');
"""


@pytest.mark.realdata
def test_eicu_taken_apart_into_tables_gives_the_same_events(tmp_path, shared_data):
    source = shared_data / "eicu_demo" / "events.parquet"
    raw = tmp_path / "raw"
    raw.mkdir()
    with duckdb.connect() as connection:
        connection.execute(SPLIT_UP.format(events=source, raw=raw))
    (raw / "events.yaml").write_text(EICU.replace("_STATIC", "static"))
    mapped = store_of(tmp_path, raw)
    (out,) = ingest("event_table", source, tmp_path / "whole", site_column="", max_set_aside=1)
    whole = SiteStore.open(out)
    assert mapped.rejected == whole.rejected
    assert mapped.not_read == {}
    assert mapped.events().num_rows > 1_000_000
    one, other = (sorted_rows(store) for store in (mapped, whole))
    assert one.equals(other)


def sorted_rows(store: SiteStore) -> pa.Table:
    """Return a store's events, sorted, under tidy codes, as a store writes those of raw tables."""
    events = store.events().select(["subject_id", "time", "code", "numeric_value"])
    codes = events["code"].cast(pa.string()).dictionary_encode().unify_dictionaries()
    chunks = codes.combine_chunks()
    texts = pa.array([tidy(code) for code in chunks.dictionary.to_pylist()])
    events = events.set_column(2, "code", texts.take(chunks.indices))
    return events.sort_by([(name, "ascending") for name in events.column_names]).combine_chunks()
