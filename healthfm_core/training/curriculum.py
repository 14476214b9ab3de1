"""How the objectives' weights change over a run: a function of the global round alone.

The server sends the round's number; a site never turns to its own data for it, so every site weighs
the objectives alike (arXiv 2601.12227). First the model learns to read each modality, then to carry
one over to the other, then to forecast.
"""

from __future__ import annotations

from healthfm_core.config import TrainConfig
from healthfm_core.config.train import ObjectivesConfig
from healthfm_core.objectives import OBJECTIVES


def progress(round_: int, rounds: int) -> float:
    """Return how far the run is: 0 in round 1, 1 in the last of `rounds`."""
    return 1.0 if rounds == 1 else (round_ - 1) / (rounds - 1)


def in_round(config: TrainConfig, *, round_: int, rounds: int) -> TrainConfig:
    """Return `config` with the objectives' weights of the round.

    With ``staged``: reconstruction falls from 1 to 0.3 of its weight, predictive coding stays at
    half, cross-modal prediction comes in on a cosine between a tenth and half of the run, and the
    forecasts (next visit, next event, time to event) grow from half to all of theirs. The label's
    weight stays. A round of regression asks for the label alone.
    """
    if config.is_regression(round_, rounds):
        label = ObjectivesConfig(next_visit=0.0, label=config.objectives.label)
        return config.model_copy(update={"objectives": label, "trainable": "linear_logit"})
    if config.curriculum == "none":
        return config
    done = progress(round_, config.network_rounds(rounds))
    weights = config.objectives
    scaled = {o.weight_field: o.weight(weights) * o.share(done) for o in OBJECTIVES}
    return config.model_copy(update={"objectives": weights.model_copy(update=scaled)})
