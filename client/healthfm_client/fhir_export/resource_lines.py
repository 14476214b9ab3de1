"""A file of resources, a line each (NDJSON), counted and checked as it arrives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

LINE_AT_MOST: Final = 32 * 1024**2
"""Bytes of a line; ``ingest`` reads no longer one."""


class ResourceKind(msgspec.Struct):
    """Of what type a resource is."""

    resourceType: str


_KIND: Final = msgspec.json.Decoder(ResourceKind)


class LinesFault(NamedTuple):
    """What is wrong with a file of lines.

    Attributes:
        seen: In words.
        cut_off: Whether it may be whole when it comes again.
    """

    seen: str
    cut_off: bool = False


@dataclass
class ResourceLines:
    """The lines of a file that arrives in parts.

    The first line has to be a resource of the type, so that a page of HTML or an error is none; the
    last one has to be a resource, so that a file that was cut off is seen.

    Attributes:
        kind: The type of the file's resources; '' takes any.
        lines: How many have something in them, so far.
        size: Bytes so far.
    """

    kind: str
    lines: int = 0
    size: int = 0
    _rest: bytearray = field(default_factory=bytearray, init=False)
    _last: bytes = field(default=b"", init=False)

    def add(self, part: bytes) -> LinesFault | None:
        """Take in the next part; return what is wrong with it."""
        self.size += len(part)
        end = part.rfind(b"\n") + 1
        self._rest += part[:end] if end else part
        if end:
            whole = [line for line in bytes(self._rest).split(b"\n") if line.strip()]
            self._rest = bytearray(part[end:])
            fault = self._whole_lines(whole)
            if fault is not None:
                return fault
        return _TOO_LONG if len(self._rest) > LINE_AT_MOST else None

    def end(self) -> LinesFault | None:
        """Take the last line for whole; return what is wrong with the file."""
        if self._rest.strip():
            fault = self._whole_lines([bytes(self._rest)])
            if fault is not None:
                return fault
        return _CUT_OFF if self.lines and _kind_of(self._last) is None else None

    def _whole_lines(self, lines: list[bytes]) -> LinesFault | None:
        first = not self.lines
        self.lines += len(lines)
        if not lines:
            return None
        self._last = lines[-1]
        return _wrong_first(lines[0], self.kind) if first else None


_TOO_LONG: Final = LinesFault(f"a line has more than {LINE_AT_MOST // 1024**2} MB")
_CUT_OFF: Final = LinesFault("it is cut off in the middle of a line", cut_off=True)


def _kind_of(line: bytes) -> str | None:
    try:
        return _KIND.decode(line).resourceType or None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _wrong_first(line: bytes, kind: str) -> LinesFault | None:
    found = _kind_of(line)
    if found is None and line.lstrip()[:1] == b"<":
        return LinesFault("it is a page for people (HTML), not resources")
    if found is None:
        return LinesFault("its first line is no resource of FHIR's")
    if kind and found != kind:
        other = found if found.isascii() and found.isalpha() and len(found) < 64 else "others"
        return LinesFault(f"its resources are {other}, the list says {kind}")
    return None
