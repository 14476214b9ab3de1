"""Masked codes, predicted from the rest of the row (arXiv 2601.12227)."""

from __future__ import annotations

from typing import Final, cast

from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.modalities.ehr import EHR
from healthfm_core.models.heads import HeadSpec, output_layer
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.input_masking import (
    MaskedInputs,
    masked_positions,
    reconstruction_share,
)
from healthfm_core.objectives.objective import Objective, PassOutputs


def masked_codes_loss(
    logits_BMK: Float[Tensor, "B M K"], masked: MaskedInputs
) -> Float[Tensor, " B"]:
    """Return each subject's mean cross-entropy over its masked codes."""
    loss = nn.functional.cross_entropy(logits_BMK.transpose(1, 2), masked.token, reduction="none")
    return (loss * masked.counted).sum(1) / masked.counted.sum(1).clamp_min(1)


def _head(shape: ModelShape, width: int) -> nn.Module:
    """Return a head with one logit per token."""
    return output_layer(width, shape.tokens)


def _loss(seen: PassOutputs) -> Float[Tensor, " B"]:
    logits = seen.model.head("masked_codes", seen.states, seen.batch)
    return masked_codes_loss(logits, cast(MaskedInputs, seen.masked))


MASKED_CODES: Final = Objective(
    name="masked_codes",
    head=HeadSpec(_head),
    loss=_loss,
    modality=EHR,
    weight_name="masked_reconstruction",
    positions=masked_positions,
    masks_inputs=True,
    share=reconstruction_share,
)
