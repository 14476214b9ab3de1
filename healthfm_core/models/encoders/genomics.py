"""A panel of polygenic scores to soft tokens (arXiv 2510.23639)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch import Batch


class GenomicsEncoder(nn.Module):
    """RMSNorm-MLP from P standardised scores and their presence to n soft tokens.

    Args:
        n_scores: P, the panel's length.
        n_tokens: Soft tokens per subject.
        hidden: Width of the hidden layer.
        width: d.
    """

    def __init__(self, n_scores: int, n_tokens: int, hidden: int, width: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        self.inwards = nn.Linear(2 * n_scores, hidden)
        self.norm = nn.RMSNorm(hidden)
        self.outwards = nn.Linear(hidden, n_tokens * width)

    def forward(self, batch: Batch) -> Float[Tensor, "B n d"]:
        """Return the soft tokens; of a subject without scores they are not read."""
        present = batch.prs_mask.to(batch.prs.dtype)
        h = self.inwards(torch.cat([batch.prs * present, present], dim=-1))
        h = nn.functional.gelu(self.norm(h.to(self.norm.weight.dtype)))
        return self.outwards(h).unflatten(-1, (self.n_tokens, -1))
