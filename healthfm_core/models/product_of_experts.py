"""What all modalities' tokens say of a moment together, each as loudly as it is precise.

With a memory for each modality (`models.decaying_memory`) a worn week and a lab value add to a
state side by side, each shrunk as if the other were not there: what both say is counted twice, and
a map from means to states has to be learned for each. Here every modality gives evidence of the
same hidden numbers, with a precision of its own, and the state reads one mean of all of it: the
product of Gaussian experts (Hinton 2002), of which any may be missing (Wu and Goodman 2018). How
fast the hidden numbers wander, their prior and the map to a state are then everybody's, so a site
without wearables learns them too (docs/decisions/0034).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.models.decay import LOG_RATES
from healthfm_core.models.decaying_memory import PRIOR_TOKENS, START_SCALE, token_ages
from healthfm_core.models.layers import PerSubjectParameter


class ExpertSums(NamedTuple):
    """What one modality's tokens say in H ways to forget, before it is divided by anything.

    Attributes:
        total: Σ_j p_h W_j · 2^(−Δ_j / fade_h) · v_j over the tokens that a query may see.
        faded: The same of 1 for v_j.
        precision: Σ_j p_h W_j.
    """

    total: Float[Tensor, "B Q H v"]
    faded: Float[Tensor, "B Q H"]
    precision: Float[Tensor, "B Q H"]


class ExpertMemory(nn.Module):
    """One modality's evidence: values that its tokens speak for, and how precisely.

    Head h weighs a token by W_j = 2^(−(Δ_j − min Δ) / recency_h), with Δ_j = t − t_j at a query at
    t, and by the modality's precision p_h; recencies and precisions are learned. Without a token
    there is no evidence: all three sums are 0.

    Args:
        numbers: f, numbers of a token.
        config: Widths, half-lives at the start, and whether anything decays.
        precision: What p_h is at the start: how many tokens of precision 1 one of these is worth.
    """

    def __init__(self, numbers: int, config: ModelConfig, precision: float) -> None:
        super().__init__()
        days = torch.tensor([recency for recency, _ in _heads(config)])
        self.value = nn.Linear(numbers, config.memory_width)
        decays = config.memory_decay
        self.log_rate = PerSubjectParameter((math.log(2) / days).log()) if decays else None
        start = torch.full((len(days),), math.log(precision))
        self.log_precision = PerSubjectParameter(start)

    def forward(
        self,
        numbers_BTf: Float[Tensor, "B T f"],
        holds_BT: Bool[Tensor, "B T"],
        batch: Batch,
        fade_BH: Float[Tensor, "B H"],
    ) -> ExpertSums:
        """Return the evidence at the batch's queries.

        Args:
            numbers_BTf: What each position says.
            holds_BT: Which positions hold a token of the modality that has a time.
            batch: The rows; no query reads behind its `kv_end`.
            fade_BH: λ per day at which what is said wears off (`ProductOfExperts.fade`).
        """
        days, seen = token_ages(batch, holds_BT)
        subject = batch.t_days[:, 0]
        latest = days.masked_fill(~seen, math.inf).amin(-1, keepdim=True)
        behind = torch.where(seen, days - latest, 0.0).unsqueeze(-1)
        weight = torch.exp(-behind * _rate(self.log_rate, fade_BH)[:, None, None])
        weight = weight * seen.unsqueeze(-1) * self.log_precision(subject).exp()[:, None, None]
        faded = weight * torch.exp(-days.unsqueeze(-1) * fade_BH[:, None, None])
        total = torch.einsum("bqth,btv->bqhv", faded, self.value(numbers_BTf))
        return ExpertSums(total, faded.sum(2), weight.sum(2))


class ProductOfExperts(nn.Module):
    """One mean of all modalities' evidence in each head, then a linear map to a state.

    Head h gives Σ total / (n_h + Σ precision) over the modalities, and beside it the same of 1,
    which tells how sure the mean is. The prior counts n_h and the half-lives of the fading are
    learned. Without any evidence it adds exactly nothing.

    Args:
        config: Widths, half-lives at the start, and whether anything decays.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        days = torch.tensor([fade for _, fade in _heads(config)])
        decays = config.memory_decay
        self.log_rate = PerSubjectParameter((math.log(2) / days).log()) if decays else None
        start = torch.full((len(days),), math.log(PRIOR_TOKENS))
        self.log_prior = PerSubjectParameter(start)
        self.heads = len(days)
        width = len(days) * config.memory_width
        self.out = nn.Linear(width + len(days), config.width, bias=False)
        nn.init.normal_(self.out.weight, std=START_SCALE * width**-0.5)

    def fade(self, batch: Batch) -> Float[Tensor, "B H"]:
        """Return λ per day at which what a token says wears off; 0 where nothing decays."""
        return _rate(self.log_rate, batch.t_days.new_zeros(batch.size, self.heads))

    def forward(self, experts: Sequence[ExpertSums], batch: Batch) -> Float[Tensor, "B Q d"]:
        """Return what the modalities' sums, of one at least, add to the queries' states."""
        total, faded, precision = (sum(parts[1:], parts[0]) for parts in zip(*experts, strict=True))
        whole = precision + self.log_prior(batch.t_days[:, 0]).exp()[:, None]
        mean = total / whole.unsqueeze(-1)
        return self.out(torch.cat([mean.flatten(2), faded / whole], -1))


def _heads(config: ModelConfig) -> list[tuple[float, float]]:
    """Return each head's half-lives at the start: every pair of a recency and a fading."""
    fades = config.memory_fade_days
    return [(recency, fade) for recency in config.memory_recency_days for fade in fades]


def _rate(
    log_rate: PerSubjectParameter | None, like_BH: Float[Tensor, "B H"]
) -> Float[Tensor, "B H"]:
    if log_rate is None:
        return torch.zeros_like(like_BH)
    return log_rate(like_BH[:, 0].detach()).clamp(*LOG_RATES).exp()
