"""The models that this site helped to train, as it got them after the last round."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors.numpy
from safetensors import SafetensorError

from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.errors import HealthFMError, RunError
from healthfm_core.federation.protocol import Study
from healthfm_core.trust import files

WEIGHTS: Final = "model.safetensors"
STUDY: Final = "study.json"
ABOUT: Final = "about.json"


@dataclass(frozen=True)
class FinishedModel:
    """One of them, with the parts that this site holds.

    Attributes:
        name: What the coordinator's people call its run.
        at: When it came, ISO 8601 in UTC.
        folder: Where it is.
    """

    name: str
    at: str
    folder: Path

    def study(self) -> Study:
        """Return what it was trained on.

        Raises:
            RunError: The file is damaged (HF-707).
            ProtocolError: Another protocol version wrote it (HF-401, HF-404).
        """
        try:
            return Study.from_json((self.folder / STUDY).read_text("utf-8"))
        except OSError as error:
            raise _damaged(self.folder, f"no {STUDY}") from error

    def parameters(self) -> Float32Arrays:
        """Return its numbers.

        Raises:
            RunError: The file is damaged (HF-707).
        """
        try:
            return safetensors.numpy.load_file(self.folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise _damaged(self.folder, f"{WEIGHTS} cannot be read") from error


class FinishedModels:
    """A folder with a folder per study, by its hash.

    Args:
        folder: It is made when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(
        self, study: Study, parameters: Mapping[str, Float32], name: str, at: str
    ) -> FinishedModel:
        """Write a model; one of the same study that is there is replaced.

        Raises:
            OSError: There is no room.
        """
        folder = self._folder / study.hash
        files.replace(folder / WEIGHTS, safetensors.numpy.save(dict(parameters)), files.PRIVATE)
        files.replace(folder / STUDY, study.to_json().encode(), files.PRIVATE)
        about = {"name": name, "at": at, "run": study.run_id}
        files.replace(folder / ABOUT, json.dumps(about).encode(), files.PRIVATE)
        return FinishedModel(name, at, folder)

    def __iter__(self) -> Iterator[FinishedModel]:
        """Yield those that are whole, the newest last."""
        found = [self._read(path.parent) for path in self._folder.glob(f"*/{ABOUT}")]
        yield from sorted(found, key=lambda model: (model.at, model.name))

    def find(self, name: str | None) -> FinishedModel:
        """Return the newest of a run's name; None: the newest of all.

        Raises:
            RunError: There is none (HF-701).
        """
        every = list(self)
        named = [model for model in every if name in (None, model.name)]
        if named:
            return named[-1]
        known = ", ".join(dict.fromkeys(model.name for model in every))
        raise RunError(
            701,
            where=f"run {name[:64]}" if name else str(self._folder),
            seen="no finished model of it is here",
            wanted=f"one of: {known}" if known else "a run that ended with this site in it",
            do="Wait for its end, or ask the coordinator for the exported model: --model FOLDER",
        )

    def _read(self, folder: Path) -> FinishedModel:
        try:
            raw: dict[str, Any] = json.loads(files.read(folder / ABOUT, "a finished model"))
            return FinishedModel(str(raw["name"]), str(raw["at"]), folder)
        except (ValueError, KeyError, TypeError, HealthFMError) as error:
            raise _damaged(folder, f"{ABOUT} cannot be read") from error


def _damaged(folder: Path, seen: str) -> RunError:
    return RunError(
        707,
        where=str(folder),
        seen=seen,
        wanted="the model as it came after the run's last round",
        do="Delete the folder, and ask the coordinator for the exported model: --model FOLDER",
    )
