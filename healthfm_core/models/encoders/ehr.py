"""Clinical events and statics to vectors."""

from __future__ import annotations

import math
from typing import Final, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import COUNT_SCALE
from healthfm_core.modalities.ehr import EHR
from healthfm_core.models.code_summaries import (
    HOURS_PER_DAY,
    SummaryNetwork,
    recent_summaries,
    summary_network_for,
)
from healthfm_core.models.decaying_memory import DecayingMemory, memory_for
from healthfm_core.models.encoders.modality_encoder import EncoderFactory, ModalityEncoder
from healthfm_core.models.linear_logit import (
    LinearInputs,
    causal_sum,
    with_hinges,
    zero_slopes,
)
from healthfm_core.models.product_of_experts import ExpertMemory, ExpertSums
from healthfm_core.models.shape import ModelShape

REMEMBERED_SCALE: Final = 0.3
"""Size of the codes' vectors in the memory at the start."""

PRECISION: Final = math.exp(-3.0)
"""Precision of a code at the start: twenty of them speak as loudly as one worn hour."""

STATIC_SCALE: Final = 0.05
"""Size at the start of what a code without a time adds to a state beside that mean."""


class EHREncoder(ModalityEncoder):
    """Embeds a code, its value's decile, and where inside the distribution the value lies.

    The vector is E_token[code⊕decile] + E_code[code] + quantile · E_slope[code]. The fused token
    is the design's; the shared code vector and the slope are ours: they let neighbouring deciles
    of a rare lab share what they learn, which the fused table alone cannot. Where a token stands
    for several values, each number of `sequences.SPREAD` has a slope of its own.

    Args:
        n_tokens: Size of the fused vocabulary; index 0 is padding.
        n_codes: Number of codes; index 0 is padding.
        width: d.
        spread: K.
        code_scale: Size of the code and token vectors at the start.
        linear: What of a code the label's linear logit has weights for; None: it has none.
        memory: Reads, at each query, vectors that the codes have for it alone; None: there is none.
        expert: Reads the same vectors for the one mean of all modalities; None: there is none.
        summary: Reads, at each query, all codes' latest numbers together; None: there is none.
    """

    def __init__(
        self,
        n_tokens: int,
        n_codes: int,
        width: int,
        spread: int = 0,
        code_scale: float = 1.0,
        linear: LinearInputs | None = None,
        memory: DecayingMemory | None = None,
        expert: ExpertMemory | None = None,
        summary: SummaryNetwork | None = None,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(n_tokens, width)
        self.code = nn.Embedding(n_codes, width)
        self.slope = nn.Embedding(n_codes, width)
        for table in (self.token, self.code, self.slope):
            nn.init.normal_(table.weight, std=width**-0.5)
        self.token.weight.data.mul_(0.3 * code_scale)
        self.code.weight.data.mul_(code_scale)
        if spread:
            self.spread = nn.Embedding(n_codes, spread * width)
            nn.init.normal_(self.spread.weight, std=(spread * width) ** -0.5)
        self.linear = linear
        if linear is not None:
            self.linear_logit = zero_slopes(n_codes, linear.columns(spread))
        self.memory = memory
        self.expert_memory = expert
        reader = memory if expert is None else expert
        if reader is not None:
            self.remembered = nn.Embedding(n_codes, (2 + spread) * reader.value.in_features)
            nn.init.normal_(self.remembered.weight, std=REMEMBERED_SCALE * code_scale)
        if expert is not None:
            self.remembered_static = nn.Embedding(n_codes, (2 + spread) * width)
            nn.init.normal_(self.remembered_static.weight, std=STATIC_SCALE * code_scale)
        self.summary = summary

    def tokens(self, batch: Batch) -> Float[Tensor, "B T d"]:
        """Return one vector per position, 0 where the position is not a code."""
        vectors = self.embed(batch.token, batch.code, batch.quantile * batch.has_value)
        if not batch.spread.shape[-1]:
            return vectors
        slopes = self.spread(batch.code).unflatten(-1, (batch.spread.shape[-1], -1))
        return vectors + (slopes * batch.spread.unsqueeze(-1)).sum(-2) * _present(batch.code)

    def embed(
        self,
        token: Int64[Tensor, "B T"],
        code: Int64[Tensor, "B T"],
        value: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B T d"]:
        """Return the vectors of tokens with their codes and quantiles, 0 for those without."""
        shared = self.code(code) + self.slope(code) * value.unsqueeze(-1)
        return self.token(token) * _present(token) + shared * _present(code)

    def query_logit(self, batch: Batch) -> Float[Tensor, "B Q"]:
        """Return the sum over the codes that a query may see."""
        linear = cast(LinearInputs, self.linear)
        if linear.hours is None:
            return causal_sum(self.linear_terms(batch), batch)
        codes = self.linear_logit.num_embeddings
        numbers = recent_summaries(batch, codes, linear.hours / HOURS_PER_DAY)
        every = torch.arange(codes, device=batch.code.device).expand(batch.size, codes)
        slopes = self.linear_logit(every).unsqueeze(1)
        there = numbers[..., :1]
        values = torch.cat([numbers[..., 1:-1], numbers[..., -1:] / COUNT_SCALE], -1)
        read = torch.cat([there, with_hinges(values, there, linear.knots)], -1)
        return (slopes * read).sum((-1, -2))

    def linear_terms(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Return what each code adds to the label's linear logit by its own values."""
        knots, there = cast(LinearInputs, self.linear).knots, _present(batch.code)
        bends = with_hinges(batch.spread, there, knots)[..., batch.spread.shape[-1] :]
        numbers = torch.cat([_numbers(batch), bends], -1)
        return (self.linear_logit(batch.code) * numbers).sum(-1) * there.squeeze(-1)

    def recall(self, batch: Batch) -> Float[Tensor, "B Q d"] | None:
        """Return what the memory of the codes and their summaries add to the queries' states."""
        said: list[Tensor] = []
        if self.memory is not None:
            said.append(self.memory(self._remembered(batch), batch.code > 0, batch))
        if self.expert_memory is not None:
            said.append(self._statics(batch))
        if self.summary is not None:
            said.append(self.summary(batch))
        return sum(said[1:], said[0]) if said else None

    def expert(self, batch: Batch, fade_BH: Float[Tensor, "B H"]) -> ExpertSums | None:
        """Return what the codes that have a time say for the mean of all modalities."""
        if self.expert_memory is None:
            return None
        timed = (batch.code > 0) & ~_is_static(batch)
        return cast(ExpertSums, self.expert_memory(self._remembered(batch), timed, batch, fade_BH))

    def _remembered(self, batch: Batch) -> Float[Tensor, "B T v"]:
        """Return what each code says to the memory."""
        numbers = _numbers(batch).unsqueeze(-1)
        vectors = self.remembered(batch.code).unflatten(-1, (numbers.shape[-2], -1))
        return (vectors * numbers).sum(-2)

    def _statics(self, batch: Batch) -> Float[Tensor, "B Q d"]:
        """Return what the codes without a time add to every query, as they are."""
        last = max(1, int(batch.n_static.max()))
        code, numbers = batch.code[:, :last], _numbers(batch)[:, :last].unsqueeze(-1)
        vectors = self.remembered_static(code).unflatten(-1, (numbers.shape[-2], -1))
        static = _is_static(batch)[:, :last, None] & (code > 0).unsqueeze(-1)
        said = ((vectors * numbers).sum(-2) * static).sum(1, keepdim=True)
        return said.expand(-1, batch.query.shape[1], -1)


def _numbers(batch: Batch) -> Float[Tensor, "B T n"]:
    """Return what each code says: that it is there, its value, and the numbers about its bin."""
    value = (batch.quantile * batch.has_value).unsqueeze(-1)
    return torch.cat([torch.ones_like(value), value, batch.spread], dim=-1)


def _is_static(batch: Batch) -> Bool[Tensor, "B T"]:
    """Return which positions stand before all that has a time."""
    position = torch.arange(batch.code.shape[1], device=batch.code.device)
    return position < batch.n_static[:, None]


def _present(index_BT: Int64[Tensor, "B T"]) -> Float[Tensor, "B T 1"]:
    """Return 0 for padding: `padding_idx` hides its gradient from autograd, not from Opacus."""
    return (index_BT > 0).to(torch.float32).unsqueeze(-1)


def _build(config: ModelConfig, shape: ModelShape, linear_logit: bool) -> EHREncoder:
    return EHREncoder(
        shape.tokens,
        shape.codes,
        config.width,
        shape.spread,
        config.code_scale,
        LinearInputs(config.linear_knots, config.linear_hours) if linear_logit else None,
        memory_for(config, config.memory_width),
        ExpertMemory(config.memory_width, config, PRECISION) if config.has_product else None,
        summary_network_for(config, shape),
    )


FACTORY: Final = EncoderFactory(EHR, _build)
