"""What is worked out of a store lies beside it, in a folder that only its owner may enter.

``.<store>.tokens/`` holds what may be used again, each under a name that says of which files it was
made, and drafts: folders that a process writes in while it holds their lock. A draft whose lock is
free is of a process that was killed, and goes when the next one comes.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from healthfm_core.owner_only import owner_only

_SUFFIX: Final = ".tokens"
_DRAFT: Final = ".draft-"
_LOCK: Final = ".lock"
_elsewhere: dict[Path, tempfile.TemporaryDirectory[str]] = {}
"""Store → where its things are in this process, where nothing can be written beside it."""
_log = logging.getLogger(__name__)


def folder_beside(store: Path) -> Path:
    """Return where what is worked out of a store lies; it need not be there."""
    return store.parent / f".{store.name}{_SUFFIX}"


def working_folder(store: Path) -> Path:
    """Return the folder beside a store, made if it is not there, without what killed ones left.

    Where nothing can be written there, one that this process removes at its end.
    """
    if store in _elsewhere:
        return Path(_elsewhere[store].name)
    folder = folder_beside(store)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        writable = False
    else:
        writable = os.access(folder, os.W_OK | os.X_OK)
    if not writable:
        _log.warning("beside the store %s nothing can be written: it is read anew", store.name)
        _elsewhere[store] = tempfile.TemporaryDirectory(prefix="healthfm-tokens-")
        return Path(_elsewhere[store].name)
    _remove_dead_drafts(folder)
    return folder


@contextmanager
def draft_in(folder: Path) -> Iterator[Path]:
    """Give a new folder in a working folder; at the end it goes, unless it was given another name.

    No other process takes it for a dead one's meanwhile. What this process writes is its owner's
    alone.
    """
    draft = folder / f"{_DRAFT}{secrets.token_hex(4)}"
    lock = draft.with_name(f"{draft.name}{_LOCK}")
    with owner_only(), lock.open("x") as file:
        _lock(file)
        draft.mkdir(mode=0o700)
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)
            lock.unlink(missing_ok=True)


def bytes_beside(store: Path) -> int:
    """Return the bytes of all that was worked out of a store, see `remove_beside`."""
    return sum(_size_of(one) for one in _worked_out(store))


def remove_beside(store: Path) -> int:
    """Remove all that was worked out of a store, also what lies beside another store of its site.

    Whoever has it open goes on with what is open.

    Returns:
        The bytes that went.
    """
    size = bytes_beside(store)
    for one in _worked_out(store):
        shutil.rmtree(one)
    return size


def _worked_out(store: Path) -> list[Path]:
    folder = folder_beside(store)
    if not folder.is_dir():
        return []
    return [
        *(one.resolve() for one in folder.iterdir() if one.is_symlink() and one.exists()),
        folder,
    ]


def _size_of(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def _remove_dead_drafts(folder: Path) -> None:
    for lock in folder.glob(f"{_DRAFT}*{_LOCK}"):
        try:
            with lock.open("r") as file:
                if _lock(file):
                    shutil.rmtree(lock.with_name(lock.name.removesuffix(_LOCK)), ignore_errors=True)
                    lock.unlink(missing_ok=True)
        except FileNotFoundError:
            continue  # its process was just done


def _lock(file: IO[str]) -> bool:
    """Return whether the file's lock was free, and is held from now on."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another holds it, or the file system knows no locks
        return False
    return True
