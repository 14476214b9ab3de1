"""Flower's database, which keeps the size of its fullest moment unless it is told to shrink.

Flower takes a run's messages and their pieces out of it when the run ends. The pages they were on
stay in the file: for a model of 200 MB and four sites that is more than a gigabyte.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

FREE_BYTES: Final = 16 * 1024 * 1024
"""Empty pages that may stay: the next run needs them again."""
PATIENCE_S: Final = 2.0
"""How long a writer is waited for; the SuperLink itself waits 5 s for us."""


def give_back(database: Path, most_free_bytes: int = FREE_BYTES) -> int:
    """Give empty pages of a database back to the disk, while its server runs or not.

    Only what is in use is written anew, so it takes room for that once more, and milliseconds
    where no run is on.

    Returns:
        Bytes by which the files became smaller.

    Raises:
        sqlite3.Error: It is written to meanwhile, or the disk is full; it stays as it was.
    """
    if not database.is_file():
        return 0
    log = database.with_name(f"{database.name}-wal")
    with closing(sqlite3.connect(database, timeout=PATIENCE_S, isolation_level=None)) as opened:
        (free,) = opened.execute("PRAGMA freelist_count").fetchone()
        (page,) = opened.execute("PRAGMA page_size").fetchone()
        if free * page <= most_free_bytes:
            return 0
        before = _bytes(database, log)
        opened.execute("VACUUM")
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return before - _bytes(database, log)


def _bytes(*paths: Path) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
