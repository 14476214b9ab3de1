"""Files that are whole after any kill, and a disk that cannot be written to in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
        ) from error


def replace_file(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Write `pieces` so that after any kill the file is the old one or the new one.

    Returns:
        Their SHA-256, in hex.

    Raises:
        RunError: The disk does not take them (HF-725).
    """
    temporary, digest = path.with_name(f".{path.name}.tmp"), hashlib.sha256()
    with writing(path), temporary.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest.hexdigest()


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one line of JSON, on a line of its own even where a kill cut the last one short.

    Raises:
        RunError: The disk does not take it (HF-725).
    """
    with writing(path), path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the lines of JSON; one that a kill or a full disk cut short is left out."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
