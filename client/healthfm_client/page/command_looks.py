"""What takes seconds to find out, asked of the command that says it, in a process of its own.

So a page says what the command says, loads no PyTorch, and goes on answering meanwhile. The last
answer is kept on disk: whoever opens the page again sees it at once, with its time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from healthfm_core.trust import files

FOLDER: Final = "looks"
MOST_TROUBLE: Final = 1000
NICENESS: Final = "10"
"""A look gives way to the site's part in a study."""
"""Characters of what a command complained of."""


@dataclass(frozen=True)
class LookResult:
    """What a command said last.

    Attributes:
        at: When it had ended, ISO 8601 in UTC.
        answer: Its JSON; None where it gave none.
        trouble: What it complained of instead.
        of: What the answer is of, as the look's key says.
    """

    at: str
    answer: Any
    trouble: str
    of: str


class CommandLook:
    """One command with ``--json``, run when it is asked for; once at a time.

    Args:
        name: Of the file that keeps its answer.
        words: What follows ``healthfm-client``.
        folder: Takes the file.
        key: Says what an answer would be of; when that changes the old one is out of date.
        longest: After so long it is, too; None: never.
    """

    def __init__(
        self,
        name: str,
        words: Callable[[], Sequence[str]],
        folder: Path,
        key: Callable[[], str] = str,
        longest: timedelta | None = None,
    ) -> None:
        self._words = words
        self._file = folder / FOLDER / f"{name}.json"
        self._key = key
        self._longest = longest
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False
        self._result = self._kept()

    @property
    def is_running(self) -> bool:
        """Whether the command is at work."""
        return self._process is not None

    @property
    def result(self) -> LookResult | None:
        """What it said last; None where it never ran."""
        return self._result

    @property
    def is_current(self) -> bool:
        """Whether what it said last still is of what is there now."""
        said = self._result
        if said is None or said.of != self._key():
            return False
        age = datetime.now(UTC) - datetime.fromisoformat(said.at)
        return self._longest is None or age < self._longest

    def start(self) -> None:
        """Run the command in the background, unless it is at work."""
        with self._lock:
            if self._process is not None or self._is_over:
                return
            words = [sys.executable, "-m", "healthfm_client", *self._words()]
            nice = shutil.which("nice")
            self._process = subprocess.Popen(
                [nice, "-n", NICENESS, *words] if nice else words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            of = self._key()
            threading.Thread(target=self._wait, args=(self._process, of), daemon=True).start()

    def as_json(self) -> dict[str, Any]:
        """Return it for a page and the API; a look that was never taken or is old is started."""
        if not self.is_current:
            self.start()
        said = self._result or LookResult("", None, "", "")
        told = {"at": said.at, "answer": said.answer, "trouble": said.trouble}
        return {**told, "running": self.is_running, "current": self.is_current}

    def close(self) -> None:
        """End the command, and start none any more."""
        with self._lock:
            self._is_over = True
            process = self._process
        if process is not None:
            process.terminate()
            process.wait()

    def _wait(self, process: subprocess.Popen[bytes], of: str) -> None:
        said, complained = process.communicate()
        try:
            answer, trouble = json.loads(said), ""
        except ValueError:
            words = complained.decode(errors="replace").strip() or f"it ended with {process.wait()}"
            answer, trouble = None, words[-MOST_TROUBLE:]
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            if not self._is_over:
                self._result = LookResult(at, answer, trouble, of)
                text = json.dumps(asdict(self._result))
                files.replace(self._file, text.encode(), files.PRIVATE)
            self._process = None

    def _kept(self) -> LookResult | None:
        try:
            said = LookResult(**json.loads(self._file.read_text("utf-8")))
            datetime.fromisoformat(said.at)
            return said
        except (OSError, ValueError, TypeError):
            return None


def stamp_of(*paths: Path) -> str:
    """Return what changes when one of these files does."""
    found = (path.stat() if path.exists() else None for path in paths)
    return " ".join("-" if one is None else f"{one.st_mtime_ns}:{one.st_size}" for one in found)
