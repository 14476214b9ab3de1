"""What was told already and what is still to be delivered, in one file that outlives a restart.

A notice is told once while it holds. One that ceased to hold and holds again is told again, but
not within `AGAIN_S`: a connection that comes and goes does not fill a mailbox. A channel that does
not take it is tried again, after longer and longer pauses, for `GIVEN_UP_S`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from healthfm_core.errors import HealthFMError
from healthfm_core.notices.notice import Notice
from healthfm_core.trust import files

AGAIN_S: Final = 6 * 3600.0
PAUSES_S: Final = (30.0, 120.0, 600.0, 3600.0)
"""Before a channel that failed is tried again; the last one repeats."""
GIVEN_UP_S: Final = 3 * 86400.0

Senders = Mapping[str, Callable[[Notice, datetime], None]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    """How one notice stands.

    Attributes:
        notice: It, as it was seen first.
        seen: When it began to hold, seconds since 1970.
        told: When it was given to the channels; None: it has not held for long enough.
        left: Channels that have not taken it.
        tries: Rounds of tries that failed.
        next_try: When those are tried again.
        trouble: Why the last try failed.
    """

    notice: Notice
    seen: float
    told: float | None = None
    left: tuple[str, ...] = ()
    tries: int = 0
    next_try: float = 0.0
    trouble: str = ""


@dataclass
class Outbox:
    """The notices of one study or site.

    Attributes:
        file: Where they are kept.
        entries: By key.
    """

    file: Path
    entries: dict[str, _Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Outbox | None:
        """Return what the file has; None where there is none yet.

        Raises:
            TrustError: It cannot be read, or is damaged (HF-802).
        """
        if not file.exists():
            return None
        try:
            rows: dict[str, Any] = json.loads(files.read(file, "the notices"))
            return cls(file, {key: _entry(row) for key, row in rows.items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise files.unusable(file, "what was told is damaged", do="Remove it") from error

    @classmethod
    def begun(cls, file: Path, held: Iterable[Notice], now: datetime) -> Outbox:
        """Return a new outbox; what had ended before anyone asked to be told is not told."""
        at = now.timestamp()
        ended = {n.key: _Entry(n, at, told=at) for n in held if n.kind == "ended"}
        return cls(file, ended)

    def take(self, held: Iterable[Notice], channels: Iterable[str], now: datetime) -> None:
        """Note what holds now; what has held for long enough is to be told through `channels`."""
        at, by_key = now.timestamp(), {notice.key: notice for notice in held}
        for key, notice in by_key.items():
            entry = self.entries.setdefault(key, _Entry(notice, at))
            if entry.told is None and at - entry.seen >= notice.wait_s:
                self.entries[key] = replace(entry, notice=notice, told=at, left=tuple(channels))
        for key in [key for key in self.entries if key not in by_key]:
            entry = self.entries[key]
            if entry.told is None or (not entry.left and at - entry.told > AGAIN_S):
                del self.entries[key]

    def deliver(self, senders: Senders, now: datetime) -> None:
        """Try every channel that is due; what was taken is on disk before the next is tried.

        Raises:
            OSError: The file cannot be written.
        """
        at = now.timestamp()
        for key, entry in sorted(self.entries.items(), key=lambda item: item[1].seen):
            if entry.left and at >= entry.next_try:
                self._deliver(key, entry, senders, now)

    def _deliver(self, key: str, entry: _Entry, senders: Senders, now: datetime) -> None:
        at, trouble = now.timestamp(), ""
        for channel in entry.left:
            if channel in senders:
                try:
                    senders[channel](entry.notice, now)
                except HealthFMError as error:
                    trouble = str(error)
                    _log.warning("a notice is not delivered, and will be tried again: %s", error)
                    continue
            entry = replace(entry, left=tuple(c for c in entry.left if c != channel))
            self.entries[key] = entry
            self.write()
        if not entry.left:
            return
        if at - (entry.told or at) > GIVEN_UP_S:
            _log.warning("the notice %r is given up for %s", entry.notice.subject, entry.left)
            entry = replace(entry, left=())
        pause = PAUSES_S[min(entry.tries, len(PAUSES_S) - 1)]
        self.entries[key] = replace(
            entry, tries=entry.tries + 1, next_try=at + pause, trouble=trouble
        )

    def write(self) -> None:
        """Put all on disk; a kill leaves the old file or the new one."""
        rows = {key: asdict(entry) for key, entry in self.entries.items()}
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
        files.replace(self.file, text.encode(), files.PRIVATE)

    def lines(self) -> Iterable[str]:
        """Yield what was told and what is not delivered, newest first, a line each."""
        told = [entry for entry in self.entries.values() if entry.told is not None]
        for entry in sorted(told, key=lambda entry: -(entry.told or 0.0)):
            at = datetime.fromtimestamp(entry.told or 0.0, UTC)
            open_ = f"; not delivered by {', '.join(entry.left)}" if entry.left else ""
            why = f": {entry.trouble}" if entry.left and entry.trouble else ""
            yield f"{at:%Y-%m-%d %H:%M}Z {entry.notice.subject}{open_}{why}"


def _entry(row: dict[str, Any]) -> _Entry:
    notice = Notice(**row.pop("notice"))
    return _Entry(**{**row, "notice": notice, "left": tuple(row["left"])})
