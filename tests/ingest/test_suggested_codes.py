"""Standard codes suggested by what codes are called: a person accepts them, nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from healthfm_client.__main__ import main
from healthfm_client.ingest.codes.suggested_codes import Suggestion, suggest_codes
from healthfm_core.errors import IngestError
from tests.ingest.test_code_mapping import events, found, mapped, written

CONCEPTS = (
    "concept_id\tvocabulary_id\tconcept_code\tconcept_name\tstandard_concept\n"
    "1\tLOINC\t2345-7\tGlucose [Mass/volume] in Serum\tS\n"
    "2\tLOINC\t2951-2\tSodium [Moles/volume] in Serum\tS\n"
    "3\tLOINC\t9999-9\tSodium [Moles/volume] in Urine\tS\n"
    "4\tOLD\t1\tGlucose serum\t\n"
)
GLUCOSE, SODIUM = "LAB//Glucose serum", "LAB//Sodium, serum"


def vocabulary(folder: Path) -> Path:
    folder.mkdir()
    (folder / "CONCEPT.csv").write_text(CONCEPTS)
    return folder


def store(tmp_path: Path) -> Path:
    rows = [(f"{SODIUM}//mmol/L", 140.0), (f"{GLUCOSE}//mg/dL", 90.0), ("LOINC//1//g/L", 1.0)]
    return mapped(tmp_path, events(tmp_path / "in", *rows, ("LAB//Xyz", None)))


def suggested(tmp_path: Path) -> list[Suggestion]:
    return suggest_codes(store(tmp_path), vocabulary(tmp_path / "athena"), least=0.1)


def test_the_standard_concept_that_is_called_alike_comes_first(tmp_path):
    found = suggested(tmp_path)
    first = {one.source_code: one.code for one in reversed(found)}
    assert first == {GLUCOSE: "LOINC//2345-7", SODIUM: "LOINC//2951-2"}
    assert {one.code for one in found if one.source_code == SODIUM} >= {"LOINC//9999-9"}
    assert all(0 < one.score < 1 and one.rows == 1 for one in found)


@pytest.mark.parametrize(("answer", "taken"), [("", False), ("no", False), ("Yes", True)])
def test_only_what_a_person_accepts_is_mapped(tmp_path, answer, taken):
    out = tmp_path / "suggested.csv"
    given = ["suggest", str(store(tmp_path)), "--vocabulary", str(vocabulary(tmp_path / "athena"))]
    assert main([*given, "--out", str(out), "--most", "1", "--least", "0.1"]) == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "accept,source_code,source_name,code,description,score,rows"
    said = [f"{answer}{line}" if line.startswith(f",{GLUCOSE}") else line for line in lines]
    table = written(tmp_path / "map.csv", "\n".join(said) + "\n")
    again = tmp_path / "again"
    again.mkdir()
    codes = [code for code, _ in found(mapped(again, tmp_path / "in", table))]
    assert ("LOINC//2345-7//mg/dL" in codes) is taken
    assert (f"{GLUCOSE}//mg/dL" in codes) is not taken
    assert f"{SODIUM}//mmol/L" in codes


def test_a_folder_without_concepts_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(IngestError, match="there is no CONCEPT in it"):
        suggest_codes(store(tmp_path), tmp_path / "empty")
