"""The continuous-time transformer."""

from __future__ import annotations

import math
from typing import Final, cast

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.config.model import PLAIN_ATTENTION, AttentionVariant
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import KINDS
from healthfm_core.kernels.ct_attention import ct_attention
from healthfm_core.models.decay import FIRST_HALF_LIFE_DAYS, LAST_HALF_LIFE_DAYS, DecayRates
from healthfm_core.models.layers import Adapter, FeedForward, PerSubjectParameter
from healthfm_core.models.product_of_experts import ProductOfExperts
from healthfm_core.models.time_features import TimeFeatures, has_time

GAP_HALF_LIVES_DAYS: Final = (30.0, 365.0)
"""How fast two of the numbers that a query's gap is told by wear off."""
QUERY_TIME_SCALE: Final = 0.1
"""Size at the start of the linear map of a query's age and gap."""


class Block(nn.Module):
    """Pre-norm continuous-time attention, then a feed-forward network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        plain = config.attention in PLAIN_ATTENTION
        self.variant = "none" if plain else cast(AttentionVariant, config.attention)
        self.rotary = config.attention == "rope_days"
        self.norm_attention = nn.RMSNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.decay = DecayRates(config.heads, config.rates, config.floor, config.start_half_lives)
        self.out = nn.Linear(config.width, config.width)
        self.has_adapter = config.adapter_rank > 0
        if self.has_adapter:
            self.adapter = Adapter(config.width, 3 * config.width, config.adapter_rank)
        self.dropout = nn.Dropout(config.dropout)
        self.norm_ffn = nn.RMSNorm(config.width)
        self.ffn = FeedForward(config.width, config.ffn, config.activation, config.dropout)

    def forward(
        self, x: Float[Tensor, "B T d"], batch: Batch, at_BQ: Int64[Tensor, "B Q"] | None = None
    ) -> Float[Tensor, "B Q d"]:
        """Return the block's output at every position, or only at the positions `at_BQ`."""
        q, k, v = self.project(x)
        t_days, kv_end = batch.t_days, batch.kv_end
        if at_BQ is not None:
            x, q = gather(x, at_BQ), gather(q, at_BQ)
            t_days, kv_end = t_days.gather(1, at_BQ), kv_end.gather(1, at_BQ)
        q, k, v = self.split(q, t_days), self.split(k, batch.t_days), self.split(v)
        return self.read(x, q, k, v, t_days, batch.t_days, kv_end, batch.n_static)

    def project(self, x: Float[Tensor, "B T d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values [B, T, d]."""
        x = self.norm_attention(x)
        qkv = self.qkv(x) + self.adapter(x) if self.has_adapter else self.qkv(x)
        q, k, v = qkv.chunk(3, dim=-1)
        return q, k, v

    def split(self, x: Float[Tensor, "B T d"], t_days: Tensor | None = None) -> Tensor:
        """Return `x` by heads [B, H, T, D], turned by its times in the ablation that does that."""
        by_head = x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        return _rotate(by_head, t_days) if self.rotary and t_days is not None else by_head

    def read(
        self,
        x: Float[Tensor, "B Q d"],
        q: Float[Tensor, "B H Q D"],
        k: Float[Tensor, "B H T D"],
        v: Float[Tensor, "B H T D"],
        t_q: Float[Tensor, "B Q"],
        t_k: Float[Tensor, "B T"],
        kv_end: Tensor,
        n_static: Tensor,
    ) -> Float[Tensor, "B Q d"]:
        """Return `x` with what it reads from the keys before `kv_end`, fed forward."""
        rates = self.decay(t_k[:, 0])
        attended = ct_attention(q, k, v, t_q, t_k, kv_end, n_static, *rates, variant=self.variant)
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.ffn(self.norm_ffn(x))

    def effective_context(self, x: Float[Tensor, "B T d"], batch: Batch) -> Float[Tensor, ""]:
        """Return how many days back the block looks: mean Σ_j A_ij Δ_ij over heads and tokens.

        Read off with the kernel itself: the values it mixes are times instead of vectors.
        """
        q, k, v = self.project(x)
        q, k, v = self.split(q, batch.t_days), self.split(k, batch.t_days), self.split(v)
        timed = has_time(batch).to(v.dtype)
        marks = torch.zeros_like(v)
        marks[..., 0], marks[..., 1] = (batch.t_days * timed)[:, None], timed[:, None]
        t, rates = batch.t_days, self.decay(batch.t_days[:, 0])
        end, static, variant = batch.kv_end, batch.n_static, self.variant
        read = ct_attention(q, k, marks, t, t, end, static, *rates, variant=variant)
        days = t[:, None] * read[..., 1] - read[..., 0]
        return (days * timed[:, None]).sum() / (timed.sum() * self.heads).clamp_min(1)


def gather(x_BTd: Float[Tensor, "B T d"], at_BQ: Int64[Tensor, "B Q"]) -> Float[Tensor, "B Q d"]:
    """Return each row's vectors at its own positions `at_BQ`."""
    return x_BTd.gather(1, at_BQ.unsqueeze(-1).expand(-1, -1, x_BTd.shape[-1]))


def _rotate(
    x_BHTD: Float[Tensor, "B H T D"], t_days_BT: Float[Tensor, "B T"]
) -> Float[Tensor, "B H T D"]:
    """Rotate by angles that are days times log-spaced frequencies (ablation ``rope_days``)."""
    half = x_BHTD.shape[-1] // 2
    first, last = math.log10(FIRST_HALF_LIFE_DAYS), math.log10(LAST_HALF_LIFE_DAYS)
    period = torch.logspace(first, last, half, device=x_BHTD.device, dtype=t_days_BT.dtype)
    angle = t_days_BT[:, None, :, None] * (2 * math.pi / period)
    cos, sin = angle.cos().to(x_BHTD.dtype), angle.sin().to(x_BHTD.dtype)
    a, b = x_BHTD[..., :half], x_BHTD[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class CumulativeSumPooling(nn.Module):
    """What every token adds by itself, summed over the tokens a position may see.

    Attention gives weighted means: how many tokens there are, and which are not, it tells badly.

    Args:
        width: d.
        hidden: Width of the network each token goes through.
        dropout: Its dropout.
    """

    SCALE: Final = 1 / 16

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.ffn = FeedForward(width, hidden, "gelu", dropout)

    def forward(
        self, x: Float[Tensor, "B T d"], kv_end_BQ: Int32[Tensor, "B Q"]
    ) -> Float[Tensor, "B Q d"]:
        """Return, for each query, the sum over the positions before its `kv_end`."""
        before = nn.functional.pad(self.terms(x).cumsum(1), (0, 0, 1, 0))
        return gather(before, kv_end_BQ.long())

    def terms(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T d"]:
        """Return what each token adds."""
        return self.ffn(self.norm(x)) * self.SCALE


class Backbone(nn.Module):
    """Type and time embeddings, then the blocks; shared by every site whatever its modalities."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.has_sum_pooling = config.sum_pooling
        self.kind = nn.Embedding(KINDS, config.width)
        nn.init.normal_(self.kind.weight, std=config.width**-0.5)
        self.has_time = config.time_features
        if config.time_features:
            self.time = TimeFeatures(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        if config.sum_pooling:
            self.sum_pooling = CumulativeSumPooling(config.width, config.ffn, config.dropout)
        with torch.no_grad():
            for module in self.blocks:
                block = cast(Block, module)
                for layer in (block.out, block.ffn.down):
                    layer.weight.mul_((2 * config.layers) ** -0.5)
        self.has_layer_scale = config.layer_scale is not None
        if config.layer_scale is not None:
            start = torch.full((config.width,), config.layer_scale)
            self.layer_scale = PerSubjectParameter(start)
        self.memory = ProductOfExperts(config) if config.has_product else None
        self.has_query_time = config.layer_scale is not None and config.time_features
        if self.has_query_time:
            self.query_time = nn.Linear(2 + len(GAP_HALF_LIVES_DAYS), config.width, bias=False)
            nn.init.normal_(self.query_time.weight, std=QUERY_TIME_SCALE)

    def forward(
        self, x: Float[Tensor, "B T d"], batch: Batch, at_BQ: Int64[Tensor, "B Q"] | None = None
    ) -> Float[Tensor, "B Q d"]:
        """Return the states at `at_BQ`, or at every position.

        The last block computes what is asked for and nothing else; earlier ones everything.
        """
        x = self.embed(x, batch)
        pooled = self.pooled_sums(x, batch, at_BQ) if self.has_sum_pooling else 0.0
        *early, last = self.blocks
        for block in early:
            x = block(x, batch)
        states = self.norm(last(x, batch, at_BQ) + pooled)
        return self.scale_queries(states, batch, at_BQ) if self.has_layer_scale else states

    def scale_queries(
        self, states: Float[Tensor, "B Q d"], batch: Batch, at_BQ: Int64[Tensor, "B Q"] | None
    ) -> Float[Tensor, "B Q d"]:
        """Return the states with those of queries scaled channel by channel; others are kept.

        Blocks that learn codes by heart before the memories have found what lasts make a small
        site's answers worse; from a small share they can grow (LayerScale, Touvron et al. 2021).
        """
        asked = torch.zeros_like(batch.t_days).scatter_add(
            1, batch.query, batch.query_mask.to(batch.t_days.dtype)
        )
        asked = (asked if at_BQ is None else asked.gather(1, at_BQ)).unsqueeze(-1) > 0
        scale = self.layer_scale(batch.t_days[:, 0]).unsqueeze(1)
        return torch.where(asked, states * scale, states)

    def query_terms(self, batch: Batch) -> Float[Tensor, "B Q d"] | None:
        """Return what a query's own age and gap add to its state, if they are read at all."""
        if not self.has_query_time:
            return None
        age, gap = batch.age_years.gather(1, batch.query), batch.gap_days.gather(1, batch.query)
        fresh = [torch.exp2(-gap / days) for days in GAP_HALF_LIVES_DAYS]
        return cast(Tensor, self.query_time(torch.stack([age / 50, gap.log1p() / 5, *fresh], -1)))

    def pooled_sums(
        self, x: Float[Tensor, "B T d"], batch: Batch, at_BQ: Int64[Tensor, "B Q"] | None = None
    ) -> Float[Tensor, "B Q d"]:
        """Return the sums that the states at `at_BQ` read, `x` being what the first block gets."""
        kv_end = batch.kv_end if at_BQ is None else batch.kv_end.gather(1, at_BQ)
        return cast(Tensor, self.sum_pooling(x, kv_end))

    def embed(self, x: Float[Tensor, "B T d"], batch: Batch) -> Float[Tensor, "B T d"]:
        """Return what goes into the first block: the encoders' vectors, kinds and times."""
        x = x + self.kind(batch.kind)
        return self.dropout(x + self.time(batch) if self.has_time else x)
