"""A panel of polygenic scores to soft tokens (arXiv 2510.23639)."""

from __future__ import annotations

from typing import Final, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.modalities.genomics import GENOMICS
from healthfm_core.modalities.registry import columns_of
from healthfm_core.models.encoders.modality_encoder import EncoderFactory, ModalityEncoder, place
from healthfm_core.models.shape import ModelShape

REMEMBERED_SCALE: Final = 0.05
"""Size at the start of the linear map that the memory of the scores is."""

Fusion = Literal["soft_tokens", "cross_attention", "late"]


class GenomicsEncoder(ModalityEncoder):
    """RMSNorm-MLP from P standardised scores and their presence to n soft tokens.

    The tokens stand in the row, before everything with a time. Two other ways to join them to the
    record are arms to compare with: the states that are asked for read the tokens by one more
    attention (``cross_attention``), or the tokens' mean is added to them (``late``).

    Args:
        columns: The panel's columns in a batch, P of them.
        first_slot: Index of the first of its soft tokens in a batch's `soft_slot`.
        n_tokens: Soft tokens per subject.
        hidden: Width of the hidden layer.
        width: d.
        fusion: How they join the record.
        memory: Whether the scores also add to the queries' states as they are: they do not fade.
    """

    def __init__(
        self,
        columns: slice,
        first_slot: int,
        n_tokens: int,
        hidden: int,
        width: int,
        fusion: Fusion = "soft_tokens",
        memory: bool = False,
    ) -> None:
        super().__init__()
        self.columns = columns
        self.first_slot = first_slot
        self.n_tokens = n_tokens
        self.fusion = fusion
        if fusion == "cross_attention":
            self.ask = nn.Linear(width, width)
            self.answer = nn.Linear(width, width)
        self.inwards = nn.Linear(2 * (columns.stop - columns.start), hidden)
        self.norm = nn.RMSNorm(hidden)
        self.outwards = nn.Linear(hidden, n_tokens * width)
        self.remembered = nn.Linear(self.inwards.in_features, width, bias=False) if memory else None
        if self.remembered is not None:
            nn.init.normal_(self.remembered.weight, std=REMEMBERED_SCALE)

    def forward(self, batch: Batch) -> Float[Tensor, "B n d"]:
        """Return the soft tokens; of a subject without scores they are not read."""
        h = self.inwards(self._scores(batch))
        h = nn.functional.gelu(self.norm(h.to(self.norm.weight.dtype)))
        return self.outwards(h).unflatten(-1, (self.n_tokens, -1))

    def recall(self, batch: Batch) -> Float[Tensor, "B Q d"] | None:
        """Return what the scores, as they are, add to the queries' states."""
        if self.remembered is None:
            return None
        each = self.remembered(self._scores(batch)).unsqueeze(1)
        return cast(Tensor, each).expand(-1, batch.query.shape[1], -1)

    def _scores(self, batch: Batch) -> Float[Tensor, "B n"]:
        """Return the scores, 0 where absent, and which are present."""
        present = batch.panel_mask[:, self.columns].to(batch.panel.dtype)
        return torch.cat([batch.panel[:, self.columns] * present, present], dim=-1)

    def tokens(self, batch: Batch) -> Float[Tensor, "B T d"] | None:
        """Return the soft tokens at their positions, if that is how the scores are joined."""
        if self.fusion != "soft_tokens":
            return None
        return place(self(batch), batch.soft_slot - self.first_slot)

    def join(self, states_BQd: Float[Tensor, "B Q d"], batch: Batch) -> Float[Tensor, "B Q d"]:
        """Return the states with what the scores add to them; soft tokens have done so already."""
        if self.fusion == "soft_tokens":
            return states_BQd
        tokens = self(batch)
        if self.fusion == "late":
            read = tokens.mean(1, keepdim=True)
        else:
            fit = self.ask(states_BQd) @ tokens.transpose(1, 2) * tokens.shape[-1] ** -0.5
            read = self.answer(fit.softmax(-1) @ tokens)
        return states_BQd + read * batch.panel_mask[:, self.columns].any(1)[:, None, None]


def _build(config: ModelConfig, shape: ModelShape, linear_logit: bool) -> GenomicsEncoder:
    return GenomicsEncoder(
        columns_of(GENOMICS, shape.panel),
        shape.first_soft_token(GENOMICS),
        config.prs_tokens,
        config.prs_width,
        config.width,
        config.genomics_fusion,
        config.memory,
    )


def _soft_tokens(config: ModelConfig) -> int:
    return config.prs_tokens if config.genomics_fusion == "soft_tokens" else 0


FACTORY: Final = EncoderFactory(GENOMICS, _build, _soft_tokens)
