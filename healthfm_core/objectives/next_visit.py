"""What happens at the next visit (arXiv 2507.00574), repeats weighted down symmetrically."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch import Batch


def next_visit(
    logits_BQV: Float[Tensor, "B Q V"], batch: Batch, *, repeat_decay: float
) -> Float[Tensor, " B"]:
    """Return each subject's mean weighted binary cross-entropy over its SEPs and all targets.

    A code seen in n earlier visits of the whole history weighs e^(−repeat_decay · n), whether it
    recurs or not; weighting positives alone would mis-calibrate the repeats.
    """
    loss = nn.functional.binary_cross_entropy_with_logits(
        logits_BQV, batch.target, reduction="none"
    )
    weight = torch.exp(-repeat_decay * batch.repeats) * batch.query_mask.unsqueeze(-1)
    asked = batch.query_mask.sum(1).clamp_min(1) * logits_BQV.shape[-1]
    return (loss * weight).sum((1, 2)) / asked
