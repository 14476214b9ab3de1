"""OMOP CDM: a small one written here, and Synthea's."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.codes.shared_spellings import CONCEPTS
from healthfm_client.ingest.reader_registry import find
from healthfm_client.ingest.readers import omop
from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader, TableFile
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError

FILES = Path(__file__).with_name("omop_cdm")
TABLES = {file.stem: file.read_text() for file in FILES.glob("*.csv")}
EVENTS = [
    (1, None, "Gender//M", None),
    (1, None, "Race//5", None),
    (1, "1950-03-02 00:00:00", "MEDS_BIRTH", None),
    (1, "2010-01-01 08:00:00", "Visit//IP", 2.0),
    (1, "2010-01-02 00:00:00", "CONDITION_SOURCE//LOCAL 7", None),
    (1, "2010-01-02 00:00:00", "LOINC//2345-7//mg/dL", 90.0),
    (1, "2010-01-02 00:00:00", "SNOMED//44054006", None),
    (1, "2010-01-03 08:00:00", "Visit//IP//END", None),
    (1, "2012-05-06 00:00:00", "MEDS_DEATH", None),
    (2, None, "Gender//F", None),
    (2, None, "RACE_SOURCE//other", None),
    (2, "1960-01-01 00:00:00", "MEDS_BIRTH", None),
    (2, "2010-02-01 00:00:00", "LOINC//2345-7//mg/dL", 90.0),
    (2, "2010-02-01 09:00:00", "Visit//OP", 0.0),
    (2, "2010-02-01 09:00:00", "Visit//OP//END", None),
    (2, "2010-02-02 00:00:00", "LOINC//2345-7//LOINC:LA6576-8", None),
    (2, "2010-02-05 00:00:00", "Visit//OP", None),
    (3, None, "Gender//F", None),
    (3, "1970-01-01 06:30:00", "MEDS_BIRTH", None),
    (3, "2010-02-03 00:00:00", "LOINC//2345-7", None),
]
REJECTED = {
    "before_birth": 1,
    "ends_before_it_starts": 1,
    "malformed_line": 1,
    "no_date": 1,
    "not_finite": 1,
    "unknown_person": 1,
}


def cdm(folder: Path, tables: dict[str, str] = TABLES) -> Path:
    folder.mkdir()
    for name, text in tables.items():
        (folder / f"{name.upper()}.csv").write_text(text)
    return folder


def rows(store: SiteStore) -> list[tuple]:
    columns = "subject_id, time::varchar, code, numeric_value"
    files = f"'{store.path}/data/*/*.parquet'"
    order = "subject_id, time nulls first, code"
    return duckdb.sql(f"select {columns} from {files} order by {order}").fetchall()


def one(path: Path, tmp_path: Path, **options) -> SiteStore:
    (store,) = ingest("auto", path, tmp_path / "out", overwrite=True, **options)
    return SiteStore.open(store)


def test_a_cdm_becomes_its_events_and_says_what_it_set_aside(tmp_path):
    store = one(cdm(tmp_path / "cdm"), tmp_path)
    store.check()
    assert rows(store) == EVENTS
    assert store.rejected == REJECTED


def test_a_visit_that_ends_in_the_far_future_is_set_aside(tmp_path):
    lines = TABLES["visit_occurrence"].splitlines()
    cells = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    cells |= {name: "3980-01-01" for name in cells if name.startswith("visit_end")}
    tables = TABLES | {"visit_occurrence": f"{lines[0]}\n{','.join(cells.values())}\n"}
    store = one(cdm(tmp_path / "cdm", tables), tmp_path)
    assert store.rejected["after_today"] == 1
    assert "Visit//IP//END" not in {code for *_, code, _ in rows(store)}


def test_codes_have_their_names_and_what_is_above_them(tmp_path):
    store = one(cdm(tmp_path / "cdm"), tmp_path)
    found = duckdb.sql(f"select * from '{store.path}/metadata/codes.parquet'").fetchall()
    codes = {code: (text, parents) for code, text, parents in found}
    assert codes["SNOMED//44054006"] == ("Type 2 diabetes mellitus", ["SNOMED//73211009"])
    assert codes["SNOMED//73211009"] == ("Diabetes mellitus", None)
    assert codes["LOINC//2345-7//mg/dL"][1] == ["LOINC//2345-7"]
    assert codes["LOINC//2345-7"] == ("Glucose", None)


@pytest.mark.parametrize("form", ["gz", "parquet", "zip"])
def test_every_form_gives_the_same_events(tmp_path, form):
    folder = cdm(tmp_path / "cdm")
    plain = rows(one(folder, tmp_path))
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "cdm.zip", "w") as whole:
            for file in folder.iterdir():
                whole.write(file, f"export/{file.name}")
        assert rows(one(tmp_path / "cdm.zip", tmp_path)) == plain
        assert sorted(p.name for p in tmp_path.iterdir()) == ["cdm", "cdm.zip", "out"]
        return
    for file in sorted(folder.iterdir()):
        if form == "gz":
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        else:
            options = "all_varchar=true, auto_detect=true, ignore_errors=true, header=true"
            source = f"read_csv('{file}', {options})"
            duckdb.sql(f"copy (from {source}) to '{folder}/{file.stem}.parquet'")
        file.unlink()
    assert rows(one(folder, tmp_path)) == plain


def test_without_the_concept_table_a_code_is_the_concepts_number(tmp_path):
    tables = {name: text for name, text in TABLES.items() if not name.startswith("concept")}
    codes = {code for *_, code, _ in rows(one(cdm(tmp_path / "cdm", tables), tmp_path))}
    assert {"OMOP//201826", "OMOP//3004501//mg/dL", "Visit//IP"} <= codes


def test_a_unit_that_nobody_can_read_keeps_its_numbers_apart(tmp_path):
    """Without CONCEPT, and with no text beside it, 90 and 0.9 were two values of one code."""
    tables = {name: text for name, text in TABLES.items() if not name.startswith("concept")}
    text = tables["measurement"].replace("mg/dL", "").replace("g/L", "")
    tables["measurement"] = text
    found = rows(one(cdm(tmp_path / "cdm", tables), tmp_path))
    numbers = {(code, value) for *_, code, value in found if value in (90.0, pytest.approx(0.9))}
    assert {code for code, _ in numbers} == {
        "OMOP//3004501//OMOP:8840",
        "OMOP//3004501//OMOP:8636",
    }


def test_a_row_without_a_standard_concept_has_its_source_concept(tmp_path):
    head = "condition_occurrence_id,person_id,condition_concept_id,condition_start_date"
    more = "condition_source_concept_id,condition_source_value"
    text = f"{head},{more}\n1,1,0,2010-01-02,201826,E11.9\n2,1,0,2010-01-03,0,LOCAL 7\n"
    store = one(cdm(tmp_path / "cdm", TABLES | {"condition_occurrence": text}), tmp_path)
    codes = {code for *_, code, _ in rows(store)}
    assert {"SNOMED//44054006", "CONDITION_SOURCE//LOCAL 7"} <= codes
    assert "CONDITION_SOURCE//E11.9" not in codes


@pytest.mark.parametrize(
    ("table", "text", "number"),
    [
        ("person", "id\n1\n", 307),
        ("person", "person_id,year_of_birth\n", 306),
        ("measurement", "measurement_id\n1\n", 307),
        ("measurement", "\x00\x01\x02\n1\n", 303),
        ("concept", "concept_id,concept_name\n1,x\n", 307),
    ],
)
def test_a_table_that_is_not_one_is_refused(tmp_path, table, text, number):
    folder = cdm(tmp_path / "cdm", TABLES | {table: text})
    with pytest.raises(IngestError, match=f"HF-{number}"):
        ingest("omop", folder, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["cdm"]


def test_a_compressed_table_cut_off_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{n},1,201826,2010-01-02,,{n}" for n in rng.integers(0, 10**9, 20_000)]
    head = TABLES["condition_occurrence"].splitlines()[0]
    folder = cdm(tmp_path / "cdm")
    (folder / "CONDITION_OCCURRENCE.csv").unlink()
    text = gzip.compress("\n".join([head, *lines]).encode())
    (folder / "condition_occurrence.csv.gz").write_bytes(text[: len(text) // 2])
    with pytest.raises(IngestError, match="HF-303"):
        ingest("omop", folder, tmp_path / "out")


@pytest.fixture(scope="module")
def synthea(shared_data, tmp_path_factory) -> tuple[Path, Path]:
    """Synthea's CDM: its tables, and the store made of them."""
    folder = tmp_path_factory.mktemp("synthea")
    path = shared_data / "formats" / "omop_synthea27nj" / "Synthea27NjParquet_5.4.zip"
    (out,) = ingest("omop", path, folder / "out")
    with zipfile.ZipFile(path) as whole:
        whole.extractall(folder / "raw")
    return folder / "raw" / "Synthea27NjParquet", out


@pytest.mark.realdata
def test_syntheas_cdm(synthea):
    """Counts from the tables themselves, by DuckDB: rows, visits twice, three statics, births."""
    raw, out = synthea
    store = SiteStore.open(out)
    store.check()
    counted = {
        table: duckdb.sql(f"select count(*) from '{raw}/{table}.parquet'").fetchall()[0][0]
        for table in ["person", "death", "visit_occurrence", *(one.name for one in omop.TABLES)]
    }
    expected = sum(counted.values()) + counted["visit_occurrence"] + 3 * counted["person"]
    assert len(store.subjects()) == counted["person"] == 28
    assert store.rejected == {"duplicate": 86}
    assert store.events().num_rows + 86 == expected == 24_839
    weight = duckdb.sql(
        f"select sum(value_as_number), count(distinct (person_id, measurement_date)) from "
        f"'{raw}/measurement.parquet' where measurement_concept_id = 3025315"
    ).fetchall()[0]
    ours = duckdb.sql(
        f"select sum(numeric_value), count(*) from '{out}/data/*/*.parquet' "
        "where code = 'LOINC//29463-7//kg'"
    ).fetchall()[0]
    assert ours == (pytest.approx(float(weight[0])), 511)


@pytest.mark.realdata
def test_every_code_of_syntheas_cdm_is_counted(synthea):
    """A code's events and those set aside are the rows of its concept; a visit is two events."""
    raw, out = synthea
    dated = [(one.name, f"{one.subject}_concept_id", 1) for one in omop.TABLES]
    dated += [("visit_occurrence", "visit_concept_id", 2)]
    dated += [("person", f"{name}_concept_id", 1) for name in ("race", "ethnicity")]
    rows = " union all ".join(
        f"select {column} as concept_id, {each} as n from '{raw}/{table}.parquet'"
        for table, column, each in dated
    )
    races = " ".join(
        f"when {at} then '{code}'" for at, code in CONCEPTS.items() if code.startswith("Race")
    )
    by_id = f"case concept_id {races} end, vocabulary_id || '//' || concept_code"
    named = f"coalesce({by_id}, 'OMOP//' || concept_id)"
    counted = duckdb.sql(
        f"select {named}, sum(n)::int from ({rows}) left join '{raw}/concept.parquet' "
        "using (concept_id) where concept_id <> 0 group by 1"
    ).fetchall()
    ours = " union all by name ".join(
        f"select code from '{out}/{files}'" for files in ("data/*/*.parquet", "rejected/*.parquet")
    )
    bare = "split_part(code, '//', 1) || '//' || split_part(code, '//', 2)"
    found = dict(duckdb.sql(f"select {bare}, count(*) from ({ours}) group by 1").fetchall())
    people, deaths = (
        duckdb.sql(f"select count(*) from '{raw}/{table}.parquet'").fetchall()[0][0]
        for table in ("person", "death")
    )
    assert found.pop("MEDS_BIRTH//") == found.pop("Gender//M") + found.pop("Gender//F") == people
    assert found.pop("MEDS_DEATH//") == deaths
    sources = [code for code in found if "_SOURCE//" in code]
    by_name = found.pop("Race//4")  # "hawaiian", without a concept
    assert by_name + sum(found.pop(code) for code in sources) == without_concept(raw)
    assert found == dict(counted)
    assert len(found) > 300


def without_concept(raw: Path) -> int:
    """Return the rows whose concept is 0 and that have a source value instead."""
    of = [(one.name, one.subject) for one in omop.TABLES]
    total = 0
    for table, about in [*of, ("person", "race"), ("person", "ethnicity")]:
        sql = f"from '{raw}/{table}.parquet' select count(*) where {about}_concept_id = 0"
        total += duckdb.sql(f"{sql} and {about}_source_value is not null").fetchall()[0][0]
    return total


def test_a_cell_that_cannot_be_cast_costs_no_row(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,x\n2,3\n")
    file, reader = TableFile(tmp_path / "a.csv"), DuckDBReader()
    sql = f"SELECT TRY_CAST(a AS BIGINT) AS a, TRY_CAST(b AS DOUBLE) AS b FROM {file.source()}"
    assert reader.table(sql, file.path).to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": 3.0}]
    assert reader.malformed().num_rows == 0


def test_a_limit_of_a_lab_is_not_its_value_and_a_number_written_as_text_is_one(tmp_path):
    lines = [
        "1,1,3004501,2010-01-02,90,,0,8840,0",
        "2,1,3004501,2010-01-03,5,,0,8840,4171756",
        "3,1,3004501,2010-01-04,,> 600,0,8840,",
        "4,1,3004501,2010-01-05,,5.1,0,0,",
        "5,1,3004501,2010-01-06,,see the letter,0,0,",
        "6,1,3004501,2010-01-07,7,7,45884084,8840,",
        "7,1,3004501,2010-01-08,,Positive,45884084,0,",
    ]
    head = "measurement_id,person_id,measurement_concept_id,measurement_date,value_as_number,"
    head += "value_as_string,value_as_concept_id,unit_concept_id,operator_concept_id"
    tables = TABLES | {"measurement": "\n".join([head, *lines])}
    store = one(cdm(tmp_path / "cdm", tables), tmp_path)
    labs = [row[2:] for row in rows(store) if row[0] == 1 and row[2].startswith("LOINC")]
    assert [(code, value and round(value, 3)) for code, value in labs] == [
        ("LOINC//2345-7//mg/dL", 90.0),
        ("LOINC//2345-7//<mg/dL", 5.0),
        ("LOINC//2345-7//>mg/dL", 600.0),
        ("LOINC//2345-7", 5.1),
        ("LOINC//2345-7", None),
        ("LOINC//2345-7//mg/dL", 7.0),
        ("LOINC//2345-7//LOINC:LA6576-8", None),
    ]
    read = {kind: count for kind, count in store.not_read.items() if kind[:4] == "meas"}
    assert read == {"measurement.value_as_concept_id": 1, "measurement.value_as_string": 1}


def test_what_a_cdm_holds_beside_its_events_is_counted(tmp_path):
    more = {
        "visit_detail": "visit_detail_id,person_id\n1,1\n2,1\n",
        "specimen": "specimen_id,person_id\n1,1\n",
        "note": "note_id,person_id,note_text\n",
        "drug_exposure": "drug_exposure_id,person_id,drug_concept_id,drug_exposure_start_date,"
        "drug_exposure_end_date,quantity,sig\n"
        "1,1,201826,2010-01-05,2010-02-02,30,\n2,1,201826,2010-03-02,2010-04-02,,\n",
    }
    store = one(cdm(tmp_path / "cdm", TABLES | more), tmp_path)
    assert store.not_read == {
        "drug_exposure.drug_exposure_end_date": 2,
        "drug_exposure.quantity": 1,
        "specimen": 1,
        "visit_detail": 2,
    }
    assert store.rejected == REJECTED


def test_it_is_recognised(tmp_path):
    assert find("auto", cdm(tmp_path / "cdm")).name == "omop"


def test_a_concept_without_a_code_is_its_id_and_meets_no_other(tmp_path):
    concepts = "concept_id,vocabulary_id,concept_code,concept_name\n1001,LOINC,,a\n1002,LOINC,,b\n"
    person = "person_id,year_of_birth,gender_concept_id\n1,1950,8507\n"
    measured = "person_id,measurement_concept_id,measurement_date,value_as_number\n"
    tables = {
        "concept": concepts,
        "person": person,
        "measurement": measured + "1,1001,2010-01-02,5\n1,1002,2010-01-02,7\n",
    }
    found = rows(one(cdm(tmp_path / "cdm", tables), tmp_path))
    assert [(code, value) for *_, code, value in found[2:]] == [
        ("OMOP//1001", 5.0),
        ("OMOP//1002", 7.0),
    ]


@pytest.mark.parametrize(
    ("date", "born"),
    [
        ("1950,0,0", "1950-01-01 00:00:00"),
        ("1950,3,0", "1950-03-01 00:00:00"),
        ("1950,2,30", "1950-02-01 00:00:00"),
        ("1950,13,2", "1950-01-01 00:00:00"),
        ("1950,,", "1950-01-01 00:00:00"),
        ("1950,3,2", "1950-03-02 00:00:00"),
    ],
)
def test_what_is_known_of_a_birth_is_kept(tmp_path, date, born):
    header = "person_id,year_of_birth,month_of_birth,day_of_birth,gender_concept_id\n"
    tables = {
        "person": f"{header}1,{date},8507\n",
        "visit_occurrence": "person_id,visit_concept_id,visit_start_date\n",
        "death": "person_id,death_date\n1,2012-05-06\n",
    }
    found = rows(one(cdm(tmp_path / "cdm", tables), tmp_path))
    assert found[:2] == [(1, None, "Gender//M", None), (1, born, "MEDS_BIRTH", None)]


def test_somebody_whose_birth_is_not_known_keeps_the_rest(tmp_path):
    header = "person_id,year_of_birth,gender_concept_id\n"
    tables = {
        "person": f"{header}1,,8532\n",
        "visit_occurrence": "person_id,visit_concept_id,visit_start_date\n",
        "death": "person_id,death_date\n1,2012-05-06\n",
    }
    store = one(cdm(tmp_path / "cdm", tables), tmp_path)
    assert [code for _, _, code, _ in rows(store)] == ["Gender//F", "MEDS_DEATH"]
    assert store.rejected == {"no_date": 1}


def test_a_concepts_name_with_a_quote_takes_no_concept_with_it(tmp_path):
    """Athena's tables are separated by tabs and know no quotes; what is cut off is counted."""
    concepts = (
        "concept_id\tvocabulary_id\tconcept_code\tconcept_name\n"
        '3004501\tLOINC\t2345-7\t"Glucose" in serum\n'
        '201826\tSNOMED\t44054006\t"Type 2 diabetes mellitus\n'
        "9201\tVisit\tIP\tInpatient Visit\n"
        "3\tLOINC\n"
    )
    store = one(cdm(tmp_path / "cdm", TABLES | {"concept": concepts}), tmp_path)
    codes = {code for *_, code, _ in rows(store)}
    assert {"LOINC//2345-7//mg/dL", "SNOMED//44054006"} <= codes
    assert store.not_read["concept.malformed_line"] == 1
    described = duckdb.sql(f"select code, description from '{store.path}/metadata/codes.parquet'")
    assert dict(described.fetchall())["LOINC//2345-7"] == '"Glucose" in serum'
