"""How the objectives' weights change over a run: a function of the global round alone.

The server sends the round's number; a site never turns to its own data for it, so every site weighs
the objectives alike (arXiv 2601.12227). First the model learns to read each modality, then to carry
one over to the other, then to forecast.
"""

from __future__ import annotations

import math
from typing import Final

from healthfm_core.config import TrainConfig

LAST_RECONSTRUCTION: Final = 0.3
CODING: Final = 0.5
FIRST_FORECAST: Final = 0.5
CROSS_FROM: Final = 0.1
CROSS_FULL: Final = 0.5


def progress(round_: int, rounds: int) -> float:
    """Return how far the run is: 0 in round 1, 1 in the last of `rounds`."""
    return 1.0 if rounds == 1 else (round_ - 1) / (rounds - 1)


def in_round(config: TrainConfig, *, round_: int, rounds: int) -> TrainConfig:
    """Return `config` with the objectives' weights of the round.

    With ``staged``: reconstruction falls from 1 to 0.3 of its weight, predictive coding stays at
    half, cross-modal prediction comes in on a cosine between a tenth and half of the run, and the
    forecasts (next visit, next event, time to event) grow from half to all of theirs. The label's
    weight stays.
    """
    if config.curriculum == "none":
        return config
    p = progress(round_, rounds)
    forecast = FIRST_FORECAST + (1 - FIRST_FORECAST) * p
    share = {
        "masked_reconstruction": 1 + (LAST_RECONSTRUCTION - 1) * p,
        "predictive_coding": CODING,
        "cross_modal": _rise(p),
        "next_visit": forecast,
        "next_event": forecast,
        "time_to_event": forecast,
    }
    weights = config.objectives
    scaled = {name: getattr(weights, name) * factor for name, factor in share.items()}
    return config.model_copy(update={"objectives": weights.model_copy(update=scaled)})


def _rise(p: float) -> float:
    at = min(max((p - CROSS_FROM) / (CROSS_FULL - CROSS_FROM), 0.0), 1.0)
    return 0.5 * (1 - math.cos(math.pi * at))
