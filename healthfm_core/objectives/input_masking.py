"""Inputs that are masked at random: clinical codes and windows of the wearable."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import EVENT

LAST_SHARE: Final = 0.3
"""Share of its weight that reconstruction has in the last round of the staged curriculum."""


@dataclass(frozen=True)
class MaskedInputs:
    """What was masked of a batch.

    Attributes:
        batch: The batch with the chosen codes replaced by MASK and the chosen windows unobserved.
        position: Positions of the masked codes, M per row.
        token: The tokens that stood there.
        counted: Which of the M are real.
        cells: Observed wearable cells that were masked.
    """

    batch: Batch
    position: Int64[Tensor, "B M"]
    token: Int64[Tensor, "B M"]
    counted: Bool[Tensor, "B M"]
    cells: Bool[Tensor, "B S W F"]


def mask_inputs(
    batch: Batch,
    *,
    mask_token: int,
    fraction: float,
    wearable_fraction: float,
    channels: int,
    generator: torch.Generator,
) -> MaskedInputs:
    """Mask a `fraction` of each subject's clinical tokens, and a share of the wearable's windows.

    `generator` is one of the CPU's, so that the same seed masks the same on any device.
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
    cells = batch.wearable_mask & _cells_to_mask(batch, wearable_fraction, channels, generator)
    masked = replace(
        batch,
        token=batch.token.masked_fill(chosen, mask_token),
        code=batch.code.masked_fill(chosen, 0),
        has_value=batch.has_value & ~chosen,
        spread=batch.spread.masked_fill(chosen.unsqueeze(-1), 0.0),
        wearable_mask=batch.wearable_mask & ~cells,
        wearable=batch.wearable.masked_fill(cells, 0.0),
    )
    return MaskedInputs(masked, position, token, counted, cells)


def _cells_to_mask(
    batch: Batch, share: float, channels: int, generator: torch.Generator
) -> Bool[Tensor, "B S W F"]:
    """Return the cells to mask: for each subject windows here and there, a stretch, or sensors.

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
    masked = torch.where(which == 0, here, torch.where(which == 1, stretch.view(b, s, w, 1), some))
    return masked.expand(b, s, w, f)


def masked_positions(batch: Batch, masked: MaskedInputs | None) -> Int64[Tensor, "B M"]:
    """Return the positions of the codes that were masked."""
    return batch.query[:, :0] if masked is None else masked.position


def reconstruction_share(progress: float) -> float:
    """Return a share that falls from all to `LAST_SHARE` of the weight."""
    return 1 + (LAST_SHARE - 1) * progress
