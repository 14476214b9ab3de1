"""Hidden codes and hidden wearing, told from what is left (arXiv 2601.12227)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import EVENT


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


def hide(
    batch: Batch,
    *,
    mask_token: int,
    fraction: float,
    of_wearing: float,
    channels: int,
    generator: torch.Generator,
) -> Hidden:
    """Hide a `fraction` of each subject's clinical tokens, and some `of_wearing`.

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
    window = batch.wearable_mask & _wearing_to_hide(batch, of_wearing, channels, generator)
    hidden = replace(
        batch,
        token=batch.token.masked_fill(chosen, mask_token),
        code=batch.code.masked_fill(chosen, 0),
        has_value=batch.has_value & ~chosen,
        spread=batch.spread.masked_fill(chosen.unsqueeze(-1), 0.0),
        wearable_mask=batch.wearable_mask & ~window,
        wearable=batch.wearable.masked_fill(window, 0.0),
    )
    return Hidden(hidden, position, token, counted, window)


def _wearing_to_hide(
    batch: Batch, share: float, channels: int, generator: torch.Generator
) -> Bool[Tensor, "B S W F"]:
    """Return the cells to hide: for each subject windows here and there, a stretch, or sensors.

    The artificial masks of LSM-2 (arXiv 2506.05321), one scheme per subject and step. What was not
    observed in the first place stays unobserved, and nothing is asked of it.
    """
    b, s, w, f = batch.wearable.shape
    draws = torch.rand(b, 2 + s * w + max(channels, 1), generator=generator)
    draws = draws.to(batch.wearable.device)
    scheme, start = draws[:, :1], draws[:, 1:2]
    windows, sensors = draws[:, 2 : 2 + s * w], draws[:, 2 + s * w :]
    observed = batch.wearable_mask.any(-1).flatten(1)
    length = observed.sum(1, keepdim=True)
    place = observed.cumsum(1) - 1
    first = start * (length * (1 - share)).clamp_min(0)
    stretch = (place >= first) & (place < first + share * length)
    here = (windows < share).view(b, s, w, 1)
    some = (sensors < share).repeat_interleave(f // max(channels, 1), dim=1).view(b, 1, 1, f)
    which = (scheme * 3).long().view(b, 1, 1, 1)
    hidden = torch.where(which == 0, here, torch.where(which == 1, stretch.view(b, s, w, 1), some))
    return hidden.expand(b, s, w, f)


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
