"""Flower's database: what was deleted from it stays in its files until it is compacted.

Flower deletes a run's messages and their pieces when the run ends. Their pages stay in the file and
in its log as they were, the sites' plain updates among them: for a model of 200 MB and four sites
that is more than a gigabyte.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

LOCK_TIMEOUT_S: Final = 2.0
"""How long to wait for another writer; the SuperLink itself waits 5 s for us."""


def compact(database: Path) -> int:
    """Take out of a database's files what was deleted from it; its server may run meanwhile.

    The pages in use are written once more, so the disk needs room for them; the log begins anew.
    While no run is active that takes milliseconds. What a file system has freed it does not
    overwrite: that is for an encrypted disk.

    Returns:
        Bytes by which the files became smaller.

    Raises:
        sqlite3.Error: Another process writes to it or reads the log, or the disk is full; nothing
            that is in use is lost.
    """
    if not database.is_file():
        return 0
    log = database.with_name(f"{database.name}-wal")
    with closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT_S, isolation_level=None)) as opened:
        opened.execute("PRAGMA secure_delete = ON")
        (free,) = opened.execute("PRAGMA freelist_count").fetchone()
        before = _bytes(database, log)
        if free:
            opened.execute("VACUUM")
        (is_busy, *_) = opened.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise sqlite3.OperationalError("its log is being read")
        return before - _bytes(database, log)


def online_until(database: Path) -> dict[int, float]:
    """Return until when each node counts as connected by its last heartbeat, in Unix time.

    Flower moves the time on by twice the heartbeat's interval with each call. A node that never
    connected is left out.

    Raises:
        sqlite3.Error: The database cannot be read.
    """
    if not database.is_file():
        return {}
    with closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT_S)) as opened:
        found = opened.execute("SELECT name FROM sqlite_master WHERE name = 'node'").fetchone()
        if found is None:
            return {}
        rows = opened.execute(
            "SELECT node_id, online_until FROM node WHERE online_until IS NOT NULL"
        ).fetchall()
    return {int(node) % 2**64: float(until) for node, until in rows}  # Flower keeps it signed


def orders_taken(database: Path, run_id: int) -> dict[int, bool]:
    """Return node → whether it has taken its newest message of a run; without answered ones.

    Args:
        database: Flower's.
        run_id: Flower's number of the run.

    Raises:
        sqlite3.Error: The database cannot be read.
    """
    if not database.is_file():
        return {}
    signed = run_id - 2**64 if run_id >= 2**63 else run_id
    with closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT_S)) as opened:
        found = opened.execute("SELECT name FROM sqlite_master WHERE name = 'message_ins'")
        if found.fetchone() is None:
            return {}
        rows = opened.execute(
            "SELECT dst_node_id, delivered_at FROM message_ins WHERE run_id = ? "
            "ORDER BY created_at",
            (signed,),
        ).fetchall()
    return {int(node) % 2**64: bool(delivered) for node, delivered in rows}


def _bytes(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
