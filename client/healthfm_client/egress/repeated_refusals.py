"""The same refusal of the same run again and again: a line a day, with how often.

While a person is waited for, the coordinator asks each minute. Nothing but the refusal leaves, and
a line for each would hide what did.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from healthfm_core.errors import PolicyError
from healthfm_core.trust import files
from healthfm_core.trust.certificates import now_utc

STATED: Final = frozenset({503, 504, 505, 506, 508})
"""What an administrator's own answer, hours or pause refuses: known here, the same each time."""
A_LINE_EACH: Final = timedelta(days=1)
MOST: Final = 256
"""Refusals that are remembered, the newest."""


class RepeatedRefusals:
    """A site's memory of what it refused of late.

    Args:
        path: The file; it is made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def repeats(self, what: str, facts: dict[str, Any], now: datetime | None = None) -> int | None:
        """Count a reply; return how many of its kind had no line of their own since the last line.

        Args:
            what: The kind of message.
            facts: What the log would say of the reply.
            now: The time.

        Returns:
            None where this one needs no line either.

        Raises:
            PolicyError: The memory cannot be written (HF-507).
        """
        if facts.get("refused") not in STATED:
            return 0
        when, known = now or now_utc(), self._read()
        key = f"{what} {facts['refused']} {facts['reason']}"
        before = known.pop(key, None)
        fresh = before is None or when - datetime.fromisoformat(before["at"]) >= A_LINE_EACH
        unlogged = 0 if before is None else int(before["unlogged"])
        at = when.isoformat() if fresh or before is None else before["at"]
        known[key] = {"at": at, "unlogged": 0 if fresh else unlogged + 1}
        self._write(dict(list(known.items())[-MOST:]))
        return unlogged if fresh else None

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found: dict[str, dict[str, Any]] = json.loads(self._path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):  # none yet, or damaged: then each gets its line
            return {}
        return found

    def _write(self, known: dict[str, dict[str, Any]]) -> None:
        try:
            files.replace(self._path, json.dumps(known).encode())
        except OSError as error:
            seen = f"it cannot be written: {error.strerror}"
            raise PolicyError(507, where=self._path.name, seen=seen) from error
