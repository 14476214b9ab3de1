"""Clinical events and statics to vectors."""

from __future__ import annotations

from typing import Final, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.modalities.ehr import EHR
from healthfm_core.models.code_summaries import SummaryNetwork, summary_network_for
from healthfm_core.models.decaying_memory import DecayingMemory, memory_for
from healthfm_core.models.encoders.modality_encoder import EncoderFactory, ModalityEncoder
from healthfm_core.models.linear_logit import causal_sum, zero_slopes
from healthfm_core.models.shape import ModelShape

REMEMBERED_SCALE: Final = 0.3
"""Size of the codes' vectors in the memory at the start."""


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
        linear_logit: Whether each code also has weights in the label's linear logit
            (`models.linear_logit`).
        memory: Reads, at each query, vectors that the codes have for it alone; None: there is none.
        summary: Reads, at each query, all codes' latest numbers together; None: there is none.
    """

    def __init__(
        self,
        n_tokens: int,
        n_codes: int,
        width: int,
        spread: int = 0,
        code_scale: float = 1.0,
        linear_logit: bool = False,
        memory: DecayingMemory | None = None,
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
        if linear_logit:
            self.linear_logit = zero_slopes(n_codes, 2 + spread)
        self.memory = memory
        if memory is not None:
            self.remembered = nn.Embedding(n_codes, (2 + spread) * memory.value.in_features)
            nn.init.normal_(self.remembered.weight, std=REMEMBERED_SCALE * code_scale)
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
        return causal_sum(self.linear_terms(batch), batch)

    def linear_terms(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Return what each code adds to the label's linear logit, linear in its values."""
        slopes = self.linear_logit(batch.code)
        return (slopes * _numbers(batch)).sum(-1) * _present(batch.code).squeeze(-1)

    def recall(self, batch: Batch) -> Float[Tensor, "B Q d"] | None:
        """Return what the memory of the codes and their summaries add to the queries' states."""
        recalled = None if self.memory is None else self._remember(batch, self.memory)
        if self.summary is None:
            return recalled
        said = cast(Tensor, self.summary(batch))
        return said if recalled is None else recalled + said

    def _remember(self, batch: Batch, memory: DecayingMemory) -> Float[Tensor, "B Q d"]:
        numbers = _numbers(batch).unsqueeze(-1)
        vectors = self.remembered(batch.code).unflatten(-1, (numbers.shape[-2], -1))
        return cast(Tensor, memory((vectors * numbers).sum(-2), batch.code > 0, batch))


def _numbers(batch: Batch) -> Float[Tensor, "B T n"]:
    """Return what each code says: that it is there, its value, and the numbers about its bin."""
    value = (batch.quantile * batch.has_value).unsqueeze(-1)
    return torch.cat([torch.ones_like(value), value, batch.spread], dim=-1)


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
        linear_logit,
        memory_for(config, config.memory_width) if config.memory else None,
        summary_network_for(config, shape),
    )


FACTORY: Final = EncoderFactory(EHR, _build)
