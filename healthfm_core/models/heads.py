"""Heads: one linear map each, one parameter group each (``head/<name>``)."""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from healthfm_core.models.shape import ModelShape

NEXT_VISIT: Final = "next_visit"
LABEL: Final = "label"
HAZARD: Final = "hazard"
MASKED_CODES: Final = "masked_codes"
WEARABLE_RECONSTRUCTION: Final = "wearable_reconstruction"

RARE_LOGIT: Final = -3.0
"""Bias a head of rare outcomes starts from: about 5 %."""


LEAST_RATE: Final = 1e-4


def make_head(name: str, shape: ModelShape, width: int) -> nn.Linear:
    """Return the head called `name`, its output small and its bias at the outcome's rarity."""
    outputs = {
        NEXT_VISIT: shape.targets,
        LABEL: 1,
        HAZARD: shape.targets * shape.pieces,
        MASKED_CODES: shape.tokens,
        WEARABLE_RECONSTRUCTION: shape.windows * shape.features,
    }
    layer = nn.Linear(width, outputs[name])
    nn.init.normal_(layer.weight, std=0.1 * width**-0.5)
    rare = name in (NEXT_VISIT, LABEL, HAZARD)
    nn.init.constant_(layer.bias, RARE_LOGIT if rare else 0.0)
    if name == NEXT_VISIT and shape.target_rates:
        rates = torch.tensor(shape.target_rates, dtype=torch.float32)
        layer.bias.data.copy_(torch.logit(rates.clamp(LEAST_RATE, 1 - LEAST_RATE)))
    return layer


def heads_for(
    *, next_visit: bool, time_to_event: bool, reconstruction: bool, label: bool, wearable: bool
) -> tuple[str, ...]:
    """Return the heads a study's objectives need, in the order of their definition."""
    wanted = {
        NEXT_VISIT: next_visit,
        LABEL: label,
        HAZARD: time_to_event,
        MASKED_CODES: reconstruction,
        WEARABLE_RECONSTRUCTION: reconstruction and wearable,
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)
