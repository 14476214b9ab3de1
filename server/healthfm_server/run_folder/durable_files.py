"""A disk that cannot be written to, said in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from healthfm_core.errors import RunError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file where the system refuses to write it (HF-725)."""
    try:
        yield
    except OSError as error:
        raise RunError(
            725,
            where=path.name,
            seen=error.strerror or "it cannot be written",
            wanted="room on the disk, and the right to write there",
            do="Make room; the run goes on at its last complete round",
        ) from error
