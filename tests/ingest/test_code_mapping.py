"""`--map`: codes replaced by tables of the site's own."""

from __future__ import annotations

import json
import random
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.__main__ import main
from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import HealthFMError, IngestError
from tests.ingest.hostile import corrupt
from tests.ingest.test_fhir import WHO, concept

AT = datetime(2020, 1, 1)
CONCEPTS = (
    "concept_id\tvocabulary_id\tconcept_code\tconcept_name\n"
    "3004501\tLOINC\t2345-7\tGlucose\n"
    "201826\tSNOMED\t44054006\tType 2 diabetes\n"
    "4000\tSNOMED\t4000\tNeuropathy\n"
    "45\tICD10CM\tE11.40\tDiabetes with neuropathy\n"
)
STEPS = (
    "concept_id_1\tconcept_id_2\trelationship_id\tinvalid_reason\n"
    "45\t201826\tMaps to\t\n"
    "45\t4000\tMaps to\t\n"
    "45\t3004501\tMaps to\tD\n"
    "201826\t201826\tMaps to\t\n"
    "45\t3004501\tIs a\t\n"
)
LOCAL = "source_code,source_vocabulary_id,target_concept_id,invalid_reason\n"


def athena(folder: Path) -> Path:
    folder.mkdir()
    (folder / "CONCEPT.csv").write_text(CONCEPTS)
    (folder / "CONCEPT_RELATIONSHIP.csv").write_text(STEPS)
    return folder


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def events(folder: Path, *rows: tuple[str, float | None]) -> Path:
    folder.mkdir()
    code, value = zip(*rows, strict=True)
    size = len(rows)
    columns = {
        "subject_id": pa.array([7] * size, pa.int64()),
        "time": pa.array([AT] * size, pa.timestamp("us")),
        "code": pa.array(code),
        "numeric_value": pa.array(value, pa.float32()),
    }
    pq.write_table(pa.table(columns), folder / "events.parquet")
    return folder


def found(store: Path) -> list[tuple]:
    value = "round(numeric_value::double, 1)"
    sql = f"select code, {value} from '{store}/data/*/*.parquet' order by all"
    return duckdb.sql(sql).fetchall()


def beside(store: Path) -> list[tuple]:
    return duckdb.sql(f"from '{store}/metadata/source_codes.parquet'").fetchall()


def mapped(tmp_path: Path, source: Path, *maps: Path, reader: str = "event_table") -> Path:
    options = {"site_column": ""} if reader == "event_table" else {}
    (out,) = ingest(reader, source, tmp_path / "out", map=maps, **options)
    SiteStore.open(out).check()
    return out


def test_a_table_of_codes_replaces_them_with_units_and_keeps_the_sources_beside(tmp_path):
    table = written(
        tmp_path / "map.csv",
        "source_code,code,unit,description\n"
        "LAB//GLU,LOINC//2345-7,mmol/L,Glucose\n"
        "SUGAR,LOINC//2345-7,,\n",
    )
    source = events(
        tmp_path / "in", ("LAB//GLU", 5.0), ("GLUCO//SUGAR//g/L", 1.0), ("LAB//NA", 140.0)
    )
    out = mapped(tmp_path, source, table)
    assert found(out) == [
        ("LAB//NA", 140.0),
        ("LOINC//2345-7//mg/dL", 90.1),
        ("LOINC//2345-7//mg/dL", 100.0),
    ]
    assert beside(out) == [
        ("LOINC//2345-7//mg/dL", "GLUCO//SUGAR//g/L", 1),
        ("LOINC//2345-7//mg/dL", "LAB//GLU", 1),
    ]
    known = dict(
        duckdb.sql(
            f"select code, description from '{out}/metadata/codes.parquet' where code <> 'LAB//NA'"
        ).fetchall()
    )
    assert known == {"LOINC//2345-7": "Glucose", "LOINC//2345-7//mg/dL": None}


def test_maps_to_of_a_vocabulary_leads_to_each_standard_concept(tmp_path):
    source = events(tmp_path / "in", ("ICD10CM//E11.40", None), ("SNOMED//44054006", None))
    out = mapped(tmp_path, source, athena(tmp_path / "athena"))
    assert [code for code, _ in found(out)] == ["SNOMED//4000", "SNOMED//44054006"]
    assert SiteStore.open(out).rejected == {"duplicate": 1}
    assert beside(out) == [
        ("SNOMED//4000", "ICD10CM//E11.40", 1),
        ("SNOMED//44054006", "ICD10CM//E11.40", 1),
    ]


@pytest.mark.parametrize("place", ["beside the map", "in the source", "a map of its own"])
def test_source_to_concept_map_names_concepts_by_the_tables_there_are(tmp_path, place):
    source = tmp_path / "in"
    tables = {
        "person": "person_id,year_of_birth\n7,1950\n",
        "measurement": "person_id,measurement_concept_id,measurement_date,value_as_number,"
        "measurement_source_value,unit_source_value\n7,0,2020-01-01,5,GLU,mmol/L\n",
    }
    source.mkdir()
    for name, text in tables.items():
        (source / f"{name}.csv").write_text(text)
    (tmp_path / "maps").mkdir()
    map_file = written(
        tmp_path / "maps" / "local.csv",
        f"{LOCAL}GLU,OUR_LAB,3004501,\nGLU,OUR_LAB,201826,D\nNA,OUR_LAB,0,\n",
    )
    maps = [map_file]
    if place == "a map of its own":
        maps.append(athena(tmp_path / "athena"))
    else:
        folder = source if place == "in the source" else tmp_path / "maps"
        (folder / "concept.csv").write_text(CONCEPTS)
    out = mapped(tmp_path, source, *maps, reader="omop")
    assert ("LOINC//2345-7//mg/dL", 90.1) in found(out)
    assert [source for _, source, _ in beside(out)] == ["MEASUREMENT_SOURCE//GLU//mmol/L"]


def test_of_usagis_file_what_is_approved_counts(tmp_path):
    table = written(
        tmp_path / "usagi.csv",
        "sourceCode,sourceName,matchScore,mappingStatus,conceptId,conceptName\n"
        'GLU,"Glukose, nüchtern",0.9,APPROVED,3004501,Glucose\n'
        "NA,Natrium,0.4,UNCHECKED,201826,Type 2 diabetes\n",
    )
    lab = {"resourceType": "Observation", "subject": WHO, "effectiveDateTime": "2020-01-01"}
    local = "urn:hospital:lab"
    rows = [
        lab | {"code": concept(local, "GLU"), "valueQuantity": {"value": 5, "code": "mmol/L"}},
        lab
        | {"code": concept(local, "GLU")}
        | {"valueQuantity": {"value": 50, "code": "mg/dL", "comparator": "<"}},
        lab | {"code": concept(local, "NA"), "valueQuantity": {"value": 140, "code": "mmol/L"}},
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "all.ndjson").write_text("\n".join(map(json.dumps, rows)))
    out = mapped(tmp_path, tmp_path / "in", table, athena(tmp_path / "athena"), reader="fhir")
    assert found(out) == [
        ("LOINC//2345-7//<mg/dL", 50.0),
        ("LOINC//2345-7//mg/dL", 90.1),
        ("lab//NA//mmol/L", 140.0),
    ]


def test_a_code_of_a_vocabulary_is_never_taken_for_one_of_a_local_list(tmp_path):
    table = written(tmp_path / "map.csv", "source_code,code\n250,LOINC//2345-7\n")
    source = events(tmp_path / "in", ("ICD9CM//250", None), ("LAB//250", None))
    out = mapped(tmp_path, source, table)
    assert [code for code, _ in found(out)] == ["ICD9CM//250", "LOINC//2345-7"]


def test_what_two_lists_say_differently_is_left_as_it_is(tmp_path):
    table = written(
        tmp_path / "map.csv", f"{LOCAL}1,LAB,3004501,\n1,WARD,201826,\n2,LAB,4000,\n2,WARD,4000,\n"
    )
    source = events(tmp_path / "in", ("X//1", None), ("X//2", None), ("LAB//1", None))
    out = mapped(tmp_path, source, table, athena(tmp_path / "athena"))
    assert [code for code, _ in found(out)] == ["LOINC//2345-7", "SNOMED//4000", "X//1"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("from,to\na,b\n", 307),
        ("source_code,code\nGLU,2345-7\n", 308),
        (f"{LOCAL}GLU,LAB,999,\n", 301),
        ("\x00\n", 303),
    ],
)
def test_a_mapping_that_cannot_be_used_is_refused_before_anything_is_read(tmp_path, text, number):
    source = events(tmp_path / "in", ("LAB//GLU", 5.0))
    table = written(tmp_path / "map.csv", text)
    with pytest.raises(IngestError, match=f"HF-{number}"):
        mapped(tmp_path, source, table)
    with pytest.raises(IngestError, match="HF-301"):
        mapped(tmp_path, source, tmp_path / "nowhere.csv")
    with pytest.raises(IngestError, match="HF-303"):
        mapped(tmp_path, source, source)
    assert not (tmp_path / "out").exists()


def test_a_store_read_again_is_mapped_too(tmp_path):
    source = events(tmp_path / "in", ("LAB//GLU", 5.0), ("DX//A", None))
    (store,) = ingest("event_table", source, tmp_path / "store", site_column="")
    table = written(
        tmp_path / "map.csv",
        "source_code,code,unit,description\nGLU,LOINC//2345-7,mmol/L,Glucose\n",
    )
    out = mapped(tmp_path, store, table, reader="meds")
    assert found(out) == [("DX//A", None), ("LOINC//2345-7//mg/dL", 90.1)]
    assert beside(out) == [("LOINC//2345-7//mg/dL", "LAB//GLU", 1)]
    (again,) = ingest("meds", out, tmp_path / "again")
    assert beside(again) == beside(out)
    assert found(again) == found(out)


def test_the_summary_says_how_many_rows_were_mapped(tmp_path, capsys):
    rows = [(f"LAB//{n % 3}", float(n)) for n in range(60)]
    source = events(tmp_path / "in", *rows)
    table = written(tmp_path / "map.csv", "source_code,code\n0,LOINC//1\nLAB//1,LOINC//2\n")
    flags = ["--site-column", "", "--out", str(tmp_path / "out"), "--map", str(table)]
    assert main(["ingest", "event_table", str(source), *flags]) == 0
    assert "mapped: 40 rows of 2 codes of the source\n" in capsys.readouterr().out


def test_a_limit_without_a_unit_has_the_unit_of_the_table(tmp_path):
    table = written(tmp_path / "map.csv", "source_code,code,unit\nGLU,LOINC//2345-7,mmol/L\n")
    out = mapped(tmp_path, events(tmp_path / "in", ("LAB//GLU//<", 5.0)), table)
    assert found(out) == [("LOINC//2345-7//<mg/dL", 90.1)]


def test_a_line_that_is_no_row_of_a_mapping_is_no_mapping(tmp_path):
    source = events(tmp_path / "in", ("LAB//GLU", 5.0))
    table = written(tmp_path / "map.csv", "source_code,code\nGLU,LOINC//2345-7,mmol/L\n")
    with pytest.raises(IngestError, match=r"HF-303.*1 of its lines are no rows"):
        mapped(tmp_path, source, table)


def test_names_with_quotes_take_no_concept_with_them(tmp_path):
    """Athena's tables are separated by tabs and know no quotes."""
    folder = athena(tmp_path / "athena")
    text = CONCEPTS.replace("Type 2 diabetes", '"Type 2 diabetes')
    (folder / "CONCEPT.csv").write_text(text)
    source = events(tmp_path / "in", ("ICD10CM//E11.40", None))
    out = mapped(tmp_path, source, folder)
    assert [code for code, _ in found(out)] == ["SNOMED//4000", "SNOMED//44054006"]


def spoilt(folder: Path, seed: int) -> list[Path]:
    """Return a table and a vocabulary, one of whose three files is corrupted."""
    rng = random.Random(seed)
    folder.mkdir()
    table = written(folder / "map.csv", f"{LOCAL}GLU,LAB,3004501,\nNA,LAB,4000,\n")
    files = [table, *sorted(athena(folder / "athena").iterdir())]
    chosen = rng.choice(files)
    chosen.write_bytes(corrupt(chosen.read_bytes(), rng))
    return [table, folder / "athena"]


def test_a_spoilt_mapping_ends_in_a_code_or_a_sound_store(tmp_path):
    source = events(tmp_path / "in", ("LAB//GLU", 5.0), ("ICD10CM//E11.40", None))
    outcomes = set()
    for seed in range(60):
        folder = tmp_path / str(seed)
        maps = spoilt(folder, seed)
        try:
            (out,) = ingest("event_table", source, folder / "out", site_column="", map=maps)
            SiteStore.open(out).check()
            outcomes.add("stored")
        except HealthFMError as error:
            outcomes.add(error.code)
            assert not (folder / "out").exists()
    assert {"stored", "HF-303", "HF-307"} <= outcomes
