"""A task's binary label at its prediction time."""

from __future__ import annotations

import math
from typing import Final

from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch
from healthfm_core.models.heads import RARE_LOGIT, HeadSpec, output_layer
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.objective import Objective, PassOutputs


def label_loss(logits_BQ1: Float[Tensor, "B Q 1"], batch: Batch) -> Float[Tensor, " B"]:
    """Return each subject's mean binary cross-entropy over its labelled NOW queries."""
    known = batch.query_mask & ~batch.label.isnan()
    loss = nn.functional.binary_cross_entropy_with_logits(
        logits_BQ1.squeeze(-1), batch.label.nan_to_num(), reduction="none"
    )
    return (loss * known).sum(1) / known.sum(1).clamp_min(1)


def _head(shape: ModelShape, width: int) -> nn.Module:
    """Return a head that starts from the study's share of positive labels, where it is known."""
    rate = shape.label_rate
    return output_layer(width, 1, bias=math.log(rate / (1 - rate)) if rate else RARE_LOGIT)


def _loss(seen: PassOutputs) -> Float[Tensor, " B"]:
    return label_loss(seen.model.head("label", seen.states, seen.batch), seen.batch)


LABEL: Final = Objective(
    name="label", head=HeadSpec(_head, adds_linear_logit=True), loss=_loss, query="label"
)
