"""What a run will take, by what an earlier run of the study with the same model took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from healthfm_core.config.run import RunConfig
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.run_folder.run_store import RunStore

BYTES_PER_NUMBER: Final = 4
"""Parameters travel as float32; a masked update takes up to twice that."""
ROUNDS: Final = 10
"""The newest rounds, whose mean length is taken."""


@dataclass(frozen=True)
class ExpectedCost:
    """What each site's part and the whole take.

    Attributes:
        like: The run that it is taken from.
        parameters: Of the model.
        bytes_to_site: In all rounds, to one site.
        bytes_from_site: In all rounds, from one site.
        seconds: Of all rounds; None where no round of these training settings was ever run.
    """

    like: str
    parameters: int
    bytes_to_site: int
    bytes_from_site: int
    seconds: float | None

    def sentence(self) -> str:
        """Return it for a person."""
        told = (
            f"as in {self.like}: {self.parameters:,} parameters; "
            f"{self.bytes_to_site / 1e6:,.1f} MB to each site and "
            f"{self.bytes_from_site / 1e6:,.1f} MB back"
        )
        if self.seconds is None:
            return f"{told}; how long it takes is not known: no run trained with these settings"
        return f"{told}; about {max(1, round(self.seconds / 60)):,} min"


NOT_KNOWN: Final = (
    "bytes and time are not known: no run of this study has had this model and these token "
    "settings, and the model's size follows from the codes that the sites share"
)


def expected_cost(runs: Path, config: RunConfig) -> ExpectedCost | None:
    """Return what a run will take; None where no run was like it.

    Args:
        runs: The study's folder of runs.
        config: Of the run.

    Raises:
        RunError: A file of an earlier run is damaged (HF-703).
    """
    orders = sorted(RunOrder.all(runs), key=lambda order: str(order.about().get("given", "")))
    for order in reversed(orders):
        before = order.config()
        if (before.model, before.tokens) != (config.model, config.tokens):
            continue
        store = RunStore(order.folder, keep=1)
        state = store.checkpoints.load()
        if state is None:
            continue
        numbers = sum(array.size for array in state.parameters.values())
        rounds, codec = config.federation.rounds, config.federation.codec
        return ExpectedCost(
            like=order.name,
            parameters=numbers,
            bytes_to_site=numbers * BYTES_PER_NUMBER * rounds,
            bytes_from_site=round(numbers * codec.uplink_bytes * rounds),
            seconds=_seconds(store, rounds) if _trains_alike(before, config) else None,
        )
    return None


def _seconds(store: RunStore, rounds: int) -> float | None:
    rows: list[Mapping[str, Any]] = list(islice(store.newest_rows(), ROUNDS))
    return fmean(float(row["seconds"]) for row in rows) * rounds if rows else None


def _trains_alike(before: RunConfig, now: RunConfig) -> bool:
    return (before.train, before.privacy, before.federation.aggregation) == (
        now.train,
        now.privacy,
        now.federation.aggregation,
    )
