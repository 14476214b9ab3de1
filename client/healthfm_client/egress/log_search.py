"""Searching the egress log from its end, in parts that take a second each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from healthfm_client.egress.egress_log import EgressLog
from healthfm_core.row_reading import placed_lines_backwards
from healthfm_core.trust.chained_log import Entry

Outcome = Literal["", "left", "refused"]

PATIENCE_S: Final = 1.0
"""After so long what was found is told, and where to go on from."""
LOOKED_AT_ONCE: Final = 256
"""Lines between two looks at the clock."""
NEVER: Final = "9999"


@dataclass(frozen=True)
class LogQuery:
    """What is looked for; what is empty asks for nothing.

    Attributes:
        words: All of them stand in the line, in capitals or not: names of records, runs, reasons.
        outcome: ``left`` where something left, ``refused`` where nothing did.
        what: Kind of message.
        since: First day, ``2026-11-24``.
        until: Last day.
    """

    words: tuple[str, ...] = ()
    outcome: Outcome = ""
    what: str = ""
    since: str = ""
    until: str = ""
    _raw: tuple[bytes, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        written = (json.dumps(word, ensure_ascii=False)[1:-1] for word in self.words)
        raw = (word.encode(errors="replace").lower() for word in written)
        object.__setattr__(self, "_raw", tuple(raw))

    def may_take(self, line: bytes) -> bool:
        """Whether a line has the words, by its bytes."""
        if not self._raw:
            return True
        lowered = line.lower()
        return all(word in lowered for word in self._raw)

    def takes(self, entry: Entry) -> bool:
        """Whether a line that has the words is of the rest, too."""
        refused = "refused" in entry
        day = str(entry.get("at", ""))[:10]
        return (
            self.outcome in ("", "refused" if refused else "left")
            and self.what in ("", entry.get("what"))
            and (self.since or "") <= day <= (self.until or NEVER)
        )


@dataclass(frozen=True)
class FoundLines:
    """What a search found.

    Attributes:
        lines: The newest first.
        earlier: Where to go on: the byte before which nothing was looked at; 0: all was.
        reached: Day of the oldest line that was looked at; empty where there was none.
    """

    lines: list[Entry]
    earlier: int
    reached: str


def find_lines(
    log: EgressLog,
    query: LogQuery,
    before: int = 0,
    limit: int = 100,
    clock: Callable[[], float] = time.monotonic,
) -> FoundLines:
    """Return lines of a log, the newest first, without proof that they are as written.

    Args:
        log: The log.
        query: What is looked for.
        before: Byte from `FoundLines.earlier`; 0: from the end.
        limit: Most lines.
        clock: Tells the seconds.
    """
    end, found = clock() + PATIENCE_S, list[Entry]()
    at, line = 0, b""
    for looked, place in enumerate(_placed(log, before), start=1):
        at, line = place
        entry = _entry(line) if query.may_take(line) else None
        if entry is not None and query.takes(entry):
            found.append(entry)
        if len(found) >= limit or (looked % LOOKED_AT_ONCE == 0 and clock() > end):
            break
    oldest = _entry(line) or {}
    return FoundLines(found, at, str(oldest.get("at", ""))[:10])


def line_of(log: EgressLog, number: int) -> Entry | None:
    """Return a log's line by its number, without proof that it is as written; None if none is.

    Lines are in the order of their numbers: it is found by halving.
    """
    if not log.path.is_file():
        return None
    with log.path.open("rb") as file:
        low, high = 0, file.seek(0, 2)
        while low < high:
            middle = (low + high) // 2
            file.seek(middle)
            if middle:
                file.readline()
            entry = _entry(file.readline())
            if entry is None or int(entry.get("n", 0)) >= number:
                high = middle
            else:
                low = middle + 1
        for start in (0, low):
            file.seek(start)
            if start:
                file.readline()
            entry = _entry(file.readline())
            if entry is not None and entry.get("n") == number:
                return entry
    return None


def _placed(log: EgressLog, before: int) -> Iterator[tuple[int, bytes]]:
    with suppress(FileNotFoundError):
        yield from placed_lines_backwards(log.path, before or None)


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:  # a kill cut it short, or nothing is there
        return None
    return entry if isinstance(entry, dict) else None
