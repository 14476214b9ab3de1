"""Masked windows of the wearable, predicted from the rest (LSM-2, arXiv 2506.05321)."""

from __future__ import annotations

from typing import Final, cast

from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch
from healthfm_core.modalities.wearable import WEARABLES
from healthfm_core.models.heads import HeadSpec, output_layer
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.input_masking import MaskedInputs, reconstruction_share
from healthfm_core.objectives.objective import Objective, PassOutputs
from healthfm_core.objectives.worn_hours import worn_positions


def masked_wearable_loss(
    decoded_BSWF: Float[Tensor, "B S W F"], original: Batch, masked: MaskedInputs
) -> Float[Tensor, " B"]:
    """Return each subject's mean squared error over cells that were observed and then masked."""
    error = (decoded_BSWF - original.wearable).square() * masked.cells
    return error.sum((1, 2, 3)) / masked.cells.sum((1, 2, 3)).clamp_min(1)


def _head(shape: ModelShape, width: int) -> nn.Module:
    """Return a head with one value per window and feature of an hour."""
    return output_layer(width, shape.windows * shape.features)


def _loss(seen: PassOutputs) -> Float[Tensor, " B"]:
    decoded = seen.model.head("masked_wearable", seen.states, seen.batch)
    return masked_wearable_loss(
        decoded.reshape(seen.batch.wearable.shape), seen.batch, cast(MaskedInputs, seen.masked)
    )


MASKED_WEARABLE: Final = Objective(
    name="masked_wearable",
    head=HeadSpec(_head),
    loss=_loss,
    modality=WEARABLES,
    weight_name="masked_reconstruction",
    positions=worn_positions,
    masks_inputs=True,
    share=reconstruction_share,
)
