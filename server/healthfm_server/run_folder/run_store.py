"""The run folder: every file is written whole or not at all, so that any kill leaves a run.

``study.json`` is the study that the sites agreed on, ``config.json`` what the run was made with,
``chosen-round.json`` which round's model it ended with where one was chosen, ``checkpoints/`` the
model after each round, ``history.jsonl`` has a row per round, ``events.log``
a row for whatever was set aside and why.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from healthfm_core.config.renamed import RUN
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import HealthFMError, RunError
from healthfm_core.federation.early_stopping import RoundChoice
from healthfm_core.federation.protocol import Study, for_the_wire
from healthfm_core.row_reading import rows_backwards
from healthfm_server.run_folder.checkpoints import Checkpoints, ServerState, damaged
from healthfm_server.run_folder.durable_files import append_row, read_rows, replace_file
from healthfm_server.run_folder.file_lock import held
from healthfm_server.run_folder.held_out_file import HELD_OUT_FILE, HeldOutTold

CHOICE_FILE: Final = "chosen-round.json"
"""Which round's model a run ended with, where it was to choose one (`early_stopping`)."""


class RunStore:
    """One run's folder; use `create` or `resume`.

    Args:
        folder: Where it is.
        keep: Checkpoints kept, the latest.

    Attributes:
        folder: Where it is.
        checkpoints: The model after each round.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(folder / "checkpoints", keep)

    @classmethod
    def create(cls, folder: Path, config: RunConfig) -> RunStore:
        """Start a run in `folder`.

        Raises:
            RunError: Another run is in there already (HF-704).
        """
        if (folder / "config.json").exists():
            raise RunError(
                704,
                where=str(folder),
                seen="a run is in there already",
            )
        store = cls(folder, config.federation.keep_checkpoints)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        text = for_the_wire(config).model_dump_json(indent=1)
        replace_file(folder / "config.json", [text.encode()])
        return store

    @staticmethod
    def begun(folder: Path) -> bool:
        """Return whether there is a run to resume."""
        return (folder / "config.json").is_file()

    @classmethod
    def open(cls, folder: Path) -> RunStore:
        """Open the run in `folder` to read it.

        Raises:
            RunError: There is no run in it (HF-701).
        """
        if not (folder / "config.json").is_file():
            raise RunError(
                701,
                where=str(folder),
                seen="there is no run in it",
            )
        return cls(folder, keep=1)

    @classmethod
    def resume(cls, folder: Path, config: RunConfig) -> RunStore:
        """Open the run in `folder` to continue it.

        Raises:
            RunError: There is none (HF-701), or its configuration is another one (HF-702).
        """
        path = folder / "config.json"
        if not path.is_file():
            raise RunError(
                701,
                where=str(folder),
                seen="there is no run in it",
                do="Name the folder of the run; a simulation that is new goes without resume=true",
            )
        differing = _differences(path, config)
        if differing:
            raise RunError(
                702,
                where=str(folder),
                seen=f"the run was made with another {', '.join(differing)}",
                do="Use the configuration of its config.json, or begin in another folder",
            )
        return cls(folder, config.federation.keep_checkpoints)

    def held(self) -> AbstractContextManager[None]:
        """Return a lock on the run, so that two coordinators at one folder cannot both write it.

        Entering it raises `RunError` where another process holds it (HF-724).
        """
        return held(self.folder / ".lock", f"run {self.folder.name}")

    def run_id(self) -> str:
        """Return the run's name in contracts and at sites; a resumed run keeps it."""
        path = self.folder / "run-id"
        if not path.is_file():
            replace_file(path, [secrets.token_hex(8).encode()])
        return path.read_text("utf-8")

    def save_study(self, study: Study) -> None:
        """Write the contract."""
        replace_file(self.folder / "study.json", [study.to_json().encode()])

    def study(self) -> Study | None:
        """Return the contract, or None when the run stopped before there was one."""
        path = self.folder / "study.json"
        return Study.from_json(path.read_text("utf-8")) if path.is_file() else None

    def save(
        self, state: ServerState, row: Mapping[str, Any] | None = None, keep: int | None = None
    ) -> ServerState:
        """Write the checkpoint of a completed round and its row of history.

        Args:
            state: After the round.
            row: Of the round.
            keep: A round whose checkpoint is not to be removed.

        Returns:
            The same state, its arrays now views into the files.
        """
        if row is not None:
            append_row(self.folder / "history.jsonl", row)
        return self.checkpoints.save(state, keep)

    def note_round(self, row: Mapping[str, Any]) -> None:
        """Append a round's row of history where there is no checkpoint: at a regional coordinator.

        A round that is given again takes the place of what is known of it.
        """
        if any(known["round"] >= row["round"] for known in self.history()):
            self.forget_after(int(row["round"]) - 1)
        append_row(self.folder / "history.jsonl", row)

    def save_choice(self, choice: RoundChoice) -> None:
        """Write which round's model the run ended with."""
        replace_file(self.folder / CHOICE_FILE, [json.dumps(asdict(choice), indent=1).encode()])

    def choice(self) -> RoundChoice | None:
        """Return which round's model the run ended with; None where it is the last one's.

        Raises:
            RunError: The file is damaged (HF-703).
        """
        path = self.folder / CHOICE_FILE
        if not path.is_file():
            return None
        try:
            raw = json.loads(path.read_text("utf-8"))
            scores = {int(number): float(value) for number, value in raw["scores"].items()}
            return RoundChoice(**{**raw, "scores": scores})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, "it is not a choice of a round") from error

    def result(self) -> ServerState | None:
        """Return the state that the run ended with: the chosen round's, else the last one's.

        Raises:
            RunError: A file is damaged (HF-703).
        """
        choice = self.choice()
        return self.checkpoints.load(None if choice is None else choice.round)

    def forget_after(self, round_: int) -> None:
        """Remove history and checkpoints of rounds after `round_`, and a choice that was later."""
        choice = self.choice()
        if choice is not None and choice.trained > round_:
            (self.folder / CHOICE_FILE).unlink()
        told = HeldOutTold.read(self.folder)
        if told is not None and told.round > round_:
            (self.folder / HELD_OUT_FILE).unlink()
        rows = [row for row in self.history() if row["round"] <= round_]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        replace_file(self.folder / "history.jsonl", [text.encode()])
        self.checkpoints.remove_after(round_)

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of history; a last line cut short by a kill is left out."""
        return read_rows(self.folder / "history.jsonl")

    def newest_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of history, the newest first, without reading more than is asked for."""
        return rows_backwards(self.folder / "history.jsonl")

    def events(self) -> list[dict[str, Any]]:
        """Return the events; a last line cut short by a kill is left out."""
        return read_rows(self.folder / "events.log")

    def note(self, event: str, **details: Any) -> None:
        """Append one event with the time it was seen."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        append_row(self.folder / "events.log", {"at": at, "event": event, **details})


def note_failure(folder: Path, error: HealthFMError) -> None:
    """Write why a submission ended unfinished; the run reconciler reads it before the next one."""
    text = json.dumps({"number": error.number, "error": str(error)})
    replace_file(folder / "failure.json", [text.encode()])


def _differences(path: Path, config: RunConfig) -> list[str]:
    try:
        before = RUN.upgrade(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise damaged(path, "it is not JSON") from error
    with suppress(ValidationError):  # a key that an older release did not have had its default
        before = RunConfig.model_validate(before).model_dump(mode="json")
    now = json.loads(for_the_wire(config).model_dump_json())
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
