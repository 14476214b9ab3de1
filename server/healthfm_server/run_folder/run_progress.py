"""Progress of a run, for whoever watches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["statistics", "prepare", "site", "round"]


@dataclass(frozen=True)
class ProgressEvent:
    """One step forward.

    Attributes:
        phase: ``site`` when a site's reply to an order was handled, ``round`` when a round has
            ended and its checkpoint is on disk; ``statistics`` and ``prepare`` before round 1.
        round: The round at work; 0 before round 1.
        rounds: How many there will be.
        seconds: Since the phase's messages were sent.
        done: Sites that have answered.
        sites: Sites asked.
        site: The one that just answered, empty for ``round``.
        metrics: The round's mean metrics, for ``round``.
    """

    phase: Phase
    round: int
    rounds: int
    seconds: float
    done: int
    sites: int
    site: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


ProgressListener = Callable[[ProgressEvent], None]


def ignore_progress(event: ProgressEvent) -> None:
    """Ignore progress."""
