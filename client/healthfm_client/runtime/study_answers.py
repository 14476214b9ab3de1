"""When the study last answered this site's node, in a file: who looks at the site can tell."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

FILE: Final = "answered.json"
WRITTEN_AFTER_S: Final = 1.0
"""Between two writings; a node at work is answered many times a second."""
GAP: Final = timedelta(seconds=20)
"""The node asks every three seconds, and while it sends a large update hears nothing for some."""


@dataclass(frozen=True)
class StudyAnswers:
    """A node's last answer, and since when there was no gap.

    Attributes:
        at: The last answer.
        since: The first one after the last gap.
    """

    at: datetime
    since: datetime

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what a site's node noted; None where it never had an answer.

        Args:
            folder: Of the site's processes.
        """
        try:
            said = json.loads((folder / FILE).read_text("utf-8"))
            return cls(datetime.fromisoformat(said["at"]), datetime.fromisoformat(said["since"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def is_recent(self, now: datetime) -> bool:
        """Whether the last answer was just now."""
        return now - self.at < GAP


class AnswerNotes:
    """Notes answers; several threads may.

    Args:
        folder: Of the site's processes.
        clock: Tells the seconds.
        now: Tells the time.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._path = folder / FILE
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._written: float | None = None
        self._last: StudyAnswers | None = None

    def answered(self) -> None:
        """Note that the study answered just now."""
        with self._lock:
            if self._written is not None and self._clock() - self._written < WRITTEN_AFTER_S:
                return
            now, before = self._now(), self._last
            since = before.since if before is not None and before.is_recent(now) else now
            self._last, self._written = StudyAnswers(now, since), self._clock()
            self._write(self._last)

    def _write(self, answers: StudyAnswers) -> None:
        """Write it whole, without waiting for the disk: after a crash it says nothing anyway."""
        text = json.dumps({"at": answers.at.isoformat(), "since": answers.since.isoformat()})
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_text(text, "utf-8")
            os.replace(partial, self._path)
        except OSError:  # a full disk ends no connection; the note grows old, which is told
            partial.unlink(missing_ok=True)
