"""The rates at which attention decays: what is learned, and the range it is held in."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.models.layers import PerSubjectParameter

HALF_LIFE_MIN_DAYS = 1 / 24
HALF_LIFE_MAX_DAYS = 20 * 365.25
FIRST_HALF_LIFE_DAYS = 1 / 24
LAST_HALF_LIFE_DAYS = 10 * 365.25
FLOOR_LOGIT = -40.0
"""Log rate of the optional component that never decays: half-life of 10^17 days."""

LOG_RATES = (
    math.log(math.log(2) / HALF_LIFE_MAX_DAYS),
    math.log(math.log(2) / HALF_LIFE_MIN_DAYS),
)
"""The range of log λ, per day."""


def initial_log_rates(
    heads: int,
    rates: int,
    first_days: float = FIRST_HALF_LIFE_DAYS,
    last_days: float = LAST_HALF_LIFE_DAYS,
) -> Float[Tensor, "H R"]:
    """Return log λ with half-lives log-spaced from the first to the last, staggered over the heads.

    Head h takes R neighbouring places of H + R − 1, so some heads have no slow component at all
    and some no fast one; a slow one in every head would defeat the skipping of far tiles.
    """
    places = heads + rates - 1
    span = torch.linspace(math.log(first_days), math.log(last_days), max(places, 2))
    log_half_life = torch.stack([span[h : h + rates] for h in range(heads)])
    return math.log(math.log(2)) - log_half_life


class DecayRates(nn.Module):
    """Rates and weights of each head's kernel, given out per subject."""

    def __init__(
        self,
        heads: int,
        rates: int,
        floor: bool,
        start_days: tuple[float, float] = (FIRST_HALF_LIFE_DAYS, LAST_HALF_LIFE_DAYS),
    ) -> None:
        super().__init__()
        self.floor = floor
        self.log_rate = PerSubjectParameter(initial_log_rates(heads, rates, *start_days))
        self.logit = PerSubjectParameter(torch.zeros(heads, rates + floor))

    def forward(
        self, subject_B: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B H R"], Float[Tensor, "B H R"]]:
        """Return λ per day (half-lives held in [1 h, 20 y]) and w, which sums to 1."""
        log_rate = self.log_rate(subject_B).clamp(*LOG_RATES)
        if self.floor:
            log_rate = nn.functional.pad(log_rate, (1, 0), value=FLOOR_LOGIT)
        weights = torch.softmax(self.logit(subject_B), dim=-1)
        return log_rate.exp(), weights * (1 - 1e-6 * weights.shape[-1]) + 1e-6


@torch.no_grad()
def clamp_half_lives(model: nn.Module) -> None:
    """Bring every half-life back into its range: beyond it there is no gradient to come back by."""
    for log_rate in log_rates_of(model):
        log_rate.clamp_(*LOG_RATES)


def log_rates_of(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the log rates of all that decays: the attention's, and the memories'."""
    for module in model.modules():
        log_rate = getattr(module, "log_rate", None)
        if isinstance(log_rate, PerSubjectParameter):
            yield log_rate.weight
