"""Codes that bear a unit, and units beside numbers, in sources of MEDS's form."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.codes.distinct_codes import CodeAndUnit
from healthfm_client.ingest.codes.molar_units import canonical_lab
from healthfm_client.ingest.codes.written_units import in_store_unit, in_store_units
from tests.ingest.test_hundred_labs import LABS


@pytest.mark.parametrize(
    ("code", "unit", "becomes", "factor"),
    [
        ("LOINC//2345-7//g/L", None, "LOINC//2345-7//mg/dL", 100.0),
        ("LOINC/2345-7", "g/L", "LOINC//2345-7//mg/dL", 100.0),
        ("LOINC//14682-9//<umol/L", None, "LOINC//2160-0//<mg/dL", 0.011312),
        ("LOINC//2345-7//mg/dL", "g/L", "LOINC//2345-7//mg/dL", 1.0),
        ("LOINC//2345-7//mg/dL//fasting", None, "LOINC//2345-7//mg/dL//fasting", 1.0),
        ("LOINC//2345-7", None, "LOINC//2345-7", 1.0),
        ("LAB//50931//g/L", None, "LAB//50931//g/L", 1.0),
        ("LAB//50931", "g/L", "LAB//50931//mg/dL", 100.0),
        ("Visit/IP//END", None, "Visit//IP//END", 1.0),
        ("WARD/7", None, "WARD/7", 1.0),
        ("MEDS_BIRTH", None, "MEDS_BIRTH", 1.0),
    ],
)
def test_a_number_comes_under_the_stores_code_in_its_unit(code, unit, becomes, factor):
    assert in_store_unit(code, unit, True) == CodeAndUnit(becomes, pytest.approx(factor))


def test_without_a_number_nothing_behind_a_code_is_a_unit():
    said = "LOINC//72166-2//SNOMED:8517006"
    assert in_store_unit(said, None, False) == CodeAndUnit(said)
    assert in_store_unit("LOINC//2345-7//g/L", None, False) == CodeAndUnit("LOINC//2345-7//g/L")


@pytest.mark.parametrize("code", LABS)
def test_what_a_reader_wrote_comes_through_as_it_is(code):
    """So a store that is read again does not change."""
    for spelling in LABS[code]:
        test, its = canonical_lab(f"LOINC//{code}", spelling)
        stored = f"{test}//{its.name}" if its.name else test
        assert in_store_unit(stored, None, True) == CodeAndUnit(stored)


def dataset(folder: Path, rows: dict[str, list], described: list[dict]) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "metadata").mkdir()
    time = pa.array(range(len(rows["code"])), pa.timestamp("us"))
    events = {"subject_id": pa.array([1] * len(time), pa.int64()), "time": time}
    pq.write_table(pa.table(events | rows), folder / "data" / "0.parquet")
    kinds = [("code", pa.string()), ("description", pa.string())]
    kinds.append(("parent_codes", pa.list_(pa.string())))
    codes = pa.Table.from_pylist(described, schema=pa.schema(kinds))
    pq.write_table(codes, folder / "metadata" / "codes.parquet")
    about = {"dataset_name": "made", "dataset_version": "1", "meds_version": "0.4.0"}
    (folder / "metadata" / "dataset.json").write_text(json.dumps(about))
    return folder


def test_what_a_dataset_says_of_its_codes_goes_with_them(tmp_path):
    rows = {
        "code": ["LOINC/2345-7", "LOINC/2345-7", "SNOMED/44054006"],
        "numeric_value": pa.array([5.0, 90.0, None], pa.float32()),
        "unit": ["mmol/L", "mg/dL", None],
    }
    described = [
        {"code": "LOINC/2345-7", "description": "Glucose", "parent_codes": None},
        {"code": "SNOMED/44054006", "description": "Type 2", "parent_codes": ["SNOMED/73211009"]},
    ]
    (store,) = ingest("meds", dataset(tmp_path / "in", rows, described), tmp_path / "out")
    numbers = f"select code, round(numeric_value, 2) from '{store}/data/*/*.parquet' order by time"
    assert duckdb.sql(numbers).fetchall() == [
        ("LOINC//2345-7//mg/dL", pytest.approx(90.08)),
        ("LOINC//2345-7//mg/dL", 90.0),
        ("SNOMED//44054006", None),
    ]
    said = duckdb.sql(f"from '{store}/metadata/codes.parquet'").fetchall()
    assert sorted(said) == [
        ("LOINC//2345-7", "Glucose", None),
        ("LOINC//2345-7//mg/dL", "Glucose", ["LOINC//2345-7"]),
        ("SNOMED//44054006", "Type 2", ["SNOMED//73211009"]),
    ]


def test_two_rows_that_become_one_are_a_double(tmp_path):
    rows = {
        "code": ["LOINC//2345-7//g/L", "LOINC//2345-7//mg/dL"],
        "numeric_value": pa.array([0.5, 50.0], pa.float32()),
        "time": pa.array([0, 0], pa.timestamp("us")),
    }
    (store,) = ingest("meds", dataset(tmp_path / "in", rows, []), tmp_path / "out")
    marker = json.loads((store / "metadata" / "dataset.json").read_text())
    assert marker["healthfm"]["rejected"] == {"duplicate": 1}


def test_rows_in_the_stores_units_are_left_alone():
    rows = {"code": ["LOINC//2345-7//mg/dL", "LAB//1//g/L"], "numeric_value": [90.0, 1.0]}
    events = pa.table(rows)
    assert in_store_units(events) == (events, {})


def test_an_event_table_is_read_in_the_stores_units(tmp_path):
    """Codes are a dictionary there, and come in several parts."""
    one = {
        "subject_id": pa.array([1, 1, 2], pa.int64()),
        "time": pa.array([1, 2, 3], pa.timestamp("us")),
        "code": pa.array(["LOINC//2345-7", "LAB//7//g/L", "LOINC//2345-7//mmol/L"]),
        "numeric_value": pa.array([0.9, 1.0, 5.0], pa.float32()),
        "unit": pa.array(["g/L", None, None]),
    }
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table(one), tmp_path / "in" / f"{name}.parquet", row_group_size=1)
        one["subject_id"] = pa.array([3, 3, 4], pa.int64())
    (store,) = ingest("event_table", tmp_path / "in", tmp_path / "out", site_column="")
    numbers = f"select code, round(numeric_value, 2) from '{store}/data/*/*.parquet' order by all"
    assert duckdb.sql(numbers).fetchall() == [
        *[("LAB//7//g/L", 1.0)] * 2,
        *[("LOINC//2345-7//mg/dL", 90.0)] * 2,
        *[("LOINC//2345-7//mg/dL", pytest.approx(90.08))] * 2,
    ]
