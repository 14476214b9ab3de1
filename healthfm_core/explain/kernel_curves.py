"""What the attention kernel learned to remember: half-lives per layer and head."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from healthfm_core.arrays import Float64
from healthfm_core.models import HealthFM
from healthfm_core.models.backbone import Block
from healthfm_core.models.decay import HALF_LIFE_MAX_DAYS


@dataclass(frozen=True)
class HeadMemory:
    """One head's kernel K(Δ) = Σ w · 2^(−Δ / half-life).

    Attributes:
        layer: 0 for the first.
        head: Likewise.
        half_life_days: Of its components, the shortest first; infinite for one without decay.
        weight: Of the same, together 1.
        half_at_days: Δ at which K is ½; infinite where it never gets there.
    """

    layer: int
    head: int
    half_life_days: tuple[float, ...]
    weight: tuple[float, ...]
    half_at_days: float


def memories(model: HealthFM) -> tuple[HeadMemory, ...]:
    """Return every head's kernel; none where the attention has no kernel."""
    heads = []
    for layer, block in enumerate(cast("list[Block]", list(model.backbone.blocks))):
        if block.variant == "none":
            continue
        with torch.no_grad():
            rate, weight = block.decay(torch.zeros(1, device=model.device))
        half_life = math.log(2) / rate[0].double().cpu().numpy()
        half_life[half_life > 2 * HALF_LIFE_MAX_DAYS] = np.inf
        shares = weight[0].double().cpu().numpy()
        for head, (days, share) in enumerate(zip(half_life, shares, strict=True)):
            heads.append(_head(layer, head, days, share))
    return tuple(heads)


def _head(layer: int, head: int, days: Float64, weight: Float64) -> HeadMemory:
    order = np.argsort(days, kind="stable")
    days, weight = days[order], weight[order] / weight.sum()
    own = half_at_days(days, weight)
    return HeadMemory(layer, head, tuple(days.tolist()), tuple(weight.tolist()), own)


def half_at_days(half_life_days: Float64, weight: Float64) -> float:
    """Return Δ at which Σ w · 2^(−Δ / half-life) is ½, by bisection; it falls as Δ grows."""
    if weight[np.isinf(half_life_days)].sum() >= 0.5:
        return math.inf
    low, high = 0.0, 1.0
    while _kernel(high, half_life_days, weight) > 0.5:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        above = _kernel(middle, half_life_days, weight) > 0.5
        low, high = (middle, high) if above else (low, middle)
    return high


def _kernel(days: float, half_life_days: Float64, weight: Float64) -> float:
    return float(weight @ np.exp2(-days / half_life_days))
