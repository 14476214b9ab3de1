"""A panel of polygenic scores to soft tokens (arXiv 2510.23639)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch

Fusion = Literal["soft_tokens", "cross_attention", "late"]


class GenomicsEncoder(nn.Module):
    """RMSNorm-MLP from P standardised scores and their presence to n soft tokens.

    The tokens stand in the row, before everything with a time. Two other ways to join them to the
    record are arms to compare with: the states that are asked for read the tokens by one more
    attention (``cross_attention``), or the tokens' mean is added to them (``late``).

    Args:
        n_scores: P, the panel's length.
        n_tokens: Soft tokens per subject.
        hidden: Width of the hidden layer.
        width: d.
        fusion: How they join the record.
    """

    def __init__(
        self,
        n_scores: int,
        n_tokens: int,
        hidden: int,
        width: int,
        fusion: Fusion = "soft_tokens",
    ) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self.fusion = fusion
        if fusion == "cross_attention":
            self.ask = nn.Linear(width, width)
            self.answer = nn.Linear(width, width)
        self.inwards = nn.Linear(2 * n_scores, hidden)
        self.norm = nn.RMSNorm(hidden)
        self.outwards = nn.Linear(hidden, n_tokens * width)

    def forward(self, batch: Batch) -> Float[Tensor, "B n d"]:
        """Return the soft tokens; of a subject without scores they are not read."""
        present = batch.prs_mask.to(batch.prs.dtype)
        h = self.inwards(torch.cat([batch.prs * present, present], dim=-1))
        h = nn.functional.gelu(self.norm(h.to(self.norm.weight.dtype)))
        return self.outwards(h).unflatten(-1, (self.n_tokens, -1))

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
        return states_BQd + read * batch.prs_mask.any(1)[:, None, None]
