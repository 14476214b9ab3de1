"""A log that only grows: JSON lines, each with the hash of the line before it.

So no line can be changed or taken out unnoticed. A file beside the log, its head, says how far it
went, so that its end cannot be cut off unnoticed either. A log may be rotated: the chain goes on
from one file to the next, and its first files may be archived.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from healthfm_core.errors import TrustError
from healthfm_core.row_reading import rows_backwards
from healthfm_core.trust import files, signed

Entry = dict[str, Any]
_DIGITS: Final = 6


class ChainedLog:
    """One log; several processes may append to it.

    Args:
        path: Of its newest file; it is made when it is missing.
        first: What the first line names as the hash of the one before it, in hex.
        kind: Key under which a line says what it is about.
        rotate_bytes: A file that has reached this size is set aside as ``NAME-000001.log`` and so
            on, and none is deleted; None: there is one file.
    """

    def __init__(
        self, path: Path, *, first: str, kind: str = "what", rotate_bytes: int | None = None
    ) -> None:
        self.path = path
        self._first = first
        self._kind = kind
        self._rotate_bytes = rotate_bytes
        self._head = path.with_suffix(".head")

    def add(self, rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
        """Put lines on disk and return them; what a kill cut short before is mended and noted.

        Raises:
            OSError: They cannot be written.
            TrustError: The log was changed or cut (HF-822).
        """
        with self.locked() as file:
            number, previous, torn = self.check_end(file)
            entries: list[Entry] = []
            if torn:
                file.truncate(file.seek(-torn, os.SEEK_END))
                rows = [{self._kind: "mended", "bytes_cut": torn}, *rows]
            for row in rows:
                entries.append(_entry(number + 1, previous, row))
                number, previous = number + 1, entries[-1]["hash"]
            file.seek(0, os.SEEK_END)
            file.write(b"".join(signed.canonical(entry) + b"\n" for entry in entries))
            file.flush()
            os.fsync(file.fileno())
            files.replace(self._head, signed.canonical([number, previous]), files.PRIVATE)
            if self._rotate_bytes is not None and file.tell() >= self._rotate_bytes:
                self.set_aside(max([0, *map(self._number, self._aside())]) + 1)
        return entries

    def entries(self) -> Iterator[Entry]:
        """Yield the lines in their order, each held against the one before it.

        Where the oldest files that were set aside are archived, all but the newest of them may be,
        it begins with the first line that is there.

        Raises:
            TrustError: A line was changed, added, moved or taken out (HF-822); the number of the
                line is said.
        """
        known = self._known()  # first: a line that is written meanwhile comes after it
        number, previous = 0, self._first
        for path, line in self._lines():
            if number == 0 and path != self.path and self._number(path) > 1:
                number, previous = _before(path, line)
            number += 1
            entry = _checked(path, line, number, previous)
            previous = entry["hash"]
            if known is not None and number == known[0] and previous != known[1]:
                raise altered_log(path, f"line {number} is not as it was written")
            yield entry
        if known is not None and number < known[0]:
            raise altered_log(self.path, f"it ends at line {number}, and had {known[0]}")

    def verify(self) -> int:
        """Return how many lines there are, all of them as they were written.

        Raises:
            TrustError: They are not (HF-822).
        """
        return sum(1 for _ in self.entries())

    def length(self) -> int:
        """Return how many lines it says that it has, without proof that they are as written.

        Raises:
            TrustError: It ends before its head says, or its last line is none (HF-822).
        """
        known = self._known()  # first: a line that is written meanwhile comes after it
        try:
            with self.path.open("rb") as file:
                number, last, _ = self._last(file)
        except FileNotFoundError:
            number, last = 0, self._first
        self._check_known(known, number, last)
        return number

    def newest(self) -> Iterator[Entry]:
        """Yield the lines, the newest first, without proof that they are as written."""
        for path in (self.path, *reversed(self._aside())):
            yield from rows_backwards(path)

    def earlier(self) -> list[Path]:
        """Return the files that were set aside, oldest first."""
        found = self.path.parent.glob(f"{self.path.stem}-{'[0-9]' * _DIGITS}{self.path.suffix}")
        return sorted(found)

    @contextmanager
    def locked(self) -> Iterator[BinaryIO]:
        """Hold the newest file against every other writer.

        Raises:
            OSError: It cannot be opened.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, files.PRIVATE)
            with os.fdopen(handle, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                with suppress(FileNotFoundError):
                    if os.path.samestat(self.path.stat(), os.fstat(handle)):
                        yield file
                        return
            # it was set aside while we waited: the next one is ours

    def _last(self, file: BinaryIO) -> tuple[int, str, int]:
        """Return number and hash of the last whole line, and how many bytes of a torn one."""
        number, previous, torn = last_line(file)
        aside = [path for path in self._aside() if number == 0 and self._number(path) > 0]
        if aside:
            with aside[-1].open("rb") as before:
                number, previous, _ = last_line(before)
        return number, previous if number else self._first, torn

    def check_end(self, file: BinaryIO) -> tuple[int, str, int]:
        """Return number and hash of the last whole line, and how many bytes of a torn one follow.

        Args:
            file: The newest one, locked.

        Raises:
            TrustError: The log ends before its head, or with another line (HF-822). A line past
                the head is a kill between the two.
        """
        number, last, torn = self._last(file)
        self._check_known(self._known(), number, last)
        return number, last, torn

    def _check_known(self, known: tuple[int, str] | None, number: int, last: str) -> None:
        if known is not None and (number < known[0] or (number == known[0] and last != known[1])):
            raise altered_log(self.path, f"it ends at line {number}, and had {known[0]}")

    def _known(self) -> tuple[int, str] | None:
        if not self._head.exists():
            return None
        number, last = json.loads(files.read(self._head, f"the head of {self.path.name}"))
        return int(number), str(last)

    def _lines(self) -> Iterator[tuple[Path, bytes]]:
        """Yield each line with its file, also where a file is set aside while we read."""
        done = 0
        while True:
            with suppress(FileNotFoundError), self.path.open("rb") as newest:
                fresh = [path for path in self._aside() if self._number(path) > done]
                if not fresh:
                    yield from ((self.path, line) for line in newest if line.endswith(b"\n"))
                    return
            fresh = [path for path in self._aside() if self._number(path) > done]
            if not fresh:
                return
            for path in fresh:
                with path.open("rb") as file:
                    yield from ((path, line) for line in file)
                done = self._number(path)

    def _aside(self) -> list[Path]:
        return self.earlier() if self._rotate_bytes is not None else []

    def set_aside(self, number: int) -> Path:
        """Give the newest file, which is locked, its number; return where it is from now on."""
        aside = self.path.with_stem(f"{self.path.stem}-{number:0{_DIGITS}d}")
        self.path.rename(aside)
        files.flush_folder(self.path.parent)
        return aside

    def _number(self, path: Path) -> int:
        return int(path.stem[-_DIGITS:])


def last_line(file: BinaryIO) -> tuple[int, str, int]:
    """Return number and hash of a file's last whole line, and how many bytes of a torn one follow.

    Raises:
        TrustError: It is not a line of such a log (HF-822).
    """
    size = file.seek(0, os.SEEK_END)
    step, tail = 1 << 16, b""
    while len(tail) < size and tail.count(b"\n") < 2:
        step *= 2
        file.seek(max(0, size - step))
        tail = file.read()
    whole, _, torn = tail.rpartition(b"\n")
    if not whole:
        return 0, "", len(torn)
    try:
        entry = json.loads(whole.rpartition(b"\n")[2])
        return int(entry["n"]), str(entry["hash"]), len(torn)
    except (ValueError, KeyError, TypeError) as error:
        raise altered_log(Path(file.name), "its last line is not as it was written") from error


def altered_log(path: Path, seen: str) -> TrustError:
    """Return the error for a log that is not as it was written (HF-822)."""
    return TrustError(822, where=path.name, seen=seen)


def _before(path: Path, line: bytes) -> tuple[int, str]:
    """Return number and hash of the line before a log's first that is not archived."""
    try:
        entry = json.loads(line)
        return int(entry["n"]) - 1, str(entry["previous"])
    except (ValueError, KeyError, TypeError) as error:
        raise altered_log(path, "its first line is not as it was written") from error


def _checked(path: Path, line: bytes, number: int, previous: str) -> Entry:
    try:
        entry = json.loads(line)
        rest = {key: value for key, value in entry.items() if key != "hash"}
        whole = entry["hash"] == _hash(rest) and line == signed.canonical(entry) + b"\n"
        follows = entry["n"] == number and entry["previous"] == previous
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = follows = False
    if not (whole and follows):
        raise altered_log(path, f"line {number} is not as it was written")
    return entry


def _entry(number: int, previous: str, row: Mapping[str, Any]) -> Entry:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"at": at, **row, "n": number, "previous": previous}
    return {**entry, "hash": _hash(entry)}


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(signed.canonical(entry)).hexdigest()
