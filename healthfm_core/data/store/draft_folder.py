"""A folder that is there whole or not at all: written beside its place, then given its name."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from healthfm_core.data.store.beside_store import remove_beside
from healthfm_core.errors import IngestError

_HERE: Final = -100
"""AT_FDCWD of Linux's fcntl.h: relative paths are those of this process."""
_EXCHANGE: Final = 2
"""RENAME_EXCHANGE of Linux's renameat2 (3.15)."""


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path`, which is removed at the end unless `publish` moved it."""
    draft = path.parent / f".{path.name}.partial-{secrets.token_hex(4)}"
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def publish(draft: Path, path: Path) -> None:
    """Give a finished draft its name; what stood at `path` goes once the draft is there.

    Whoever opens `path` finds the old or the new; where names cannot be swapped, for a moment none.
    What was worked out of the old lies beside it, and goes too.
    """
    _give_its_name(draft, path)
    remove_beside(path)


def _give_its_name(draft: Path, path: Path) -> None:
    if path.exists() and names_swapped(draft, path):
        shutil.rmtree(draft, ignore_errors=True)
        return
    old = draft.with_name(f"{draft.name}.old")
    if path.exists():
        path.rename(old)
    try:
        draft.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def names_swapped(one: Path, other: Path) -> bool:
    """Swap the names of two folders at once; give whether the system and the file system can."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    names = (_HERE, os.fsencode(one), _HERE, os.fsencode(other))
    return rename is not None and rename(*names, _EXCHANGE) == 0


def link_file(file: Path, place: Path) -> None:
    """Give a file that stays as it is its place in a draft, without a copy where that goes."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copy2(file, place)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise HF-304 where `path` exists, unless it may be replaced and holds stores only."""
    if not path.exists() or (overwrite and _replaceable(path)):
        return
    raise IngestError(
        304,
        where=path.name,
        seen="the output folder exists already" + (" and holds no store" if overwrite else ""),
        do="Name another folder" + (_INTO if _is_store(path) and not overwrite else "."),
    )


_INTO: Final = (
    "; or, where the source has more of the same people, add it to this store with --into in "
    "place of --out."
)


def _is_store(path: Path) -> bool:
    return (path / "metadata").is_dir()


def _replaceable(path: Path) -> bool:
    if not path.is_dir():
        return False
    inside = list(path.iterdir())
    return (path / "metadata").is_dir() or all((child / "metadata").is_dir() for child in inside)
