"""OMOP in PostgreSQL: no table that the account may not read, or that is a view, is passed over."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from tests.ingest.postgresql_server import Server, binaries, server
from tests.ingest.test_omop_database import TABLES, VOCABULARY, address, csv_files, events

GRANTS = (
    "grant usage on schema cdm, vocab to looker; "
    "grant select on all tables in schema cdm, vocab to looker;"
)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    if binaries() is None:
        pytest.skip("there is no PostgreSQL server to start here: apt-get install postgresql")
    with server() as started:
        started.run("create role looker login;")
        yield started


@pytest.fixture
def cdm(running: Server, tmp_path: Path) -> Server:
    folder = csv_files(tmp_path / "csv")
    running.run("drop schema if exists cdm cascade; drop schema if exists vocab cascade;")
    running.run("drop schema if exists etl cascade; create schema cdm; create schema vocab;")
    for schema, tables in (("cdm", TABLES), ("vocab", VOCABULARY)):
        for name, (columns, _) in tables.items():
            running.load(f"{schema}.{name}", columns, folder / f"{name}.csv")
    running.run(GRANTS)
    return running


def read(cdm: Server, tmp_path: Path) -> SiteStore:
    url = cdm.url.replace("reader@", "looker@")
    (path,) = ingest("omop", address(tmp_path, url), tmp_path / "out")
    return SiteStore.open(path)


def measurements(store: SiteStore) -> int:
    return sum(code.startswith("LOINC//2345-7") for _, _, code, _ in events(store.path))


@pytest.mark.parametrize("kind", ["view", "materialized view"])
def test_a_table_may_be_a_view(cdm: Server, tmp_path: Path, kind: str):
    cdm.run("alter table cdm.measurement rename to loaded;")
    cdm.run(f"create {kind} cdm.measurement as select * from cdm.loaded; {GRANTS}")
    assert measurements(read(cdm, tmp_path)) == 3


@pytest.mark.parametrize("table", ["cdm.measurement", "vocab.concept"])
def test_a_table_that_the_account_may_not_read_is_not_taken_for_absent(
    cdm: Server, tmp_path: Path, table: str
):
    cdm.run(f"revoke all on {table} from looker;")
    with pytest.raises(IngestError, match=re.escape(f"the account may not read {table}")) as caught:
        read(cdm, tmp_path)
    assert caught.value.number == 303
    assert f"grant select on {table}" in str(caught.value)
    assert "UTF-8" not in str(caught.value)


def test_a_schema_that_the_account_may_not_use_is_named(cdm: Server, tmp_path: Path):
    cdm.run("revoke usage on schema vocab from looker;")
    with pytest.raises(IngestError, match=r"the account may not read vocab\.concept"):
        read(cdm, tmp_path)


def test_notes_may_be_kept_from_the_account_and_are_counted_still(cdm: Server, tmp_path: Path):
    cdm.run("revoke all on cdm.note from looker;")
    assert read(cdm, tmp_path).not_read == {"note": 2}


def test_what_was_loaded_since_the_server_last_counted_is_counted(cdm: Server, tmp_path: Path):
    cdm.run("truncate cdm.note; alter table cdm.note set (autovacuum_enabled = false);")
    cdm.run(
        "vacuum analyze cdm.note; insert into cdm.note select n, 'x' from generate_series(1, 5) n;"
    )
    assert read(cdm, tmp_path).not_read == {"note": 5}


def test_tables_of_other_schemas_are_left_alone(cdm: Server, tmp_path: Path):
    cdm.run(
        "create schema etl; create table etl.log (line text); grant usage on schema etl to looker;"
    )
    cdm.run("grant insert on etl.log to looker;")
    assert measurements(read(cdm, tmp_path)) == 3


def test_a_view_beside_the_tables_that_fails_when_read_is_left_alone(cdm: Server, tmp_path: Path):
    cdm.run("create table cdm.loaded (x int); create view cdm.broken as select * from cdm.loaded;")
    cdm.run(
        "create role gone; alter view cdm.broken owner to gone; "
        "grant select on cdm.broken to looker;"
    )
    assert measurements(read(cdm, tmp_path)) == 3
