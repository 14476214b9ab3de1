"""Learning rate as a function of global progress, which the server's round number gives."""

from __future__ import annotations

import math
from typing import Final

from healthfm_core.config import TrainConfig

FIRST_STEP: Final = 0.02
"""Share of a round that counts as done at its first step, so that this one moves too."""
MANY_STEPS: Final = 32
"""Steps that tell a round's mean rate well enough, where it has as many or more."""


def learning_rate(config: TrainConfig, *, round_: int, rounds: int, done: float) -> float:
    """Return the learning rate in round `round_` (from 1) of `rounds`.

    Args:
        config: Peak, final share and warm-up.
        round_: The current round.
        rounds: Rounds of the whole run.
        done: Share of the round's local steps that are done, in [0, 1).
    """
    at = round_ - 1 + done
    warm = min(1.0, (at + 1e-3) / config.warmup_rounds) if config.warmup_rounds else 1.0
    if config.round_warmup:
        warm *= min(1.0, (done + FIRST_STEP) / config.round_warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, at / rounds)))
    return config.lr * warm * (config.lr_final + (1 - config.lr_final) * cosine)


def round_rate(config: TrainConfig, round_: int, rounds: int) -> float:
    """Return the mean learning rate over the local steps of round `round_` (from 1) of `rounds`.

    How many steps a site takes follows from its people; where `max_steps` does not say that they
    are few they are taken to be many. A round of regression, whose gradients know no rate, has
    `lr`.
    """
    if config.is_regression(round_, rounds):
        return config.lr
    steps = min(config.max_steps or MANY_STEPS, MANY_STEPS)
    trained = config.network_rounds(rounds)
    rates = (
        learning_rate(config, round_=round_, rounds=trained, done=step / steps)
        for step in range(steps)
    )
    return sum(rates) / steps
