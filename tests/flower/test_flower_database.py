"""Once a run's messages are deleted, their bytes are in no file of Flower's database."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from healthfm_core.flower.flower_database import compact


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
    freed = compact(path)
    assert freed > 3_500_000
    assert path.stat().st_size < before - 3_500_000
    rows = server.execute("SELECT object_id, length(content) FROM objects").fetchall()
    assert rows == [("7", 100_000)]
    server.execute("INSERT INTO objects VALUES ('8', x'00')")
    compact(path)
    assert compact(path) == 0


UPDATE = b"\x93NUMPY an update"


@pytest.mark.parametrize("count", [1, 40])
def test_not_a_byte_of_a_deleted_update_is_in_its_files(tmp_path, count):
    """One small update too, and its image in the log, while the server keeps the file open."""
    path = tmp_path / "superlink.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as server:
        server.execute("PRAGMA journal_mode = WAL")
        server.execute("CREATE TABLE objects (object_id TEXT PRIMARY KEY, content BLOB)")
        rows = [(str(n), UPDATE * 50) for n in range(count)]
        server.executemany("INSERT INTO objects VALUES (?, ?)", rows)
        server.execute("INSERT INTO objects VALUES ('kept', ?)", (b"of a node",))
        server.execute("DELETE FROM objects WHERE object_id != 'kept'")
        assert copies(path) > 0
        compact(path)
        assert copies(path) == 0
        assert server.execute("SELECT object_id FROM objects").fetchall() == [("kept",)]


def copies(database):
    """Return how often the update stands in the files of a database."""
    return sum(file.read_bytes().count(UPDATE) for file in database.parent.glob("superlink.db*"))


def test_a_log_that_is_being_read_is_left_for_later(tmp_path, monkeypatch):
    monkeypatch.setattr("healthfm_core.flower.flower_database.LOCK_TIMEOUT_S", 0.01)
    path = tmp_path / "superlink.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as server:
        server.execute("PRAGMA journal_mode = WAL")
        server.execute("CREATE TABLE objects (object_id TEXT PRIMARY KEY, content BLOB)")
        server.execute("BEGIN")
        server.execute("SELECT * FROM objects").fetchall()
        with pytest.raises(sqlite3.OperationalError, match="being read"):
            compact(path)
        server.execute("COMMIT")
        compact(path)


def test_a_server_that_writes_is_not_disturbed(database, monkeypatch):
    path, server = database
    monkeypatch.setattr("healthfm_core.flower.flower_database.LOCK_TIMEOUT_S", 0.01)
    server.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        compact(path)
    server.execute("INSERT INTO objects VALUES ('8', x'00')")
    server.execute("COMMIT")
    assert server.execute("SELECT count(*) FROM objects").fetchone() == (2,)


def test_a_study_without_a_database_has_nothing_to_give(tmp_path):
    assert compact(tmp_path / "superlink.db") == 0
