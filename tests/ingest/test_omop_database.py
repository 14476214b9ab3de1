"""OMOP in a database: PostgreSQL itself, DuckDB's and SQLite's files give what the tables give."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.reader_registry import find
from healthfm_client.ingest.tables import databases
from healthfm_client.ingest.tables.adbc_database import AdbcDatabase, Asked
from healthfm_client.ingest.tables.database_file import database_file
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from tests.ingest.postgresql_server import Server, binaries, server

TABLES = {
    "person": (
        "person_id bigint, gender_concept_id int, year_of_birth int, birth_datetime timestamp, "
        "race_source_value varchar(20)",
        "person_id,gender_concept_id,year_of_birth,birth_datetime,race_source_value\n"
        "1,8507,1950,1950-03-02 00:00:00,\n2,8532,1960,,other\n",
    ),
    "death": ("person_id bigint, death_date date", "person_id,death_date\n1,2012-05-06\n"),
    "visit_occurrence": (
        "person_id bigint, visit_concept_id int, visit_start_datetime timestamptz, "
        "visit_start_date date, visit_end_date date",
        "person_id,visit_concept_id,visit_start_datetime,visit_start_date,visit_end_date\n"
        "1,9201,2010-01-01 23:30:00+00,2010-01-01,2010-01-03\n",
    ),
    "measurement": (
        "person_id bigint, measurement_concept_id int, measurement_date date, "
        "value_as_number numeric, unit_concept_id int, unit_source_value varchar(50)",
        "person_id,measurement_concept_id,measurement_date,value_as_number,unit_concept_id,"
        "unit_source_value\n"
        "1,3004501,2010-01-02,90.5,8840,mg/dL\n2,3004501,2010-02-01,0.9,8636,g/L\n"
        "2,3004501,2010-02-02,,8636,\n9,3004501,2010-02-02,1,8840,\n",
    ),
    "note": ("note_id bigint, note_text text", "note_id,note_text\n1,he is well\n2,so is she\n"),
}
VOCABULARY = {
    "concept": (
        "concept_id bigint, vocabulary_id varchar(20), concept_code varchar(50), "
        "concept_name varchar(255)",
        "concept_id,vocabulary_id,concept_code,concept_name\n"
        "3004501,LOINC,2345-7,Glucose\n8840,UCUM,mg/dL,mg/dL\n8636,UCUM,g/L,g/L\n",
    )
}
EVERY = TABLES | VOCABULARY


def csv_files(folder: Path) -> Path:
    folder.mkdir()
    for name, (_, text) in EVERY.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    if binaries() is None:
        pytest.skip("there is no PostgreSQL server to start here: apt-get install postgresql")
    with server() as started:
        yield started


@pytest.fixture(scope="module")
def in_postgresql(running: Server, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = csv_files(tmp_path_factory.mktemp("csv") / "cdm")
    running.run("create table public.person (wrong int); create table public.concept (wrong int);")
    running.run("create schema cdm; create schema vocab; create role looker login;")
    for schema, tables in (("cdm", TABLES), ("vocab", VOCABULARY)):
        for name, (columns, _) in tables.items():
            running.load(f"{schema}.{name}", columns, folder / f"{name}.csv")
    running.run("grant usage on schema cdm, vocab to looker;")
    running.run("grant select on all tables in schema cdm, vocab to looker;")
    return running


def address(folder: Path, url: str) -> Path:
    path = folder / "cdm.toml"
    path.write_text(f'[database]\nurl = "{url}"\nschema = "cdm"\nvocabulary = "vocab"\n')
    return path


def events(path: Path) -> list[tuple]:
    columns = "subject_id, time::varchar, code, numeric_value"
    order = "subject_id, time nulls first, code, numeric_value"
    return duckdb.sql(
        f"select {columns} from '{path}/data/*/*.parquet' order by {order}"
    ).fetchall()


def told(source: Path, out: Path, **options: object) -> tuple[list[tuple], dict, dict]:
    (path,) = ingest("auto", source, out, **options)
    store = SiteStore.open(path)
    store.check()
    return events(path), store.rejected, store.not_read


def from_files(tmp_path: Path, **options: object) -> tuple[list[tuple], dict, dict]:
    return told(csv_files(tmp_path / "files"), tmp_path / "of-files", **options)


def test_postgresql_gives_what_its_tables_give_as_files(in_postgresql: Server, tmp_path: Path):
    wanted = from_files(tmp_path, time_zone="UTC")
    assert len(wanted[0]) == 11
    assert wanted[1:] == ({"unknown_person": 1}, {"note": 2})
    source = address(tmp_path, in_postgresql.url)
    assert told(source, tmp_path / "out", time_zone="UTC") == wanted


def test_a_time_with_a_zone_is_put_on_the_site_s_clock(in_postgresql: Server, tmp_path: Path):
    source = address(tmp_path, in_postgresql.url)
    found, *_ = told(source, tmp_path / "out", time_zone="Asia/Tokyo")
    assert (1, "2010-01-02 08:30:00", "Visit//IP") in [row[:3] for row in found]


def test_an_account_that_may_only_read_is_enough(in_postgresql: Server, tmp_path: Path):
    url = in_postgresql.url.replace("reader@", "looker@")
    assert told(address(tmp_path, url), tmp_path / "out")[0]


def test_nothing_can_be_written_even_by_who_owns_it_all(in_postgresql: Server, tmp_path: Path):
    said = database_file(address(tmp_path, in_postgresql.url))
    with (
        closing(AdbcDatabase.postgresql(tmp_path, said)) as database,
        database.connection.cursor() as cursor,
        pytest.raises(database.connection.Error, match="read-only"),
    ):
        cursor.execute("delete from cdm.note")


def test_only_the_columns_that_are_read_are_asked_for(
    in_postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: dict[str, list[str]] = {}
    real = AdbcDatabase.batches

    def noting(self, table, columns):
        asked.setdefault(table[1], []).extend(columns)
        return real(self, table, columns)

    monkeypatch.setattr(AdbcDatabase, "batches", noting)
    told(address(tmp_path, in_postgresql.url), tmp_path / "out")
    assert "note_text" not in asked.get("note", [])
    assert set(asked["death"]) == {"person_id", "death_date"}


@pytest.mark.parametrize("form", ["duckdb", "sqlite"])
def test_a_database_in_a_file_gives_what_its_tables_give(tmp_path: Path, form: str):
    folder, file = csv_files(tmp_path / "csv"), tmp_path / f"cdm.{form}"
    if form == "duckdb":
        with duckdb.connect(str(file)) as made:
            for name, (columns, _) in EVERY.items():
                made.execute("SET TimeZone='UTC'")
                made.execute(f"create table {name} ({columns})")
                made.execute(f"copy {name} from '{folder}/{name}.csv' (header true)")
    else:
        with sqlite3.connect(file) as made_too:
            for name, (columns, text) in EVERY.items():
                made_too.execute(f"create table {name} ({columns})")
                lines = [line.split(",") for line in text.splitlines()[1:]]
                marks = ",".join("?" * len(lines[0]))
                rows = [[cell or None for cell in line] for line in lines]
                made_too.executemany(f"insert into {name} values ({marks})", rows)
        made_too.close()
    assert find("auto", file).name == "omop"
    before = file.read_bytes()
    assert told(file, tmp_path / "out", time_zone="UTC") == from_files(tmp_path, time_zone="UTC")
    assert file.read_bytes() == before


def refused(path: Path, number: int, seen: str) -> None:
    with pytest.raises(IngestError) as caught:
        ingest("omop", path, path.parent / "out")
    assert caught.value.number == number
    assert seen in str(caught.value)
    assert "hush" not in str(caught.value)
    assert not (path.parent / "out").exists()


def test_a_password_that_others_can_read_is_refused_and_never_shown(tmp_path: Path):
    path = address(tmp_path, "postgresql://reader:hush@127.0.0.1:1/cdm")
    path.chmod(0o644)
    refused(path, 318, "it holds a password and others may read it")
    path.chmod(0o600)
    refused(path, 303, "the database cannot be reached")
    refused(path, 303, "Check its address, the account and the password")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("url = 1", "database is missing"),
        ("[database]\nschema = 'cdm'", "url is missing"),
        ("[database]\nurl = 'mysql://db/cdm'", "url is missing or does not fit"),
        ("[database]\nurl = 'postgresql://db/cdm'\nport = 5", "port is missing or does not fit"),
        ("[database", "database is missing"),
    ],
)
def test_a_file_that_describes_no_database_is_refused(tmp_path: Path, text: str, seen: str):
    (tmp_path / "cdm.toml").write_text(f"# [database]\n{text}")
    refused(tmp_path / "cdm.toml", 318, seen)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "cdm.duckdb").write_bytes(os.urandom(5000))
    refused(tmp_path / "cdm.duckdb", 303, "cannot open it")
    (tmp_path / "cdm.sqlite").write_bytes(os.urandom(5000))
    refused(tmp_path / "cdm.sqlite", 303, "")


def test_who_may_not_read_a_table_is_told_which(in_postgresql: Server, tmp_path: Path):
    in_postgresql.run("create role nobody_here login;")
    url = in_postgresql.url.replace("reader@", "nobody_here@")
    refused(address(tmp_path, url), 303, "the account may not read cdm.person")


class BreaksOff:
    """A database whose rows end in the middle."""

    def tables(self) -> list[tuple[str, str]]:
        return [("cdm", "person")]

    def columns(self, table: tuple[str, str]) -> pa.Schema:
        return pa.schema([("person_id", pa.int64())])

    def rows(self, table: tuple[str, str]) -> int:
        return 2

    def batches(self, table: tuple[str, str], columns: Mapping[str, Asked]) -> pa.RecordBatchReader:
        def some() -> Iterator[pa.RecordBatch]:
            yield pa.record_batch({"person_id": pa.array([1])})
            raise OSError("server closed the connection unexpectedly")

        return pa.RecordBatchReader.from_batches(self.columns(table), some())

    def close(self) -> None:
        """Nothing is open."""


def test_rows_that_break_off_are_the_database_s_and_not_a_file_s(tmp_path: Path):
    (table,) = databases.DatabaseTables(tmp_path / "cdm.toml", BreaksOff()).of("person")
    sql = f"SELECT {table.cast('person_id', 'BIGINT')} AS p FROM {table.source()}"
    with pytest.raises(IngestError, match=r"person: the rows of the table broke off.*database"):
        table.reader().table(sql, table.path)


def test_the_benchmark_beside_parquet_runs_small(running: Server):
    root = Path(__file__).parents[2]
    command = [sys.executable, "benchmarks/omop_database.py", "--rows", "2000", "--repeats", "1"]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["rows"] == 2000
    assert found["postgresql"]["peak_mib"] < 2048
