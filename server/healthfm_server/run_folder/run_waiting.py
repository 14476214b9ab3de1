"""What a run waits for just now, in a file of its folder: for whoever asks how it stands.

A run that waits for connections, for a person's approval or for answers computes nothing, and
nothing else of it shows that: its history grows with its rounds alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Self

from healthfm_server.run_folder.durable_files import writing

FILE: Final = "waits-for.json"
NOTED_S: Final = 1.0
"""Waiting this long is noted, and a change of it no more often."""

What = Literal["connections", "approval", "answers"]


@dataclass(frozen=True)
class Waiting:
    """What a run waits for.

    Attributes:
        what: The kind.
        phase: ``start``, ``statistics``, ``prepare`` or the round's number.
        nodes: Flower's numbers of the nodes: those connected so far where `what` is
            ``connections``, else those waited for.
        of: How many nodes were asked, or are to connect.
        since: When this wait began, ISO 8601 in UTC.
        asked: The nodes that were asked; empty where `what` is ``connections``, and in notes of
            releases before 0.9.
    """

    what: What
    phase: str
    nodes: tuple[int, ...]
    of: int
    since: str
    asked: tuple[int, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what the run in `folder` waits for, None where nothing was noted."""
        try:
            raw = json.loads((folder / FILE).read_text("utf-8"))
        except FileNotFoundError:
            return None
        asked = tuple(raw.get("asked", ()))
        return cls(**{**raw, "nodes": tuple(raw["nodes"]), "asked": asked})


class WaitingNote:
    """Keeps the note of one wait up to date; it is gone when the wait is over.

    Args:
        folder: The run's.
        what: The kind of wait.
        phase: In which part of the run.
        of: How many nodes it is about.
        asked: Which, where they were asked something.
    """

    def __init__(
        self, folder: Path, what: What, phase: str, of: int, asked: Collection[int] = ()
    ) -> None:
        self._path = folder / FILE
        self._what: What = what
        self._phase = phase
        self._of = of
        self._asked = tuple(sorted(asked))
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._looked = time.monotonic()
        self._said: tuple[int, ...] | None = None

    def of(self, nodes: Collection[int]) -> None:
        """Note the nodes, where that is news and the wait has lasted.

        Raises:
            RunError: The disk does not take it (HF-725).
        """
        now, said = time.monotonic(), tuple(sorted(nodes))
        if said == self._said or now - self._looked < NOTED_S:
            return
        self._looked, self._said = now, said
        about = Waiting(self._what, self._phase, said, self._of, self._since, self._asked)
        partial = self._path.with_name(f".{FILE}.tmp")
        with writing(self._path):
            partial.write_text(json.dumps(asdict(about)), "utf-8")
            partial.replace(self._path)

    def at_once(self, nodes: Collection[int]) -> None:
        """Note the nodes without waiting for the wait to last; see `of`."""
        self._said, self._looked = None, time.monotonic() - NOTED_S
        self.of(nodes)

    def over(self) -> None:
        """Take the note away."""
        self._path.unlink(missing_ok=True)
        self._said = None
