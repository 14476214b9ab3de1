"""The egress log: a line for everything that leaves this site, on disk before it leaves.

JSON lines, each with the hash of the line before it, so that none can be changed or taken out
unnoticed. ``egress.head`` beside the log says how far it went, so that its end cannot be cut off
unnoticed either. The log stays here; nothing in it is about a person, since nothing that leaves is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from healthfm_core.errors import PolicyError, TrustError
from healthfm_core.trust import files, signed

FIRST: Final = hashlib.sha256(b"healthfm egress log 1").hexdigest()
"""What the first line names as the one before it."""
Entry = dict[str, Any]


class EgressLog:
    """One site's log; several processes may append to it.

    Args:
        path: Of the log; it is made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head = path.with_suffix(".head")

    def append(self, what: str, facts: Mapping[str, Any]) -> Entry:
        """Put a line on disk and return it; what a kill cut short before is mended and noted.

        Args:
            what: The kind of message, or what else happened.
            facts: JSON: what left, with shapes and hashes.

        Raises:
            PolicyError: The line cannot be written (HF-507); then nothing may leave.
            TrustError: The log was changed or cut (HF-822).
        """
        try:
            with self._locked() as file:
                return self._append(file, what, facts)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def entries(self) -> Iterator[Entry]:
        """Yield the lines in their order, each held against the one before it.

        Raises:
            TrustError: A line was changed, added, moved or taken out (HF-822); the number of the
                line is said.
        """
        number, previous = 0, FIRST
        for number, line in enumerate(_whole_lines(self.path), start=1):
            entry = _checked(line, number, previous)
            previous = entry["hash"]
            yield entry
        self._compare(number, previous)

    def verify(self) -> int:
        """Return how many lines the log has, all of them as they were written.

        Raises:
            TrustError: They are not (HF-822).
        """
        return sum(1 for _ in self.entries())

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, files.PRIVATE)
        with os.fdopen(handle, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _append(self, file: BinaryIO, what: str, facts: Mapping[str, Any]) -> Entry:
        number, previous, torn = _last(file)
        self._compare(number, previous)
        if torn:
            file.truncate(file.seek(-torn, os.SEEK_END))
            mended = _entry(number + 1, previous, "mended", {"bytes_cut": torn})
            _write(file, mended)
            number, previous = number + 1, mended["hash"]
        entry = _entry(number + 1, previous, what, facts)
        _write(file, entry)
        os.fsync(file.fileno())
        files.replace(self._head, signed.canonical([entry["n"], entry["hash"]]), files.PRIVATE)
        return entry

    def _compare(self, number: int, last: str) -> None:
        """Refuse a log that ends before its head; one line past it is a kill between the two."""
        if not self._head.exists():
            return
        known, known_hash = json.loads(files.read(self._head, "the head of the egress log"))
        if number < known or (number == known and last != known_hash):
            raise altered_log(self.path, f"it ends at line {number}, and had {known}")


def _whole_lines(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _checked(line: bytes, number: int, previous: str) -> Entry:
    try:
        entry = json.loads(line)
        rest = {key: value for key, value in entry.items() if key != "hash"}
        whole = entry["hash"] == _hash(rest) and line == signed.canonical(entry) + b"\n"
        follows = entry["n"] == number and entry["previous"] == previous
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = follows = False
    if not (whole and follows):
        raise altered_log(Path("egress.log"), f"line {number} is not as it was written")
    return entry


def _last(file: BinaryIO) -> tuple[int, str, int]:
    """Return number and hash of the last whole line, and how many bytes of a torn one follow."""
    size = file.seek(0, os.SEEK_END)
    step, tail = 1 << 16, b""
    while len(tail) < size and tail.count(b"\n") < 2:
        step *= 2
        file.seek(max(0, size - step))
        tail = file.read()
    whole, _, torn = tail.rpartition(b"\n")
    if not whole:
        return 0, FIRST, len(torn)
    try:
        entry = json.loads(whole.rpartition(b"\n")[2])
        return int(entry["n"]), str(entry["hash"]), len(torn)
    except (ValueError, KeyError, TypeError) as error:
        raise altered_log(Path("egress.log"), "its last line is not as it was written") from error


def _entry(number: int, previous: str, what: str, facts: Mapping[str, Any]) -> Entry:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"n": number, "at": at, "previous": previous, "what": what, **facts}
    return {**entry, "hash": _hash(entry)}


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(signed.canonical(entry)).hexdigest()


def _write(file: BinaryIO, entry: Entry) -> None:
    file.seek(0, os.SEEK_END)
    file.write(signed.canonical(entry) + b"\n")
    file.flush()


def altered_log(path: Path, seen: str) -> TrustError:
    """Return the error for a log that is not as it was written (HF-822)."""
    return TrustError(822, where=path.name, seen=seen)


def _unwritable(path: Path, error: OSError) -> PolicyError:
    return PolicyError(507, where=path.name, seen=f"it cannot be written: {error.strerror}")
