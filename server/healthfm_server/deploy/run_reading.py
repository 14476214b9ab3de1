"""What is read of a run's folder to say how the run stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from healthfm_core.config.run import RunConfig
from healthfm_core.row_reading import rows_backwards
from healthfm_server.deploy.run_orders import RunOrder
from healthfm_server.run_folder.run_store import RunStore


@dataclass(frozen=True)
class RunReading:
    """One reading of a run.

    Attributes:
        config: What it is to do.
        last: The newest row of its history, empty before the first round has ended.
        events: What was noted before round 1, at least; later events may be left out.
    """

    config: RunConfig
    last: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, order: RunOrder) -> Self:
        """Read the run's folder."""
        last = next(rows_backwards(order.folder / "history.jsonl"), {})
        return cls(order.config(), last, RunStore(order.folder, keep=1).events())
