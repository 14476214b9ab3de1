"""Masses and amounts of one test meet, where the molar mass is known."""

from __future__ import annotations

import zipfile

import duckdb
import pytest

from healthfm_client.ingest.molar import G_PER_MOL_OF_AMOUNT, G_PER_MOL_OF_MASS, unit_of


@pytest.mark.parametrize(
    ("code", "text", "value", "unit", "becomes"),
    [
        ("LOINC//2345-7", "mmol/L", 5.0, "mg/dL", 90.08),
        ("LOINC//2345-7", "mg/dL", 90.0, "mg/dL", 90.0),
        ("LOINC//15074-8", "mg/dL", 90.0, "mmol/L", 4.996),
        ("LOINC//2160-0", "umol/L", 100.0, "mg/dL", 1.131),
        ("LOINC//2093-3", "mmol/L", 5.0, "mg/dL", 193.3),
        ("LOINC//3094-0", "mmol/L", 5.0, "mg/dL", 14.01),
        ("LOINC//17861-6", "mmol/L", 2.4, "mg/dL", 9.619),
        ("LOINC//718-7", "mmol/L", 9.0, "mmol/L", 9.0),
        ("SNOMED//2345-7", "mmol/L", 5.0, "mmol/L", 5.0),
    ],
)
def test_a_number_is_brought_to_what_its_code_says(code, text, value, unit, becomes):
    found = unit_of(code, text)
    assert found.name == unit
    assert value * found.factor + found.offset == pytest.approx(becomes, rel=1e-3)


@pytest.mark.realdata
def test_the_codes_are_what_loinc_calls_them(shared_data, tmp_path):
    with zipfile.ZipFile(
        shared_data / "formats" / "omop_synthea27nj" / "Synthea27NjParquet_5.4.zip"
    ) as whole:
        name = next(n for n in whole.namelist() if n.endswith("/concept.parquet") and "._" not in n)
        (tmp_path / "concept.parquet").write_bytes(whole.read(name))
    named = dict(
        duckdb.sql(
            f"select concept_code, concept_name from '{tmp_path}/concept.parquet' "
            "where vocabulary_id = 'LOINC'"
        ).fetchall()
    )
    masses = {code: named[code] for code in G_PER_MOL_OF_MASS if code in named}
    amounts = {code: named[code] for code in G_PER_MOL_OF_AMOUNT if code in named}
    assert len(masses) >= 8
    assert all("[Mass/volume]" in text for text in masses.values()), masses
    assert all("[Moles/volume]" in text for text in amounts.values()), amounts
