"""Flower's database: its file keeps its largest size until it is compacted.

Flower deletes a run's messages and their pieces when the run ends. Their empty pages stay in the
file: for a model of 200 MB and four sites that is more than a gigabyte.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

FREE_BYTES: Final = 16 * 1024 * 1024
"""Empty pages that may stay, because the next run needs them again."""
LOCK_TIMEOUT_S: Final = 2.0
"""How long to wait for another writer; the SuperLink itself waits 5 s for us."""


def compact(database: Path, most_free_bytes: int = FREE_BYTES) -> int:
    """Return the empty pages of a database to the disk; its server may run meanwhile.

    The pages in use are written once more, so the disk needs room for them. While no run is active
    that takes milliseconds.

    Returns:
        Bytes by which the files became smaller.

    Raises:
        sqlite3.Error: Another process writes to it, or the disk is full; it is unchanged.
    """
    if not database.is_file():
        return 0
    log = database.with_name(f"{database.name}-wal")
    with closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT_S, isolation_level=None)) as opened:
        (free,) = opened.execute("PRAGMA freelist_count").fetchone()
        (page,) = opened.execute("PRAGMA page_size").fetchone()
        if free * page <= most_free_bytes:
            return 0
        before = _bytes(database, log)
        opened.execute("VACUUM")
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
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


def _bytes(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
