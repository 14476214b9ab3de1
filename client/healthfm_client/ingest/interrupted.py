"""What a killed ingest left beside its output: the next one puts it right and says so.

An ingest holds the lock of ``.<out>.lock`` while it works, which ends with its process however that
ends. Whoever holds it knows that what else lies there is of nobody.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from healthfm_core.errors import IngestError

WORK: Final = ".work-"
_KINDS: Final = (".{}.partial-*", "..{}.partial-*", ".{}.unpacked", ".{}.dry-run-*")


@contextmanager
def output_lock(out: Path) -> Iterator[bool]:
    """Keep other ingests from `out` meanwhile; give whether the file system knows locks.

    Without locks nobody is kept off, and what lies beside `out` may be another's.

    Raises:
        IngestError: HF-313 where another ingest works there.
    """
    made = not out.parent.exists()
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _held(out.parent / f".{out.name}.lock", out.name) as locked:
            yield locked
    finally:
        if made and not any(out.parent.iterdir()):
            out.parent.rmdir()


def remove_leftovers(out: Path) -> list[str]:
    """Put right what a killed ingest left beside `out`, and return what was done, in sentences."""
    notices = []
    replaced = sorted(out.parent.glob(f".{glob.escape(out.name)}.partial-*.old"))
    if replaced and not out.exists():
        replaced[0].rename(out)
        notices.append(
            f"{out.name} is back: an ingest that was to replace it was killed at its end."
        )
    left = [p for kind in _KINDS for p in out.parent.glob(kind.format(glob.escape(out.name)))]
    if left:
        size = sum(file.stat().st_size for one in left for file in one.rglob("*") if file.is_file())
        for one in left:
            shutil.rmtree(one)
        notices.append(
            f"Removed what a killed ingest left beside {out.name}, {size / 1e6:,.1f} MB."
        )
    return notices


def work_folders(out: Path) -> list[Path]:
    """Return the folders beside `out` that outlasted an interruption, for ``--resume``."""
    return sorted(out.parent.glob(f".{glob.escape(out.name)}{WORK}*"))


@contextmanager
def _held(path: Path, name: str) -> Iterator[bool]:
    """Hold the lock of a file and remove it at the end; give whether there are locks."""
    while True:
        with path.open("a") as file:
            locked = _locked(file, name)
            if not _is_named(file, path):
                continue  # whoever held it was just done, and removed it
            try:
                yield locked
            finally:
                path.unlink(missing_ok=True)
            return


def _locked(file: IO[str], name: str) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise IngestError(313, where=name, seen="another ingest is writing it") from error
    except OSError:
        return False
    return True


def _is_named(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
