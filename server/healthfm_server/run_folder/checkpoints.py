"""The checkpoints of a run: one after every round, complete once its marker is there.

``round-0007.safetensors`` is the model, ``round-0007.optimizer.safetensors`` the server optimiser's
moments, ``round-0007.control.safetensors`` the control variates of an algorithm that has them,
``round-0007.reference.safetensors`` the model that the sites hold where it is another one, and
``round-0007.json`` the marker, written last with the digests of the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from healthfm_core.arrays import Float32
from healthfm_core.config.renamed import upgraded_parameters
from healthfm_core.errors import RunError
from healthfm_core.federation.aggregation.server_optimizer import OptimizerState
from healthfm_server.run_folder.durable_files import replace_file
from healthfm_server.transport import array_file

_MARKER: Final = re.compile(r"round-(\d{4,})\.json")
_SUFFIXES: Final = (
    *(".json", ".safetensors", ".optimizer.safetensors"),
    *(".control.safetensors", ".reference.safetensors"),
)


@dataclass(frozen=True)
class ServerState:
    """All that the next round depends on, besides study, sites and seed.

    Attributes:
        round: Rounds completed.
        parameters: The global model, float32.
        optimizer: The server optimiser's moments.
        control_variates: Parameter → the aggregation algorithm's own state, where it has one.
        reference: The model that the round began with at its sites, where changes of it travel.
    """

    round: int
    parameters: Mapping[str, Float32]
    optimizer: OptimizerState
    control_variates: Mapping[str, Float32] = field(default_factory=dict)
    reference: Mapping[str, Float32] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoints:
    """A run's folder of checkpoints.

    Attributes:
        folder: Where they are.
        keep: How many are kept, the latest.
    """

    folder: Path
    keep: int

    def rounds(self) -> list[int]:
        """Return the rounds whose checkpoint is complete, ascending; 0 is the initial model."""
        matches = (_MARKER.fullmatch(path.name) for path in self.folder.glob("round-*.json"))
        return sorted(int(match[1]) for match in matches if match)

    def save(self, state: ServerState, best: int | None = None) -> ServerState:
        """Write the checkpoint of a completed round, and remove those that are too many.

        Args:
            state: After the round.
            best: A round whose checkpoint stays besides the latest.

        Returns:
            The same state, its arrays now views into the files.
        """
        stem = f"round-{state.round:04d}"
        files = {f"{stem}.safetensors": state.parameters}
        if moments := state.optimizer.to_arrays():
            files[f"{stem}.optimizer.safetensors"] = moments
        if state.control_variates:
            files[f"{stem}.control.safetensors"] = state.control_variates
        if state.reference:
            files[f"{stem}.reference.safetensors"] = state.reference
        digests = {
            name: replace_file(self.folder / name, array_file.pieces(arrays))
            for name, arrays in files.items()
        }
        marker = json.dumps({"round": state.round, "sha256": digests}, indent=1)
        replace_file(self.folder / f"{stem}.json", [marker.encode()])
        for old in self.rounds()[: -self.keep]:
            if old != best:
                self._remove(old)
        views = {name: array_file.mapped(self.folder / name) for name in files}
        return _state(state.round, views)

    def load(self, round_: int | None = None) -> ServerState | None:
        """Return the state after `round_` (None: the last), or None when there is none yet.

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
                where=str(self.folder),
                seen=f"no checkpoint of round {wanted}",
                wanted=f"kept are {', '.join(map(str, rounds)) or 'none'}",
                do="Name one of those rounds",
            )
        marker = self.folder / f"round-{wanted:04d}.json"
        try:
            digests = json.loads(marker.read_text("utf-8"))["sha256"]
            files = {name: self._verified(name, digest) for name, digest in digests.items()}
            return _state(wanted, files)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(marker, "it is not a checkpoint's marker") from error

    def remove_after(self, round_: int) -> None:
        """Remove the checkpoints of rounds after `round_`."""
        for later in self.rounds():
            if later > round_:
                self._remove(later)

    def _verified(self, name: str, digest: str) -> array_file.MappedArrays:
        path = self.folder / Path(name).name
        try:
            same = array_file.digest_of(path) == digest
        except OSError as error:
            raise damaged(path, "it cannot be read") from error
        if not same:
            raise damaged(path, "its digest is not the one that was written")
        try:
            return array_file.mapped(path)
        except ValueError as error:
            raise damaged(path, str(error)) from error

    def _remove(self, round_: int) -> None:
        for suffix in _SUFFIXES:
            (self.folder / f"round-{round_:04d}{suffix}").unlink(missing_ok=True)


def _state(round_: int, files: Mapping[str, array_file.MappedArrays]) -> ServerState:
    stem = f"round-{round_:04d}"
    moments: Mapping[str, Float32] = files.get(f"{stem}.optimizer.safetensors", {})
    control: Mapping[str, Float32] = files.get(f"{stem}.control.safetensors", {})
    parameters = files[f"{stem}.safetensors"].renamed(upgraded_parameters)
    optimizer = OptimizerState.from_arrays(moments)
    first, second = upgraded_parameters(optimizer.first), upgraded_parameters(optimizer.second)
    moved = replace(optimizer, first=first, second=second)
    reference = upgraded_parameters(files.get(f"{stem}.reference.safetensors", {}))
    return ServerState(round_, parameters, moved, upgraded_parameters(control), reference)


def damaged(path: Path, seen: str) -> RunError:
    """Return the error for a file of a run that is not as it was written (HF-703)."""
    return RunError(
        703,
        where=path.name,
        seen=seen,
    )
