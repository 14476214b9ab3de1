"""Flower's database becomes smaller once a run's messages are out of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from healthfm_server.deploy.flower_database import compact


@pytest.fixture
def database(tmp_path):
    """As Flower's after a run: kept open by its server, most of it empty."""
    path = tmp_path / "superlink.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as server:
        server.execute("PRAGMA journal_mode = WAL")
        server.execute("CREATE TABLE objects (object_id TEXT PRIMARY KEY, content BLOB)")
        rows = [(str(n), bytes(100_000)) for n in range(40)]
        server.executemany("INSERT INTO objects VALUES (?, ?)", rows)
        server.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        server.execute("DELETE FROM objects WHERE object_id != '7'")
        yield path, server


def test_empty_pages_go_back_to_the_disk_while_the_server_runs(database):
    path, server = database
    before = path.stat().st_size
    freed = compact(path, most_free_bytes=1_000_000)
    assert freed > 3_500_000
    assert path.stat().st_size < before - 3_500_000
    rows = server.execute("SELECT object_id, length(content) FROM objects").fetchall()
    assert rows == [("7", 100_000)]
    server.execute("INSERT INTO objects VALUES ('8', x'00')")
    assert compact(path, most_free_bytes=1_000_000) == 0


def test_what_the_next_run_needs_again_stays(database):
    path, _ = database
    before = path.stat().st_size
    assert compact(path) == 0
    assert path.stat().st_size == before


def test_a_server_that_writes_is_not_disturbed(database, monkeypatch):
    path, server = database
    monkeypatch.setattr("healthfm_server.deploy.flower_database.LOCK_TIMEOUT_S", 0.01)
    server.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        compact(path, most_free_bytes=1_000_000)
    server.execute("INSERT INTO objects VALUES ('8', x'00')")
    server.execute("COMMIT")
    assert server.execute("SELECT count(*) FROM objects").fetchone() == (2,)


def test_a_study_without_a_database_has_nothing_to_give(tmp_path):
    assert compact(tmp_path / "superlink.db") == 0
