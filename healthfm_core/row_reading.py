"""Files of JSON lines that grow, read without reading all of them again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

BLOCK_BYTES: Final = 256 * 1024


def lines_backwards(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that is there, the last first, in blocks from its end."""
    for _, line in placed_lines_backwards(path):
        yield line


def placed_lines_backwards(path: Path, before: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield each line of a file with the byte it begins at, the last first.

    Args:
        path: Of the file, which is there.
        before: Only what begins before this byte; None: all. What follows the last line end, where
            there is something, is a line too.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        at, rest = size if before is None else min(before, size), b""
        while at:
            start = max(0, at - BLOCK_BYTES)
            file.seek(start)
            first, *whole = (file.read(at - start) + rest).split(b"\n")
            place = start + len(first) + 1 + sum(len(line) + 1 for line in whole)
            for line in reversed(whole):
                place -= len(line) + 1
                yield place, line
            at, rest = start, first
        yield 0, rest


def rows_backwards(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, the newest first; a line that a kill cut short is left out."""
    with suppress(FileNotFoundError):
        for line in lines_backwards(path):
            with suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row


class RowFollower:
    """Yields the lines that were added to a file since it looked last.

    Args:
        path: Of the file, which may not be there yet.
        keeps_places: Whether lines that were read can be read again.

    Attributes:
        began_anew: Whether the last look found another file in its place, or a shorter one: what
            was read before does not count any more.
        places: Where each whole line that was read begins, and its length, in bytes; empty where
            they are not kept.
    """

    def __init__(self, path: Path, *, keeps_places: bool = False) -> None:
        self._path = path
        self._keeps_places = keeps_places
        self._inode = 0
        self._at = 0
        self.began_anew = False
        self.places: list[tuple[int, int]] = []

    def new_lines(self) -> Iterator[bytes]:
        """Yield each whole line that is new; the one that is being written waits."""
        self.began_anew = False
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            self._begin_anew(0)
            return
        with file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._at:
                self._begin_anew(found.st_ino)
            file.seek(self._at)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                if self._keeps_places:
                    self.places.append((self._at, len(line)))
                self._at += len(line)
                yield line

    def line(self, number: int) -> bytes:
        """Return a line that was read before, counted from 0."""
        at, length = self.places[number]
        with self._path.open("rb") as file:
            file.seek(at)
            return file.read(length)

    def _begin_anew(self, inode: int) -> None:
        self.began_anew = self._at > 0
        self._inode, self._at = inode, 0
        self.places.clear()
