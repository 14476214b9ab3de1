"""One process at a time: a lock on a file, which ends with the process that holds it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from healthfm_core.errors import RunError


@contextmanager
def held(path: Path, where: str) -> Iterator[None]:
    """Hold the lock of a file meanwhile; a kill lets go of it.

    Args:
        path: It is made where it is missing.
        where: What it is about, for the sentence.

    Raises:
        RunError: Another process holds it (HF-724).
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                724,
                where=where,
                seen="another process works on it",
                wanted="one at a time",
                do="Wait for it to end, or stop it; if it runs on another machine, there",
            ) from error
        yield
