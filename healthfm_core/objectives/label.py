"""A task's binary label at its prediction time."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch


def label(logits_BQ1: Float[Tensor, "B Q 1"], batch: Batch) -> Float[Tensor, " B"]:
    """Return each subject's mean binary cross-entropy over its labelled NOW queries."""
    known = batch.query_mask & ~batch.label.isnan()
    loss = nn.functional.binary_cross_entropy_with_logits(
        logits_BQ1.squeeze(-1), batch.label.nan_to_num(), reduction="none"
    )
    return (loss * known).sum(1) / known.sum(1).clamp_min(1)
