"""What a modality's tokens say of a moment, as means that fade with the days since.

Attention gives weighted means whose weights add to one, of vectors whose size a norm has taken
away. However long ago the last reading is, it is read as loudly as if it were of today, and how
much of it there is cannot be told. For a signal that wanders back to its mean (an
Ornstein-Uhlenbeck latent) that is the wrong estimate: the right one fades as 2^(−Δ / half-life) and
is shrunk where the readings are few. A network has to find this from far too few people, and learns
their codes by heart instead (docs/decisions/0034). Here it is from the start: kernel smoothers
(Nadaraya 1964; Watson 1964) of the modality's own numbers, read at the query, added to its state.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.models.decay import LOG_RATES
from healthfm_core.models.layers import PerSubjectParameter

PRIOR_TOKENS: Final = math.exp(-1.0)
"""Tokens that the prior mean, 0, is worth at the start."""

START_SCALE: Final = 0.1
"""Size of what a memory adds to a state at the start, where its means are of size 1."""


class DecayingMemory(nn.Module):
    """H means of what tokens say, each with its own way to forget; then a linear map to a state.

    Head h of a query at t gives Σ_j W_j · 2^(−Δ_j / fade_h) · v_j / (n_h + Σ_j W_j) over the tokens
    j it may see, with Δ_j = t − t_j, v_j a linear map of the token's numbers and
    W_j = 2^(−(Δ_j − min Δ) / recency_h): which readings count beside the latest, and how fast what
    they say wears off, are told apart. Beside the means the state reads log(1 + Σ W) and the same
    mean of 1. Recencies, fades and the prior counts n_h are learned. Without any token it adds
    exactly nothing, as if the modality were not there.

    Args:
        numbers: f, numbers of a token.
        width: What v_j is wide.
        out: d, width of a state.
        recency_days: Half-lives of W at the start.
        fade_days: Half-lives of the fading at the start; every pair of the two is a head.
        decays: Without, W_j = 1 and nothing fades: plain means, blind to time (an ablation).
    """

    def __init__(
        self,
        numbers: int,
        width: int,
        out: int,
        *,
        recency_days: tuple[float, ...],
        fade_days: tuple[float, ...],
        decays: bool = True,
    ) -> None:
        super().__init__()
        heads = [(recency, fade) for recency in recency_days for fade in fade_days]
        rates = (math.log(2) / torch.tensor(heads)).log()
        self.value = nn.Linear(numbers, width)
        self.log_rate = PerSubjectParameter(rates) if decays else None
        self.log_prior = PerSubjectParameter(torch.full((len(heads),), math.log(PRIOR_TOKENS)))
        self.out = nn.Linear(len(heads) * (width + 2), out, bias=False)
        nn.init.normal_(self.out.weight, std=START_SCALE * (len(heads) * width) ** -0.5)

    def forward(
        self, numbers_BTf: Float[Tensor, "B T f"], holds_BT: Bool[Tensor, "B T"], batch: Batch
    ) -> Float[Tensor, "B Q d"]:
        """Return what the memory adds to the states of the batch's queries.

        Args:
            numbers_BTf: What each position says.
            holds_BT: Which positions hold a token of the modality.
            batch: The rows; no query reads behind its `kv_end`.
        """
        days, seen = token_ages(batch, holds_BT)
        recency, fade = self._rates(batch.t_days[:, 0])
        latest = days.masked_fill(~seen, math.inf).amin(-1, keepdim=True)
        behind = torch.where(seen, days - latest, 0.0).unsqueeze(-1)
        weight = torch.exp(-behind * recency[:, None, None]) * seen.unsqueeze(-1)
        faded = weight * torch.exp(-days.unsqueeze(-1) * fade[:, None, None])
        count = weight.sum(2)
        total = count + self.log_prior(batch.t_days[:, 0]).exp()[:, None]
        mean = torch.einsum("bqth,btv->bqhv", faded, self.value(numbers_BTf)) / total[..., None]
        says = torch.cat([mean.flatten(2), count.log1p(), faded.sum(2) / total], -1)
        return self.out(says)

    def _rates(
        self, subject_B: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]:
        """Return λ per day of each head's recency and of its fading; 0 where nothing decays."""
        if self.log_rate is None:
            none = torch.zeros_like(self.log_prior(subject_B))
            return none, none
        recency, fade = self.log_rate(subject_B).clamp(*LOG_RATES).exp().unbind(-1)
        return recency, fade


def memory_for(config: ModelConfig, numbers: int) -> DecayingMemory | None:
    """Return a memory of tokens of so many numbers; None: the configuration has none of its own."""
    if not config.memory or config.memory_fusion != "sum":
        return None
    return DecayingMemory(
        numbers,
        config.memory_width,
        config.width,
        recency_days=config.memory_recency_days,
        fade_days=config.memory_fade_days,
        decays=config.memory_decay,
    )


def token_ages(
    batch: Batch, holds_BT: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B Q T"], Bool[Tensor, "B Q T"]]:
    """Return each token's days before each query, 0 for statics, and which the query may see."""
    position = torch.arange(holds_BT.shape[1], device=holds_BT.device)
    t_query = batch.t_days.gather(1, batch.query)
    end = batch.kv_end.gather(1, batch.query)
    days = (t_query.unsqueeze(-1) - batch.t_days.unsqueeze(1)).clamp_min(0)
    timed = position >= batch.n_static[:, None]
    return days * timed[:, None], (position < end.unsqueeze(-1)) & holds_BT[:, None]
