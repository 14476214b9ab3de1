"""Parents of codes from a file, with and without a vocabulary in the source."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.schemas import CODES
from healthfm_core.errors import IngestError

CDM = Path(__file__).with_name("omop_cdm")


def codes_of(store: Path) -> dict[str, tuple[str | None, list[str] | None]]:
    rows = pq.read_table(store / "metadata" / "codes.parquet").to_pylist()
    return {row["code"]: (row["description"], row["parent_codes"]) for row in rows}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_codes_of_a_table_go_up_as_the_file_says(tmp_path, source, form):
    file = tmp_path / f"codes.{form}"
    if form == "csv":
        file.write_text("code,parent,description\nA,TOP,a thing\nA,SIDE,\nTOP,ALL,\nZ,ALL,\n")
    else:
        above = pa.array([["TOP", "SIDE"], ["ALL"], ["ALL"]], pa.list_(pa.string()))
        table = {"code": ["A", "TOP", "Z"], "description": ["a thing", None, None]}
        pq.write_table(pa.table(table | {"parent_codes": above}, schema=CODES), file)
    found = [codes_of(path) for path in ingest("event_table", source, tmp_path / "out", codes=file)]
    with_a = next(codes for codes in found if "A" in codes)
    assert [sorted(codes) for codes in found if codes != with_a] == [["B"]]
    assert sorted(with_a) == ["A", "ALL", "B", "SIDE", "TOP"]
    assert with_a["A"] == ("a thing", ["SIDE", "TOP"])
    assert with_a["TOP"] == (None, ["ALL"])
    assert with_a["B"] == (None, None)
    assert "Z" not in with_a


def test_a_file_adds_to_what_the_vocabulary_says(tmp_path):
    file = tmp_path / "codes.csv"
    file.write_text("code,parent\nSNOMED//44054006,GROUP//metabolic\nLOINC//2345-7,GROUP//sugar\n")
    (path,) = ingest("omop", CDM, tmp_path / "out", codes=file)
    found = codes_of(path)
    assert found["SNOMED//44054006"] == (
        "Type 2 diabetes mellitus",
        ["GROUP//metabolic", "SNOMED//73211009"],
    )
    assert found["LOINC//2345-7//mg/dL"][1] == ["LOINC//2345-7"]
    assert found["LOINC//2345-7"] == ("Glucose", ["GROUP//sugar"])
    assert found["GROUP//sugar"] == (None, None)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (None, 303),
        ("code,above\nA,B\n", 307),
        ("code,parent\n", 306),
        ("code,parent\nA,B\nB,C\nC,A\n", 308),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, source, text, number):
    file = tmp_path / "codes.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(IngestError, match=f"HF-{number}"):
        ingest("event_table", source, tmp_path / "out", codes=file)
    assert not (tmp_path / "out").exists()
