"""Files of keys and state: private ones for their owner only, each written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from healthfm_core.errors import ConfigError, TrustError

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644


def write_new(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Write a file that must not exist yet; it appears whole or not at all.

    Raises:
        TrustError: Something has that name already (HF-801).
    """
    partial = _partial(path, data, mode)
    try:
        os.link(partial, path)
    except FileExistsError as error:
        raise exists_already(path) from error
    finally:
        partial.unlink()
    flush_folder(path.parent)


def exists_already(path: Path) -> TrustError:
    """Return the error for something that would be overwritten (HF-801)."""
    return TrustError(801, where=str(path), seen="it exists already")


def replace(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Write a file, over another if there is one; a kill leaves the old one or the new one."""
    _partial(path, data, mode).replace(path)
    flush_folder(path.parent)


def read(path: Path, what: str) -> bytes:
    """Return a file's bytes.

    Raises:
        TrustError: It is not there or cannot be read (HF-802).
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unusable(path, f"{what} cannot be read: {error.strerror}") from error


def read_given(path: Path, what: str) -> bytes:
    """Return the bytes of a file that a person named.

    Raises:
        ConfigError: It cannot be read (HF-107): a mistyped path is no damaged key.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        seen, wanted = f"{what} cannot be read: {why}", "a file that this user may read"
        raise ConfigError(
            107, where=str(path), seen=seen, wanted=wanted, do="Check the path"
        ) from error


def read_private(path: Path, what: str) -> bytes:
    """Return the bytes of a file that nobody but its owner may read.

    Raises:
        TrustError: It is not there, or others may read or write it (HF-802).
    """
    data = read(path, what)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise unusable(path, f"{what} can be read by others", do=f"Run: chmod 600 {path}")
    return data


def unusable(path: Path, seen: str, do: str | None = None) -> TrustError:
    """Return the error for a file of keys that cannot be used (HF-802)."""
    return TrustError(802, where=str(path), seen=seen, do=do)


def flush_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _partial(path: Path, data: bytes, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        partial.unlink()
        raise
    return partial
