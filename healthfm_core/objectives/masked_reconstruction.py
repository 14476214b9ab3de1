"""Hidden codes and hidden wearing, told from what is left (arXiv 2601.12227)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from healthfm_core.data.batch import Batch
from healthfm_core.data.sequences import EVENT


@dataclass(frozen=True)
class Hidden:
    """What was hidden from a batch.

    Attributes:
        batch: The batch with the chosen codes replaced by MASK and the chosen windows unobserved.
        position: Positions of the hidden codes, M per row.
        token: The tokens that stood there.
        counted: Which of the M are real.
        window: Observed wearable cells that were hidden.
    """

    batch: Batch
    position: Int64[Tensor, "B M"]
    token: Int64[Tensor, "B M"]
    counted: Bool[Tensor, "B M"]
    window: Bool[Tensor, "B S W F"]


def hide(batch: Batch, *, mask_token: int, fraction: float, generator: torch.Generator) -> Hidden:
    """Hide a `fraction` of each subject's clinical tokens and of its wearable windows.

    `generator` is one of the CPU's, so that the same seed hides the same on any device.
    """
    is_event = batch.kind == EVENT
    device = batch.kind.device
    order = torch.rand(batch.kind.shape, generator=generator).to(device)
    order = order.masked_fill(~is_event, -1.0)
    wanted = torch.ceil(is_event.sum(1) * fraction).long()
    most = max(1, math.ceil(batch.kind.shape[1] * fraction))
    drawn, position = order.topk(min(most, order.shape[1]), dim=1)
    place = torch.arange(drawn.shape[1], device=device)
    counted = (place[None] < wanted[:, None]) & (drawn >= 0)
    token = batch.token.gather(1, position)
    chosen = torch.zeros_like(is_event).scatter(1, position, counted)
    windows = torch.rand(batch.wearable.shape[:3], generator=generator) < fraction
    window = batch.wearable_mask & windows.to(device).unsqueeze(-1)
    hidden = replace(
        batch,
        token=batch.token.masked_fill(chosen, mask_token),
        code=batch.code.masked_fill(chosen, 0),
        has_value=batch.has_value & ~chosen,
        wearable_mask=batch.wearable_mask & ~window,
        wearable=batch.wearable.masked_fill(window, 0.0),
    )
    return Hidden(hidden, position, token, counted, window)


def masked_codes(logits_BMK: Float[Tensor, "B M K"], hidden: Hidden) -> Float[Tensor, " B"]:
    """Return each subject's mean cross-entropy over its hidden codes."""
    loss = nn.functional.cross_entropy(logits_BMK.transpose(1, 2), hidden.token, reduction="none")
    return (loss * hidden.counted).sum(1) / hidden.counted.sum(1).clamp_min(1)


def masked_wearing(
    decoded_BSWF: Float[Tensor, "B S W F"], original: Batch, hidden: Hidden
) -> Float[Tensor, " B"]:
    """Return each subject's mean squared error over cells that were observed and then hidden."""
    error = (decoded_BSWF - original.wearable).square() * hidden.window
    return error.sum((1, 2, 3)) / hidden.window.sum((1, 2, 3)).clamp_min(1)
