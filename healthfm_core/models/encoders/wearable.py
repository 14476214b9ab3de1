"""Windows of wearing to one vector per worn hour (or day)."""

from __future__ import annotations

from typing import Final, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.modalities.wearable import WEARABLES
from healthfm_core.models.decaying_memory import DecayingMemory, memory_for
from healthfm_core.models.encoders.modality_encoder import EncoderFactory, ModalityEncoder, place
from healthfm_core.models.layers import FeedForward
from healthfm_core.models.linear_logit import causal_mean
from healthfm_core.models.product_of_experts import ExpertMemory, ExpertSums
from healthfm_core.models.shape import ModelShape

_FAR: Final = 3.0
"""Standard deviations from the mean beyond which a value says no more by itself."""

PRECISION: Final = 1.0
"""Precision of a worn hour at the start; the other modalities' are beside it."""


class WearableEncoder(ModalityEncoder):
    """Patch-linear windows, pre-norm layers that never leave their hour, mean over the windows.

    Each value travels with its mask; a missing value is never imputed. The subject stays the
    first dimension: layers see [B, S·W, width] with a block-diagonal mask per hour.

    Args:
        features: F values of one window (channels times samples).
        windows: W windows per hour token.
        layers: Pre-norm layers (6 in arXiv 2601.12227).
        inner: Width inside the encoder.
        heads: Attention heads inside the encoder.
        width: d of the backbone.
        dropout: Dropout of the feed-forward networks.
        linear_logit: Whether wearing also has weights in the label's linear logit
            (`models.linear_logit`).
        memory: Reads, at each query, the hours' mean values; None: there is none.
        expert: Reads them for the one mean of all modalities; None: there is none.
    """

    def __init__(
        self,
        features: int,
        windows: int,
        *,
        layers: int,
        inner: int,
        heads: int,
        width: int,
        dropout: float,
        linear_logit: bool = False,
        memory: DecayingMemory | None = None,
        expert: ExpertMemory | None = None,
    ) -> None:
        super().__init__()
        self.windows = windows
        self.patch = nn.Linear(2 * features, inner)
        self.place = nn.Embedding(windows, inner)
        self.layers = nn.ModuleList(
            _WindowLayer(inner, heads, dropout) if windows > 1 else _DenseLayer(inner, dropout)
            for _ in range(layers)
        )
        self.norm = nn.RMSNorm(inner)
        self.outwards = nn.Linear(inner, width)
        if linear_logit:
            self.linear_logit = nn.Linear(2 * features, 2, bias=False)
            nn.init.zeros_(self.linear_logit.weight)
        self.memory = memory
        self.expert_memory = expert

    def forward(self, batch: Batch) -> Float[Tensor, "B S d"]:
        """Return one vector per wearable token of the batch."""
        b, s, w, _ = batch.wearable.shape
        mask = batch.wearable_mask.to(batch.wearable.dtype)
        x = self.patch(torch.cat([batch.wearable * mask, mask], dim=-1).flatten(1, 2))
        window = torch.arange(w, device=x.device).repeat(b, s)
        x = x + self.place(window)
        worn = batch.wearable_mask.any(-1)
        for layer in self.layers:
            x = layer(x, worn)
        x = self.norm(x).unflatten(1, (s, w))
        return self.outwards(_over_windows(x, worn))

    def tokens(self, batch: Batch) -> Float[Tensor, "B T d"]:
        """Return each worn hour's vector at its position."""
        return place(self(batch), batch.wearable_slot)

    def query_logit(self, batch: Batch) -> Float[Tensor, "B Q"]:
        """Return the mean over the worn hours that a query may see."""
        worn = self.linear_terms(batch).unsqueeze(-1)
        return causal_mean(place(worn, batch.wearable_slot).squeeze(-1), batch)

    def linear_terms(self, batch: Batch) -> Float[Tensor, "B S"]:
        """Return what each worn hour adds to the label's linear logit: its values, what was worn.

        In a row without any code it says something else: much of what wearing says alone, of age
        for example, the clinic says better, and one set of weights would be a compromise.
        """
        beside_codes, alone = self.linear_logit(_hourly_means(batch)).unbind(-1)
        has_codes = (batch.code > 0).any(1, keepdim=True)
        return torch.where(has_codes, beside_codes, alone)

    def recall(self, batch: Batch) -> Float[Tensor, "B Q d"] | None:
        """Return what the memory of the worn hours adds to the queries' states."""
        if self.memory is None:
            return None
        slot = batch.wearable_slot
        return cast(Tensor, self.memory(place(_hourly_means(batch), slot), slot >= 0, batch))

    def expert(self, batch: Batch, fade_BH: Float[Tensor, "B H"]) -> ExpertSums | None:
        """Return what the worn hours say for the mean of all modalities."""
        if self.expert_memory is None:
            return None
        slot = batch.wearable_slot
        hours = place(_hourly_means(batch), slot)
        return cast(ExpertSums, self.expert_memory(hours, slot >= 0, batch, fade_BH))


def _hourly_means(batch: Batch) -> Float[Tensor, "B S n"]:
    """Return each hour's mean values, none of them far out, and the shares that were observed."""
    mask = batch.wearable_mask.to(batch.wearable.dtype)
    value = batch.wearable.clamp(-_FAR, _FAR) * mask
    return _over_windows(torch.cat([value, mask], -1), mask.any(-1))


def _over_windows(
    x: Float[Tensor, "B S W f"], worn: Bool[Tensor, "B S W"]
) -> Float[Tensor, "B S f"]:
    """Return each hour's mean over the windows in which anything was worn."""
    share = worn.to(x.dtype).unsqueeze(-1)
    return (x * share).sum(2) / share.sum(2).clamp_min(1)


class _WindowLayer(nn.Module):
    """Pre-norm attention among the windows of one hour, then a feed-forward network."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_ffn = nn.RMSNorm(width)
        self.ffn = FeedForward(width, 2 * width, "gelu", dropout)

    def forward(
        self, x: Float[Tensor, "B SW d"], worn: Bool[Tensor, "B S W"]
    ) -> Float[Tensor, "B SW d"]:
        """Return the layer's output; windows that were not worn are not attended to."""
        s, w = worn.shape[1:]
        qkv = self.qkv(self.norm_attention(x)).unflatten(1, (s, w))
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(2, 3) for part in qkv.chunk(3, dim=-1)
        )
        seen = worn[:, :, None, None, :] | ~worn.any(-1)[:, :, None, None, None]
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.out(attended.transpose(2, 3).flatten(3).flatten(1, 2))
        return x + self.ffn(self.norm_ffn(x))


class _DenseLayer(nn.Module):
    """The same without attention, for devices with one window per token (daily summaries)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_ffn = nn.RMSNorm(width)
        self.ffn = FeedForward(width, 2 * width, "gelu", dropout)

    def forward(
        self, x: Float[Tensor, "B SW d"], worn: Bool[Tensor, "B S W"]
    ) -> Float[Tensor, "B SW d"]:
        """Return the layer's output."""
        return x + self.ffn(self.norm_ffn(x))


def _build(config: ModelConfig, shape: ModelShape, linear_logit: bool) -> WearableEncoder:
    features = 2 * shape.features
    return WearableEncoder(
        shape.features,
        shape.windows,
        layers=config.wearable_layers,
        inner=config.wearable_width,
        heads=config.wearable_heads,
        width=config.width,
        dropout=config.dropout,
        linear_logit=linear_logit,
        memory=memory_for(config, features),
        expert=ExpertMemory(features, config, PRECISION) if config.has_product else None,
    )


FACTORY: Final = EncoderFactory(WEARABLES, _build)
