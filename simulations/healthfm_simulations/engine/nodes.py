"""The simulated sites, as both engines configure them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from healthfm_core.config.data import Modality


@dataclass(frozen=True)
class NodeSpec:
    """One simulated site.

    Attributes:
        name: Unique, printable, at most 64 characters.
        stores: Its store folders, each with the modalities that may be used (None: all it holds).
        policy: Its ``site.yaml``, if it has one.
        state: Where it keeps what outlives a round; `run_federation` chooses it.
        pooled: Whether its stores are of several hospitals, where the same id is another person.
    """

    name: str
    stores: Sequence[tuple[Path, Sequence[Modality] | None]]
    policy: Path | None = None
    state: Path | None = None
    pooled: bool = False

    def node_config(self) -> dict[str, str | int | float | bool]:
        """Return the node configuration a real SuperNode would be started with."""
        stores = [
            {
                "path": str(path),
                "modalities": None if allowed is None else list(allowed),
                "ids": str(number) if self.pooled else "",
            }
            for number, (path, allowed) in enumerate(self.stores)
        ]
        config: dict[str, str | int | float | bool] = {
            "site": self.name,
            "stores": json.dumps(stores),
        }
        paths = {"policy": self.policy, "state": self.state}
        return config | {key: str(path) for key, path in paths.items() if path is not None}
