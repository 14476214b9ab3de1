"""A lock on a file, for one process at a time; it ends with the process that holds it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from healthfm_core.errors import RunError


@contextmanager
def held(path: Path, where: str) -> Iterator[None]:
    """Hold the lock of a file; it is released at the end, and by a kill too.

    Args:
        path: The file; it is created where it is missing.
        where: What is locked, for the error.

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
            ) from error
        yield
