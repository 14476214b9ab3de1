"""How long and how many bytes an arm takes to be as good as a target, in a simulated network.

A site scores the model as it comes, before it trains: the row of round r tells how good the model
after round r − 1 is (`federation.early_stopping`). The model after the last round has no score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

SHOWN: Final = "simulated_s"
"""Key of a row of history: what the simulation's clock showed when the round was closed."""
METRICS: Final = (
    "tuning_average_precision_new_onset",
    "tuning_auroc",
    "tuning_average_precision",
)
"""Tuning metrics that are looked at, the first that all arms have."""

History = Sequence[Mapping[str, Any]]
"""Rows of a run's history, in order."""


@dataclass(frozen=True)
class CourseRow:
    """One arm's way to the target.

    Attributes:
        arm: Which.
        metric: The tuning metric; '' where none was scored.
        target: What is to be reached.
        best: The most it reached.
        round: The first round after which it was as good; None: it never was.
        seconds: When that round was closed, of the simulation's time since the run began.
        bytes: Of arrays, up to then, both ways, all sites together.
        rounds: All rounds of the run.
        all_seconds: Likewise, of the whole run.
        all_bytes: Likewise.
    """

    arm: str
    metric: str
    target: float
    best: float
    round: int | None
    seconds: float
    bytes: int
    rounds: int
    all_seconds: float
    all_bytes: int


def time_to_accuracy(
    history: Mapping[str, History], target: float | None = None
) -> list[CourseRow]:
    """Return a row per arm whose run took place in a simulated network.

    Args:
        history: Arm → its run's history.
        target: What is to be reached; None: the best that every arm reached, so that all did.
    """
    rows = {arm: list(own) for arm, own in history.items() if own and SHOWN in own[-1]}
    metric = next((m for m in METRICS if all(_scores(own, m) for own in rows.values())), "")
    scores = {arm: _scores(own, metric) for arm, own in rows.items()}
    if target is None:
        target = min((max(found.values()) for found in scores.values() if found), default=0.0)
    return [_row(arm, own, metric, scores[arm], target) for arm, own in rows.items()]


def _scores(rows: History, metric: str) -> dict[int, float]:
    """Return round → the metric of the model after it, without the one a run began with."""
    scored = ((int(row["round"]) - 1, row["metrics"].get(metric)) for row in rows)
    return {after: float(value) for after, value in scored if value is not None and after > 0}


def _row(
    arm: str, rows: History, metric: str, scores: Mapping[int, float], target: float
) -> CourseRow:
    reached = min((after for after, value in scores.items() if value >= target), default=None)
    upto = [row for row in rows if reached is not None and int(row["round"]) <= reached]
    return CourseRow(
        arm=arm,
        metric=metric,
        target=target,
        best=max(scores.values(), default=float("nan")),
        round=reached,
        seconds=float(upto[-1][SHOWN]) if upto else float("nan"),
        bytes=_bytes(upto),
        rounds=len(rows),
        all_seconds=float(rows[-1][SHOWN]),
        all_bytes=_bytes(rows),
    )


def _bytes(rows: History) -> int:
    """Return what travelled; a site that trains alone sends nothing anywhere."""
    several = [row for row in rows if len(row["asked"]) > 1]
    return sum(int(sum(row.get("bytes", {}).values())) for row in several)
