"""What happens at the next visit (arXiv 2507.00574), repeats weighted down symmetrically."""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.config.train import RepeatWeighting
from healthfm_core.data.batch.batch import Batch
from healthfm_core.models.heads import HeadSpec, RecurringHead
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.objective import Objective, PassOutputs, forecast_share

FOCUS: Final = 2.0
"""γ of the focal loss (Lin et al. 2017)."""

LEAST_RATE: Final = 1e-4
"""An outcome that the study never saw starts from this rate."""


def next_visit_loss(
    logits_BQV: Float[Tensor, "B Q V"],
    batch: Batch,
    *,
    repeat_decay: float,
    weighting: RepeatWeighting = "symmetric",
) -> Float[Tensor, " B"]:
    """Return each subject's mean weighted binary cross-entropy over its SEPs and all targets.

    With ``symmetric`` weights a code seen in n earlier visits of the whole history weighs
    e^(−repeat_decay · n), whether it recurs or not. The other weightings are arms to compare with:
    weighting the recurrences alone, or focal loss, teaches probabilities that are too low or too
    flat, and ``none`` lets the repeats drown what is new.
    """
    loss = nn.functional.binary_cross_entropy_with_logits(
        logits_BQV, batch.target, reduction="none"
    )
    weight = _weights(logits_BQV, batch, repeat_decay, weighting) * batch.query_mask.unsqueeze(-1)
    asked = batch.query_mask.sum(1).clamp_min(1) * logits_BQV.shape[-1]
    return (loss * weight).sum((1, 2)) / asked


def _weights(
    logits_BQV: Float[Tensor, "B Q V"], batch: Batch, decay: float, weighting: RepeatWeighting
) -> Float[Tensor, "B Q V"]:
    if weighting == "symmetric":
        return torch.exp(-decay * batch.repeats)
    if weighting == "positives":
        return torch.exp(-decay * batch.repeats * batch.target)
    if weighting == "focal":
        return (torch.sigmoid(logits_BQV) - batch.target).abs() ** FOCUS
    return torch.ones_like(batch.target)


def _head(shape: ModelShape, width: int) -> nn.Module:
    """Return a head that starts from the study's rates, where they are known."""
    head = RecurringHead(width, shape.targets)
    if shape.target_rates:
        rates = torch.tensor(shape.target_rates, dtype=torch.float32)
        head.state.bias.data.copy_(torch.logit(rates.clamp(LEAST_RATE, 1 - LEAST_RATE)))
    return head


def _loss(seen: PassOutputs) -> Float[Tensor, " B"]:
    return next_visit_loss(
        seen.model.head("next_visit", seen.states, seen.batch),
        seen.batch,
        repeat_decay=seen.config.repeat_decay,
        weighting=seen.config.repeat_weighting,
    )


NEXT_VISIT: Final = Objective(
    name="next_visit", head=HeadSpec(_head), loss=_loss, query="sep", share=forecast_share
)
