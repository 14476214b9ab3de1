"""``models.json`` of a study: which model has which alias, ``production`` for example."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from healthfm_core.errors import RunError
from healthfm_core.trust import files
from healthfm_core.trust.names import check_name
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.run_folder.checkpoints import damaged
from healthfm_server.run_folder.ended_model import EndedModel
from healthfm_server.run_folder.file_lock import held

FILE: Final = "models.json"
OVER: Final = ("finished", "stopped", "failed")
"""States of a run that trains no more."""


@dataclass(frozen=True)
class AliasedModel:
    """The model that an alias stands for, to the bit.

    Attributes:
        run: Name of its run.
        round: After which round of it.
        sha256: Of its file of weights.
        since: When it was given the alias, ISO 8601 in UTC.
    """

    run: str
    round: int
    sha256: str
    since: str


class ModelAliases:
    """The aliases of a study; each stands for one model at a time.

    Args:
        study: The study's folder.
        runs: The folder of its runs.
    """

    def __init__(self, study: Path, runs: Path) -> None:
        self._path, self._runs = study / FILE, runs

    def all(self) -> Mapping[str, AliasedModel]:
        """Return alias → model, by alias.

        Raises:
            RunError: The file is damaged (HF-703).
        """
        if not self._path.is_file():
            return {}
        try:
            raw = json.loads(self._path.read_text("utf-8"))
            return {alias: AliasedModel(**raw[alias]) for alias in sorted(raw)}
        except (ValueError, TypeError) as error:
            raise damaged(self._path, "it does not say which model has which alias") from error

    def promote(self, alias: str, order: RunOrder) -> tuple[AliasedModel, AliasedModel | None]:
        """Have an alias stand for the model that a run ended with; return it and the one before.

        Raises:
            RunError: The run goes on or has no model (HF-732), or somebody else changes the aliases
                just now (HF-724).
            TrustError: The alias cannot be a name (HF-810).
        """
        check_name(alias, "alias")
        state, model = order.status().state, EndedModel.of(order.folder)
        if state not in OVER or model is None:
            raise RunError(
                732,
                where=f"run {order.name}",
                seen="it has no model" if model is None else f"it is {state}",
            )
        since = datetime.now(UTC).isoformat(timespec="seconds")
        new = AliasedModel(order.name, model.round, model.sha256, since)
        with held(self._path.with_name(f".{FILE}.lock"), "the study's aliases"):
            known = dict(self.all())
            before = known.get(alias)
            self._write({**known, alias: new})
        return new, before

    def retire(self, alias: str) -> AliasedModel:
        """Take an alias away; return the model that it stood for.

        Raises:
            RunError: There is no such alias (HF-733).
        """
        with held(self._path.with_name(f".{FILE}.lock"), "the study's aliases"):
            known = dict(self.all())
            model = self._of(alias, known)
            self._write({name: each for name, each in known.items() if name != alias})
        return model

    def of(self, alias: str) -> AliasedModel:
        """Return the model that an alias stands for.

        Raises:
            RunError: There is no such alias (HF-733).
        """
        return self._of(alias, self.all())

    def folder_of(self, alias: str) -> tuple[Path, int]:
        """Return the run's folder and the round of the model that an alias stands for.

        Raises:
            RunError: There is no such alias (HF-733), or the run's model is not the one that was
                promoted (HF-703).
        """
        model = self.of(alias)
        folder = self._runs / model.run
        found = EndedModel.after(folder, model.round)
        if found is None or found.sha256 != model.sha256:
            raise damaged(folder, f"its model after round {model.round} is not the promoted one")
        return folder, model.round

    def _of(self, alias: str, known: Mapping[str, AliasedModel]) -> AliasedModel:
        if alias in known:
            return known[alias]
        raise RunError(
            733,
            where=f"alias {alias[:64]}",
            seen="no model of this study has it",
            wanted=f"one of {', '.join(known) or '(there is none yet)'}",
        )

    def _write(self, known: Mapping[str, AliasedModel]) -> None:
        text = json.dumps({alias: asdict(model) for alias, model in known.items()}, indent=1)
        files.replace(self._path, f"{text}\n".encode())
