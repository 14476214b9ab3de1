"""Which round's model a run ends with, and when it stops: by the sites' tuning metrics alone.

A site scores the weights it receives before it trains on them, so the row of round r of a run's
history tells how good the model after round r − 1 is. The model after the last round is scored by
one exchange more, in which nobody trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from healthfm_core.config.federation import EarlyStoppingConfig


@dataclass(frozen=True)
class RoundChoice:
    """The model that a run ended with, and why.

    Attributes:
        round: The model after so many rounds; 0 is the one the run started from.
        trained: Rounds that were trained.
        rounds: Rounds that the run was to have.
        monitor: The metric.
        scores: Round → the federated mean of the metric, of the rounds whose model was scored.
    """

    round: int
    trained: int
    rounds: int
    monitor: str
    scores: Mapping[int, float]

    @property
    def value(self) -> float | None:
        """The metric of the model; None where no site could score it."""
        return self.scores.get(self.round)

    def sentence(self) -> str:
        """Return what happened, for a person."""
        if not self.scores:
            return (
                f"No site reported {self.monitor}, so nothing was chosen: the model is round "
                f"{self.round}'s"
            )
        best = max(self.scores.values())
        scored = f"{self.monitor} {self.value:.4f}" if self.value is not None else "not scored"
        last = self.scores.get(self.trained)
        beside = f"; round {self.trained} has {last:.4f}" if last not in (None, self.value) else ""
        ended = "all rounds trained" if self.trained == self.rounds else "no gain since"
        kept = "the best of" if self.value == best else "of"
        return (
            f"The model is round {self.round}'s ({scored}, {kept} {len(self.scores)} scored"
            f"{beside}); stopped after round {self.trained} of {self.rounds}: {ended}"
        )


def scores_of(rows: Sequence[Mapping[str, Any]], monitor: str) -> dict[int, float]:
    """Return round → the metric of the model after it, of the rows of a run's history."""
    return {
        int(row["round"]) - 1: float(row["metrics"][monitor])
        for row in rows
        if monitor in row["metrics"]
    }


def best_round(scores: Mapping[int, float], min_delta: float = 0.0) -> int | None:
    """Return the earliest round that no later one beats by more than `min_delta`; None of none.

    As others count it: a round is the best so far when it gains more than `min_delta` on the one
    that was.
    """
    best: int | None = None
    for number in sorted(scores):
        if best is None or scores[number] > scores[best] + min_delta:
            best = number
    return best


def is_out_of_patience(scores: Mapping[int, float], config: EarlyStoppingConfig) -> bool:
    """Return whether `patience` rounds were scored since the best one."""
    best = best_round(scores, config.min_delta)
    if best is None or config.patience is None:
        return False
    return sum(number > best for number in scores) >= config.patience


def chosen_round(
    scores: Mapping[int, float], config: EarlyStoppingConfig, *, trained: int, rounds: int
) -> RoundChoice:
    """Return the round whose model a run ends with.

    Args:
        scores: Round → metric.
        config: Whether the best is restored.
        trained: Rounds that were trained.
        rounds: Rounds that were to be.
    """
    best = best_round(scores, config.min_delta) if config.restore_best else None
    round_ = trained if best is None else best
    return RoundChoice(round_, trained, rounds, str(config.monitor), dict(sorted(scores.items())))
