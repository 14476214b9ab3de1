"""The run folder: every file is written whole or not at all, so that any kill leaves a run.

``study.json`` is the contract, ``config.json`` what the run was made with,
``checkpoints/round-0007.safetensors`` the model (beside it ``.optimizer.safetensors``, the server
optimiser's moments, and ``.control.safetensors``, control variates) and ``round-0007.json`` the
marker that round 7 is complete, written last with the digests of the others. ``history.jsonl`` has
a row per round, ``events.log`` a row for whatever was set aside and why.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from healthfm_core.arrays import Float32
from healthfm_core.config.renamed import RUN, upgraded_parameters
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import HealthFMError, RunError
from healthfm_core.federation.aggregation.server_optimizer import OptimizerState
from healthfm_core.federation.protocol import Study, for_the_wire
from healthfm_server.run_folder.durable_files import writing
from healthfm_server.run_folder.file_lock import held
from healthfm_server.transport import array_file

_MARKER: Final = re.compile(r"round-(\d{4,})\.json")
_SUFFIXES: Final = (
    ".json",
    ".safetensors",
    ".optimizer.safetensors",
    ".control.safetensors",
)


@dataclass(frozen=True)
class ServerState:
    """All that the next round depends on, besides study, sites and seed.

    Attributes:
        round: Rounds completed.
        parameters: The global model, float32.
        optimizer: The server optimiser's moments.
        control_variates: Parameter → the aggregation algorithm's own state, where it has one.
    """

    round: int
    parameters: Mapping[str, Float32]
    optimizer: OptimizerState
    control_variates: Mapping[str, Float32] = field(default_factory=dict)


class RunStore:
    """One run's folder; use `create` or `resume`.

    Args:
        folder: Where it is.
        keep: Checkpoints kept, the latest.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep
        self._checkpoints = folder / "checkpoints"

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
                wanted="a new run needs a folder of its own",
                do="Name another folder, or continue that run with resume=true",
            )
        store = cls(folder, config.federation.keep_checkpoints)
        store._checkpoints.mkdir(parents=True, exist_ok=True)
        _write(folder / "config.json", [for_the_wire(config).model_dump_json(indent=1).encode()])
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
                wanted="a run folder holds config.json and checkpoints/",
                do="Name the folder a run was written to",
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
                wanted="resume=true continues a run that was begun there",
                do="Leave resume=true out, or name the folder of the run",
            )
        differing = _differences(path, config)
        if differing:
            raise RunError(
                702,
                where=str(folder),
                seen=f"the run was made with another {', '.join(differing)}",
                wanted="a resumed run has the configuration it was begun with",
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
            _write(path, [secrets.token_hex(8).encode()])
        return path.read_text("utf-8")

    def save_study(self, study: Study) -> None:
        """Write the contract."""
        _write(self.folder / "study.json", [study.to_json().encode()])

    def study(self) -> Study | None:
        """Return the contract, or None when the run stopped before there was one."""
        path = self.folder / "study.json"
        return Study.from_json(path.read_text("utf-8")) if path.is_file() else None

    def rounds(self) -> list[int]:
        """Return the rounds whose checkpoint is complete, ascending; 0 is the initial model."""
        matches = (_MARKER.fullmatch(path.name) for path in self._checkpoints.glob("round-*.json"))
        return sorted(int(match[1]) for match in matches if match)

    def save(self, state: ServerState, row: Mapping[str, Any] | None = None) -> ServerState:
        """Write the checkpoint of a completed round and its row of history.

        Returns:
            The same state, its arrays now views into the files.
        """
        if row is not None:
            self._append("history.jsonl", row)
        stem = self._checkpoints / f"round-{state.round:04d}"
        files = {f"{stem.name}.safetensors": state.parameters}
        if moments := state.optimizer.to_arrays():
            files[f"{stem.name}.optimizer.safetensors"] = moments
        if state.control_variates:
            files[f"{stem.name}.control.safetensors"] = state.control_variates
        digests = {}
        for name, arrays in files.items():
            digests[name] = _write(self._checkpoints / name, array_file.pieces(arrays))
        marker = {"round": state.round, "sha256": digests}
        _write(stem.with_suffix(".json"), [json.dumps(marker, indent=1).encode()])
        self._prune()
        found = {name: array_file.mapped(self._checkpoints / name) for name in files}
        return self._state(state.round, found)

    def load(self, round_: int | None = None) -> ServerState | None:
        """Return the state after `round_` (None: the last), or None when there is none yet.

        What history says of later rounds is forgotten, so that the run goes on from there.

        Raises:
            RunError: No such round is kept (HF-701), or its files are damaged (HF-703).
        """
        rounds = self.rounds()
        if not rounds and round_ is None:
            return None
        wanted = rounds[-1] if round_ is None else round_
        if wanted not in rounds:
            raise RunError(
                701,
                where=str(self._checkpoints),
                seen=f"no checkpoint of round {wanted}",
                wanted=f"kept are {', '.join(map(str, rounds)) or 'none'}",
                do="Name one of those rounds",
            )
        return self._load(wanted)

    def forget_after(self, round_: int) -> None:
        """Take back history and checkpoints of rounds after `round_`."""
        rows = [row for row in self.history() if row["round"] <= round_]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        _write(self.folder / "history.jsonl", [text.encode()])
        for later in self.rounds():
            if later > round_:
                self._remove(later)

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of history; a last line cut short by a kill is left out."""
        return _rows(self.folder / "history.jsonl")

    def events(self) -> list[dict[str, Any]]:
        """Return the events; a last line cut short by a kill is left out."""
        return _rows(self.folder / "events.log")

    def note(self, event: str, **details: Any) -> None:
        """Append one event with the time it was seen."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._append("events.log", {"at": at, "event": event, **details})

    def _load(self, round_: int) -> ServerState:
        stem = f"round-{round_:04d}"
        marker_path = self._checkpoints / f"{stem}.json"
        try:
            digests = json.loads(marker_path.read_text("utf-8"))["sha256"]
            files = {name: self._verified(name, digest) for name, digest in digests.items()}
            return self._state(round_, files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(marker_path, "it is not a checkpoint's marker") from error

    def _state(self, round_: int, files: Mapping[str, array_file.Mapped]) -> ServerState:
        stem = f"round-{round_:04d}"
        moments: Mapping[str, Float32] = files.get(f"{stem}.optimizer.safetensors", {})
        control = upgraded_parameters(files.get(f"{stem}.control.safetensors", {}))
        parameters = files[f"{stem}.safetensors"].renamed(upgraded_parameters)
        optimizer = OptimizerState.from_arrays(moments)
        first, second = upgraded_parameters(optimizer.first), upgraded_parameters(optimizer.second)
        return ServerState(round_, parameters, OptimizerState(first, second), control)

    def _verified(self, name: str, digest: str) -> array_file.Mapped:
        path = self._checkpoints / Path(name).name
        try:
            same = array_file.digest_of(path) == digest
        except OSError as error:
            raise _damaged(path, "it cannot be read") from error
        if not same:
            raise _damaged(path, "its digest is not the one that was written")
        try:
            return array_file.mapped(path)
        except ValueError as error:
            raise _damaged(path, str(error)) from error

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        path = self.folder / name
        with writing(path), path.open("a+b") as file:
            if file.tell() and not _ends_line(file.name):
                file.write(b"\n")
            file.write(json.dumps(row).encode() + b"\n")

    def _prune(self) -> None:
        for old in self.rounds()[: -self._keep]:
            self._remove(old)

    def _remove(self, round_: int) -> None:
        stem = f"round-{round_:04d}"
        for suffix in _SUFFIXES:
            (self._checkpoints / f"{stem}{suffix}").unlink(missing_ok=True)


def note_failure(folder: Path, error: HealthFMError) -> None:
    """Write why a submission ended unfinished; whoever submits it again reads it first."""
    text = json.dumps({"number": error.number, "error": str(error)})
    _write(folder / "failure.json", [text.encode()])


def _ends_line(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # a kill cut the line short; its round has no marker and runs again
    return rows


def _differences(path: Path, config: RunConfig) -> list[str]:
    try:
        before = RUN.upgrade(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise _damaged(path, "it is not JSON") from error
    with suppress(ValidationError):  # a key that an older release did not have had its default
        before = RunConfig.model_validate(before).model_dump(mode="json")
    now = json.loads(for_the_wire(config).model_dump_json())
    return sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Write `pieces` so that after any kill the file is the old one or the new one.

    Returns:
        Their SHA-256, in hex.
    """
    temporary, digest = path.with_name(f".{path.name}.tmp"), hashlib.sha256()
    with writing(path), temporary.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest.hexdigest()


def _damaged(path: Path, seen: str) -> RunError:
    return RunError(
        703,
        where=path.name,
        seen=seen,
        wanted="a checkpoint is as it was written",
        do="Delete the round's files to resume from the round before, or begin again",
    )
