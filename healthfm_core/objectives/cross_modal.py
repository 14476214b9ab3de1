"""Clinical events predicted while the device is worn (arXiv 2601.12227), in that direction only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.wearable import WEARABLES
from healthfm_core.models.heads import HeadSpec, RecurringHead
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.objective import Objective, PassOutputs

SHARE_FROM: Final = 0.1
SHARE_FULL: Final = 0.5
"""Shares of the run between which it comes in, on a cosine, in the staged curriculum."""


def cross_modal_loss(
    logits_BQVH: Float[Tensor, "B Q VH"], batch: Batch, *, horizons_days: Sequence[float]
) -> Float[Tensor, " B"]:
    """Return each subject's mean cross-entropy of "v occurs within h days" at its queries.

    The row ends at a worn hour, so every clinical token of the horizon is hidden; what happens is
    known where it happened, or where the record goes on to the horizon's end (a little more often
    than it happens in people, see `evaluation.horizons`; these outputs are no one's forecast). No
    other subject of the batch is a contrast: one subject's loss would depend on another's.
    """
    logits = logits_BQVH.reshape(*logits_BQVH.shape[:2], -1, len(horizons_days))
    ends = batch.event_days.new_tensor(list(horizons_days))
    happens = batch.event_days.unsqueeze(-1) <= ends
    followed = batch.exposure_days[..., None, None] >= ends
    known = (happens | followed) & batch.query_mask[..., None, None]
    loss = nn.functional.binary_cross_entropy_with_logits(
        logits, happens.to(logits.dtype), reduction="none"
    )
    return (loss * known).sum((1, 2, 3)) / known.sum((1, 2, 3)).clamp_min(1)


def _head(shape: ModelShape, width: int) -> nn.Module:
    """Return a head with one logit per target and horizon."""
    return RecurringHead(width, shape.targets, shape.cross_horizons)


def _loss(seen: PassOutputs) -> Float[Tensor, " B"]:
    logits = seen.model.head("cross_modal", seen.states, seen.batch)
    return cross_modal_loss(logits, seen.batch, horizons_days=seen.config.cross_horizons_days)


def _share(progress: float) -> float:
    at = min(max((progress - SHARE_FROM) / (SHARE_FULL - SHARE_FROM), 0.0), 1.0)
    return 0.5 * (1 - math.cos(math.pi * at))


def _input_dropout(config: TrainConfig) -> Mapping[str, float]:
    """Return that wearing is always shown, and the clinic more rarely than elsewhere."""
    return {WEARABLES: 0.0, EHR: config.cross_drop_ehr}


CROSS_MODAL: Final = Objective(
    name="cross_modal",
    head=HeadSpec(_head),
    loss=_loss,
    query="worn",
    modality=WEARABLES,
    input_dropout=_input_dropout,
    share=_share,
)
