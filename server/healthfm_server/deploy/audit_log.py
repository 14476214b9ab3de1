"""The audit log: who was admitted, who was refused and why, what was done to runs and sites.

One JSON line an event, appended in one write, so that several processes may share the file. It
names sites, addresses and reasons; nothing about a person can be in it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from healthfm_server.run_folder.durable_files import read_rows

REPEATED_S: Final = 10.0
"""A refusal that repeats within this time is counted, and written with its count afterwards."""


class AuditLog:
    """Appends events to a file.

    Args:
        path: Of the file.
        process: Name of the process that writes.
    """

    def __init__(self, path: Path, process: str) -> None:
        self.path = path
        self._process = process
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def note(self, event: str, details: Mapping[str, Any]) -> None:
        """Append one event with the time it was seen."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        row = {"at": at, "process": self._process, "event": event, **details}
        self._append((json.dumps(row) + "\n").encode())

    def note_refusal(
        self, event: str, details: Mapping[str, Any], now_s: float | None = None
    ) -> None:
        """Append a refusal; quick repeats are only counted, so that nobody can fill the disk."""
        now = time.monotonic() if now_s is None else now_s
        key = event, json.dumps(details, sort_keys=True)
        with self._lock:
            at, count = self._seen.get(key, (-REPEATED_S, 0))
            if now - at < REPEATED_S:
                self._seen[key] = at, count + 1
                return
            self._seen[key] = now, 0
            if len(self._seen) > 4096:
                self._seen = {k: v for k, v in self._seen.items() if now - v[0] < REPEATED_S}
        self.note(event, {**details, "again": count} if count else details)

    def rows(self) -> list[dict[str, Any]]:
        """Return the events; a last line cut short by a kill is left out."""
        return read_rows(self.path)

    def _append(self, line: bytes) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
