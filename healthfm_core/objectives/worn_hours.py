"""Where the hours of wearing stand in a batch's rows."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from healthfm_core.data.batch.batch import Batch
from healthfm_core.objectives.input_masking import MaskedInputs


def worn_positions(batch: Batch, masked: MaskedInputs | None = None) -> Int64[Tensor, "B S"]:
    """Return the row positions of the wearable tokens, in the order of the batch's slots."""
    slots = batch.wearable.shape[1]
    real = batch.wearable_slot >= 0
    position = torch.arange(batch.kind.shape[1], device=real.device).expand_as(real)
    where = position.new_zeros(batch.size, slots + 1)
    return where.scatter(1, batch.wearable_slot.masked_fill(~real, slots), position)[:, :slots]


def worn_slots(batch: Batch) -> Bool[Tensor, "B S"]:
    """Return which slots of the batch hold a worn hour."""
    slot = torch.arange(batch.wearable.shape[1], device=batch.wearable_slot.device)
    return slot < (batch.wearable_slot >= 0).sum(1, keepdim=True)
