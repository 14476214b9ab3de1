"""Masses and amounts of one test meet, where the molar mass is known."""

from __future__ import annotations

import zipfile

import duckdb
import pytest

from healthfm_client.ingest.codes.molar_units import (
    G_PER_MOL,
    OF_AMOUNT,
    canonical_lab,
    unit_of,
)
from healthfm_client.ingest.codes.units import Unit


@pytest.mark.parametrize(
    ("code", "text", "value", "unit", "becomes"),
    [
        ("LOINC//2345-7", "mmol/L", 5.0, "mg/dL", 90.08),
        ("LOINC//2345-7", "mg/dL", 90.0, "mg/dL", 90.0),
        ("LOINC//2160-0", "umol/L", 100.0, "mg/dL", 1.131),
        ("LOINC//2093-3", "mmol/L", 5.0, "mg/dL", 193.3),
        ("LOINC//3094-0", "mmol/L", 5.0, "mg/dL", 14.01),
        ("LOINC//17861-6", "mmol/L", 2.4, "mg/dL", 9.619),
        ("LOINC//718-7", "mmol/L", 9.0, "mg/dL", 14503.0),
        ("LOINC//1988-5", "mmol/L", 9.0, "mmol/L", 9.0),
        ("LOINC//19123-9", "mEq/L", 1.7, "mg/dL", 2.066),
        ("LOINC//17861-6", "meq/L", 4.8, "mg/dL", 9.619),
        ("LOINC//1995-0", "mEq/L", 2.4, "mmol/L", 1.2),
        ("LOINC//2951-2", "mEq/L", 140.0, "mmol/L", 140.0),
        ("LOINC//2777-1", "mEq/L", 2.0, "meq/L", 2.0),
        ("LOCAL//magnesium", "mEq/L", 1.7, "meq/L", 1.7),
        ("LOINC//4548-4", "mmol/mol", 48.0, "%", 6.543),
        ("LOINC//59261-8", "mmol/mol", 48.0, "%", 6.543),
        ("LOINC//17856-6", "mmol/mol{Hb}", 48.0, "%", 6.543),
        ("SNOMED//999791000000106", "mmol/mol", 48.0, "%", 6.543),
        ("LOINC//4548-4", "%", 6.5, "%", 6.5),
        ("LOINC//9318-7", "mmol/mol", 3.0, "mmol/mol", 3.0),
        ("LOINC//785-6", "fmol", 1.86, "pg", 29.97),
        ("LOINC//777-3", "G/L", 250.0, "10*9/L", 250.0),
        ("LOINC//718-7", "G/L", 145.0, "mg/dL", 14500.0),
        ("SNOMED//2345-7", "mmol/L", 5.0, "mmol/L", 5.0),
    ],
)
def test_a_number_is_brought_to_what_its_code_says(code, text, value, unit, becomes):
    found = unit_of(code, text)
    assert found.name == unit
    assert value * found.factor + found.offset == pytest.approx(becomes, rel=1e-3)


def test_hba1c_of_the_ifcc_meets_that_of_the_ngsp():
    """48 mmol/mol is 6.5 %, the threshold of diabetes, under either code of LOINC's."""
    for code in ("LOINC//59261-8", "LOINC//4548-4"):
        test, its = canonical_lab(code, "mmol/mol")
        assert (test, its.name) == ("LOINC//4548-4", "%")
        assert 48 * its.factor + its.offset == pytest.approx(6.5, abs=0.05)
    assert canonical_lab("LOINC//59261-8", "%")[0] == "LOINC//59261-8"


@pytest.mark.parametrize("amount", [("14682-9", "umol/L", 100.0), ("14682-9", "mg/dL", 1.1312)])
def test_codes_of_an_amount_and_of_a_mass_meet(amount):
    """Creatinine at two sites: 100 µmol/L under one code is 1.1312 mg/dL under the other."""
    code, unit, value = amount
    test, its = canonical_lab(f"LOINC//{code}", unit)
    assert (test, its.name) == ("LOINC//2160-0", "mg/dL")
    assert value * its.factor + its.offset == pytest.approx(1.1312, rel=1e-4)


def test_an_amount_in_no_unit_of_either_keeps_its_code():
    assert canonical_lab("LOINC//14682-9", "mmol") == ("LOINC//14682-9", unit_of("", "mmol"))
    assert canonical_lab("LOINC//14682-9", None)[0] == "LOINC//14682-9"
    assert canonical_lab("SNOMED//14682-9", "umol/L")[0] == "SNOMED//14682-9"


def test_every_mass_that_an_amount_becomes_has_a_molar_mass():
    assert set(OF_AMOUNT.values()) <= set(G_PER_MOL)


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
    masses = {code: named[code] for code in G_PER_MOL if code in named}
    amounts = {code: named[code] for code in OF_AMOUNT if code in named}
    assert len(masses) >= 8
    assert all("[Mass/volume]" in text for text in masses.values()), masses
    assert all("[Moles/volume]" in text for text in amounts.values()), amounts
    pairs = [(named[a], named[m]) for a, m in OF_AMOUNT.items() if {a, m} <= named.keys()]
    assert all(a.replace("[Moles", "[Mass") == m for a, m in pairs), pairs


def test_a_number_alone_is_no_unit():
    """A code of another system, which UCUM's parser takes for a factor."""
    assert canonical_lab("LOINC//8867-4", "258983007")[1] == Unit("258983007")
