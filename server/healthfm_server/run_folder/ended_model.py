"""Which model a run has ended with so far: its round, and the fingerprint of its file."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from healthfm_server.run_folder.run_store import RunStore


@dataclass(frozen=True)
class EndedModel:
    """A model in a run's folder.

    Attributes:
        round: After which round it is.
        sha256: Of its file of weights, as the checkpoint's marker has it.
    """

    round: int
    sha256: str

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """Return the model that a run has ended with so far; None where it has none yet.

        Raises:
            RunError: The file of the chosen round is damaged (HF-703).
        """
        store = RunStore(folder, keep=1)
        choice, kept = store.choice(), store.checkpoints.rounds()
        if choice is None and not kept:
            return None
        return cls.after(folder, kept[-1] if choice is None else choice.round)

    @classmethod
    def after(cls, folder: Path, round_: int) -> Self | None:
        """Return the model after a round; None where its checkpoint is not there (any more)."""
        stem = f"round-{round_:04d}"
        with suppress(OSError, ValueError, KeyError):  # a marker that is being replaced just now
            marker = json.loads((folder / "checkpoints" / f"{stem}.json").read_text("utf-8"))
            return cls(round_, str(marker["sha256"][f"{stem}.safetensors"]))
        return None
