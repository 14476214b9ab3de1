"""The audit log: who was admitted, who was refused and why, what was done to runs and sites.

Lines of JSON in a hash chain over files of 16 MiB, `ChainedLog`; several processes write them. It
names sites, addresses and reasons; nothing about a person can be in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from healthfm_core.errors import HealthFMError, TrustError
from healthfm_core.trust.chained_log import ChainedLog, Entry, altered_log

FIRST: Final = hashlib.sha256(b"healthfm audit log 1").hexdigest()
"""What the first line names as the one before it."""
ROTATE_BYTES: Final = 16 * 1024 * 1024
WINDOW_S: Final = 60.0
"""Refusals of a window that are like one already written are counted, and written at its end."""
MOST_AT_ONCE: Final = 20
"""Refusals of a window that are written as they happen, each unlike the others."""
MOST_COUNTED: Final = 20
"""Lines with counts at a window's end; the other callers are one line for each reason."""
MOST_REMEMBERED: Final = 4096
"""Kinds of refusal that are counted apart; more are counted together."""
MOST_WAITING: Final = 10_000
RETRY_S: Final = 5.0

ALTERED: Final = "log altered"
"""Event that begins a log anew where somebody changed it; verification fails at it."""
_OTHERS: Final = "others"
_Kind = tuple[str, tuple[tuple[str, str], ...]]
_log = logging.getLogger(__name__)


class AuditLog:
    """Appends events to a study's log.

    Args:
        path: Of its newest file.
        process: Name of the process that writes.
        rotate_bytes: Size at which a file is set aside.
    """

    def __init__(self, path: Path, process: str, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.path = path
        self._process = process
        self._chain = ChainedLog(path, first=FIRST, kind="event", rotate_bytes=rotate_bytes)
        self._lock = threading.Lock()
        self._counts = RefusalCounts()
        self._is_chained = False

    def note(self, event: str, details: Mapping[str, Any]) -> None:
        """Append one event with the time it was seen; it is on disk when this returns."""
        self._write([self._row(event, details)])

    def note_refusal(
        self, event: str, details: Mapping[str, str], now_s: float | None = None
    ) -> None:
        """Append a refusal; repeats are only counted, so that nobody can fill the disk.

        Args:
            event: What was refused.
            details: Who and why; under ``path`` what was asked for, which makes no other refusal.
            now_s: A clock's reading; None: the monotonic clock's.
        """
        now = time.monotonic() if now_s is None else now_s
        with self._lock:
            rows = self._counts.of_window_before(now)
            if self._counts.is_new(event, details):
                rows.append((event, dict(details)))
        if rows:
            self._write([self._row(*row) for row in rows])

    def note_counts(self, now_s: float | None = None) -> None:
        """Append the counts of a window that has ended."""
        now = time.monotonic() if now_s is None else now_s
        with self._lock:
            rows = self._counts.of_window_before(now)
        if rows:
            self._write([self._row(*row) for row in rows])

    def close(self) -> None:
        """Write what is counted."""
        self.note_counts(time.monotonic() + WINDOW_S)

    def rows(self, event: str = "", newest: int | None = None) -> list[dict[str, Any]]:
        """Return the events; a last line cut short by a kill is left out.

        Args:
            event: Only these; empty: all.
            newest: Of so many files; None: of all, also of what a release without a chain wrote.
        """
        paths = [*self._chain.earlier(), self.path]
        rows: list[dict[str, Any]] = []
        for path in paths[-(newest or len(paths)) :]:
            with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
                rows += [row for line in file if event in line for row in _read(line)]
        return [row for row in rows if event in ("", row["event"])]

    def newest(self, before: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the events of the chain, the newest first, without proof that the log is whole.

        Args:
            before: Only those whose number ``n`` is smaller; 0: all.
        """
        for row in self._chain.newest():
            if not before or row.get("n", 0) < before:
                yield row

    def entries(self) -> Iterator[Entry]:
        """Yield the lines in their order, each held against the one before it.

        Raises:
            TrustError: The log was changed (HF-822), also where it was begun anew since.
        """
        for entry in self._chain.entries():
            yield entry
            if entry["event"] == ALTERED:
                raise altered_log(self.path, f"line {entry['n']} says so: {entry['seen']}")

    def _row(self, event: str, details: Mapping[str, Any]) -> dict[str, Any]:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        return {"at": at, "process": self._process, "event": event, **details}

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not self._is_chained:
            self._begin_chain()
        try:
            self._chain.add(rows)
        except TrustError as error:
            self._begin_anew(error.seen)
            self._chain.add(rows)

    def _begin_anew(self, seen: str) -> None:
        """Keep an altered log under another name and say so in a new one: the study goes on."""
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
        with self._chain.locked() as file:
            try:
                self._chain.check_end(file)
            except TrustError:
                digest = _digest(self.path)
                for path in (self.path, self.path.with_suffix(".head")):
                    if path.exists():
                        path.rename(path.with_stem(f"{path.stem}.altered-{stamp}"))
            else:
                return  # another process was first
        kept = {"file": f"{self.path.stem}.altered-{stamp}{self.path.suffix}", "sha256": digest}
        self._chain.add([self._row(ALTERED, {**kept, "seen": seen})])

    def _begin_chain(self) -> None:
        """Set a log aside that a release without a chain wrote, and say in the chain which."""
        kept = None
        with self._chain.locked() as file:
            line = file.readline()
            if line and b'"previous"' not in line:
                kept = {"sha256": _digest(self.path), "file": self._chain.set_aside(0).name}
        if kept is not None:
            self._chain.add([self._row("log without a chain kept", kept)])
        self._is_chained = True


class BackgroundAuditLog(AuditLog):
    """An audit log for an event loop: a thread writes, and flushes many lines at once.

    Where the disk refuses, the lines wait and are tried again; of more than `MOST_WAITING` only
    the number is kept.

    Args:
        path: Of its newest file.
        process: Name of the process that writes.
    """

    def __init__(self, path: Path, process: str) -> None:
        super().__init__(path, process)
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(MOST_WAITING)
        self._lost = 0
        self._thread = threading.Thread(target=self._work, name="audit log", daemon=True)
        self._thread.start()

    def flush(self) -> None:
        """Return when all that was noted is on disk."""
        self._waiting.join()

    def close(self) -> None:
        """Write what is counted and what waits, and end the thread."""
        super().close()
        self._waiting.put(None)
        self._thread.join()

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            try:
                self._waiting.put_nowait(row)
            except queue.Full:
                self._lost += 1

    def _work(self) -> None:
        while True:
            rows: list[Mapping[str, Any] | None] = []
            try:
                rows.append(self._waiting.get(timeout=WINDOW_S / 4))
            except queue.Empty:
                self.note_counts()
                continue
            while None not in rows and len(rows) < 1000 and not self._waiting.empty():
                rows.append(self._waiting.get())
            found = [row for row in rows if row is not None]
            if found:
                self._write_now(found)
            for _ in rows:
                self._waiting.task_done()
            if None in rows:
                return

    def _write_now(self, rows: list[Mapping[str, Any]]) -> None:
        while True:
            lost, self._lost = self._lost, 0
            if lost:
                rows.append(self._row("lines lost", {"lines": lost}))
            try:
                super()._write(rows)
                return
            except (OSError, HealthFMError) as error:
                _log.warning("the audit log cannot be written, which is tried again: %s", error)
                time.sleep(RETRY_S)


class RefusalCounts:
    """What was refused within a window, by who and why; of bounded size whoever calls."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._written = 0
        self._again: Counter[_Kind] = Counter()
        self._seen: set[_Kind] = set()

    def is_new(self, event: str, details: Mapping[str, str]) -> bool:
        """Count one refusal; return whether it is to be written now."""
        known = {key: value for key, value in details.items() if key != "path"}
        kind = event, tuple(sorted(known.items()))
        if kind not in self._seen and len(self._seen) < MOST_REMEMBERED:
            self._seen.add(kind)
            if self._written < MOST_AT_ONCE:
                self._written += 1
                return True
        elif kind not in self._seen:
            kind = _without_who(kind)
        self._again[kind] += 1
        return False

    def of_window_before(self, now_s: float) -> list[tuple[str, dict[str, Any]]]:
        """Return the counts of the window if it has ended by `now_s`, and begin the next."""
        if self._since_s is None:
            self._since_s = now_s
        if now_s - self._since_s < WINDOW_S:
            return []
        found = self._again.most_common()
        rows = [_row(*each) for each in found[:MOST_COUNTED]]
        rest: Counter[_Kind] = Counter()
        for kind, count in found[MOST_COUNTED:]:
            rest[_without_who(kind)] += count
        rows += [_row(*each) for each in rest.items()]
        self._since_s, self._written = now_s, 0
        self._again.clear()
        self._seen.clear()
        return rows


def _without_who(kind: _Kind) -> _Kind:
    event, details = kind
    reason = tuple((key, value) for key, value in details if key == "reason")
    return event, (("from", _OTHERS), *reason)


def _row(kind: _Kind, count: int) -> tuple[str, dict[str, Any]]:
    return kind[0], {**dict(kind[1]), "again": count}


def _read(line: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line)]
    except ValueError:  # a kill or a full disk cut it short
        return []


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
