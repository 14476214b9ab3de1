"""Heads: one linear map each, one parameter group each (``head/<name>``)."""

from __future__ import annotations

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.models.shape import ModelShape

NEXT_VISIT: Final = "next_visit"
LABEL: Final = "label"
HAZARD: Final = "hazard"
MASKED_CODES: Final = "masked_codes"
WEARABLE_RECONSTRUCTION: Final = "wearable_reconstruction"

RARE_LOGIT: Final = -3.0
"""Bias a head of rare outcomes starts from: about 5 %."""


LEAST_RATE: Final = 1e-4
MOST_REPEATS: Final = 8
"""A code seen in more earlier visits than this counts as seen in this many."""

RECURRENCE_SCALE: Final = 10.0
"""Logits per unit of the table: under Adam its steps are this many times the backbone's, which
needs small ones to learn what is new."""


class NextVisitHead(nn.Module):
    """Logits of the next visit's targets, with a table of how each one recurs.

    The table (ours) gives every target an offset by the number of earlier visits that held it, so
    that recurrence is learned in a few steps and the backbone's state is left to say what is new.

    Args:
        width: d.
        targets: V.
    """

    def __init__(self, width: int, targets: int) -> None:
        super().__init__()
        self.state = nn.Linear(width, targets)
        self.recurrence = nn.Embedding(targets * (MOST_REPEATS + 1), 1)
        nn.init.zeros_(self.recurrence.weight)
        self.targets = targets

    @property
    def out_features(self) -> int:
        """V."""
        return self.targets

    def forward(
        self, states_BQd: Float[Tensor, "B Q d"], repeats_BQV: Float[Tensor, "B Q V"]
    ) -> Float[Tensor, "B Q V"]:
        """Return logits."""
        seen = repeats_BQV.clamp_max(MOST_REPEATS).long()
        row = torch.arange(self.targets, device=seen.device) * (MOST_REPEATS + 1)
        offset = self.recurrence((row + seen).flatten(1))
        return self.state(states_BQd) + RECURRENCE_SCALE * offset.view(repeats_BQV.shape)


def make_head(name: str, shape: ModelShape, width: int) -> nn.Linear | NextVisitHead:
    """Return the head called `name`, its output small and its bias at the outcome's rarity."""
    outputs = {
        NEXT_VISIT: shape.targets,
        LABEL: 1,
        HAZARD: shape.targets * shape.pieces,
        MASKED_CODES: shape.tokens,
        WEARABLE_RECONSTRUCTION: shape.windows * shape.features,
    }
    head = NextVisitHead(width, shape.targets) if name == NEXT_VISIT else None
    layer = head.state if head else nn.Linear(width, outputs[name])
    nn.init.normal_(layer.weight, std=0.1 * width**-0.5)
    rare = name in (NEXT_VISIT, LABEL, HAZARD)
    nn.init.constant_(layer.bias, RARE_LOGIT if rare else 0.0)
    if name == NEXT_VISIT and shape.target_rates:
        rates = torch.tensor(shape.target_rates, dtype=torch.float32)
        layer.bias.data.copy_(torch.logit(rates.clamp(LEAST_RATE, 1 - LEAST_RATE)))
    if name == LABEL and shape.label_rate:
        nn.init.constant_(layer.bias, math.log(shape.label_rate / (1 - shape.label_rate)))
    return head or layer


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
