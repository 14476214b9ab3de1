"""What a kernel has become, as numbers to watch: half-lives, effective context, the floor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, cast

import torch
from jaxtyping import Float
from torch import Tensor

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.models.backbone import Backbone, Block
from healthfm_core.models.decay import HALF_LIFE_MAX_DAYS, HALF_LIFE_MIN_DAYS

HALF_LIFE_METRICS: Final = ("min", "median", "max")


def half_life_metrics(layers: int) -> list[str]:
    """Return the names of what `half_life_monitors` gives for a model of so many layers."""
    return [_half_life(layer, name) for layer in range(layers) for name in HALF_LIFE_METRICS]


def context_metrics(config: ModelConfig) -> list[str]:
    """Return the names of what `context_monitors` gives for such a model."""
    names = (_context, _floor) if config.floor else (_context,)
    return [name(layer) for name in names for layer in range(config.layers)]


def _half_life(layer: int, name: str) -> str:
    return f"layer{layer}/half_life_{name}_days"


def _context(layer: int) -> str:
    return f"layer{layer}/effective_context_days"


def _floor(layer: int) -> str:
    return f"layer{layer}/floor_weight"


@torch.no_grad()
def context_monitors(
    backbone: Backbone, x: Float[Tensor, "B T d"], batch: Batch
) -> dict[str, float]:
    """Return each layer's effective context in days, and the weight of its floor if it has one.

    Args:
        backbone: In evaluation mode.
        x: What the encoders make of the batch.
        batch: A few rows; what is returned is a mean over all their tokens.
    """
    monitors: dict[str, float] = {}
    x = backbone.embed(x, batch)
    for layer, block in enumerate(cast(Iterable[Block], backbone.blocks)):
        monitors[_context(layer)] = float(block.effective_context(x, batch))
        if block.decay.floor:
            weights = block.decay.logit.weight.softmax(-1)
            monitors[_floor(layer)] = float(weights[..., 0].mean())
        x = block(x, batch)
    return monitors


def all_half_lives(backbone: Backbone) -> list[list[float]]:
    """Return every half-life in days, a list of H · R per layer."""
    return [
        (math.log(2) / cast(Block, block).decay.log_rate.weight.detach().exp())
        .clamp(HALF_LIFE_MIN_DAYS, HALF_LIFE_MAX_DAYS)
        .flatten()
        .tolist()
        for block in backbone.blocks
    ]


def half_life_monitors(backbone: Backbone) -> dict[str, float]:
    """Return min, median and max half-life in days of each layer, as metrics by name.

    All below a week, or all above ten years, is one failure in two directions: the kernel decayed
    to zero, or to a constant.
    """
    monitors: dict[str, float] = {}
    for layer, days in enumerate(map(sorted, all_half_lives(backbone))):
        values = (days[0], days[len(days) // 2], days[-1])
        for name, value in zip(HALF_LIFE_METRICS, values, strict=True):
            monitors[_half_life(layer, name)] = value
    return monitors
