"""Heads: one linear map each, one parameter group each (``head/<name>``)."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from healthfm_core.config.train import ObjectivesConfig
from healthfm_core.models.gaps import GAP_BINS
from healthfm_core.models.shape import ModelShape

NEXT_VISIT: Final = "next_visit"
LABEL: Final = "label"
HAZARD: Final = "hazard"
MASKED_CODES: Final = "masked_codes"
WEARABLE_RECONSTRUCTION: Final = "wearable_reconstruction"
NEXT_EVENT: Final = "next_event"
PREDICTIVE_CODING: Final = "predictive_coding"
CROSS_MODAL: Final = "cross_modal"

RECURRING: Final = (NEXT_VISIT, HAZARD, CROSS_MODAL)
"""Heads that are told how often each target occurred before."""

CODING_HOURS: Final = (1, 3, 6, 24)
"""How many hours ahead predictive coding looks."""

RARE_LOGIT: Final = -3.0
"""Bias a head of rare outcomes starts from: about 5 %."""


LEAST_RATE: Final = 1e-4
MOST_REPEATS: Final = 8
"""A code seen in more earlier visits than this counts as seen in this many."""

RECURRENCE_SCALE: Final = 10.0
"""Logits per unit of the table: under Adam its steps are this many times the backbone's, which
needs small ones to learn what is new."""


class RecurringHead(nn.Module):
    """Logits of things that recur, with a table of how each one does.

    The table (ours) gives every target an offset by the number of earlier visits that held it, so
    that recurrence is learned in a few steps and the backbone's state is left to say what is new.

    Args:
        width: d.
        targets: V.
        each: Outputs of each target: one, or one per piece of time.
    """

    def __init__(self, width: int, targets: int, each: int = 1) -> None:
        super().__init__()
        self.state = nn.Linear(width, targets * each)
        self.recurrence = nn.Embedding(targets * (MOST_REPEATS + 1), 1)
        nn.init.zeros_(self.recurrence.weight)
        self.targets = targets
        self.each = each

    @property
    def out_features(self) -> int:
        """Outputs of all targets together."""
        return self.targets * self.each

    def forward(
        self, states_BQd: Float[Tensor, "B Q d"], repeats_BQV: Float[Tensor, "B Q V"]
    ) -> Float[Tensor, "B Q o"]:
        """Return logits, those of a target side by side."""
        seen = repeats_BQV.clamp_max(MOST_REPEATS).long()
        row = torch.arange(self.targets, device=seen.device) * (MOST_REPEATS + 1)
        offset = self.recurrence((row + seen).flatten(1)).view(repeats_BQV.shape)
        if self.each > 1:
            offset = offset.repeat_interleave(self.each, dim=-1)
        return self.state(states_BQd) + RECURRENCE_SCALE * offset


class NextEventHead(nn.Module):
    """How long until the next event, and, told that, which token it is (arXiv 2510.23639).

    Args:
        width: d.
        tokens: K.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.gap = nn.Linear(width, GAP_BINS)
        self.told = nn.Embedding(GAP_BINS, width)
        self.token = nn.Linear(width, tokens)
        for layer in (self.gap, self.token):
            nn.init.normal_(layer.weight, std=0.1 * width**-0.5)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.told.weight, std=width**-0.5)

    @property
    def out_features(self) -> int:
        """Gap bins and tokens together."""
        return GAP_BINS + self.token.out_features

    def forward(
        self, states_BQd: Float[Tensor, "B Q d"], gap_BQ: Int64[Tensor, "B Q"]
    ) -> Float[Tensor, "B Q GK"]:
        """Return logits of the gap's bin, then of the token given that the gap is in `gap_BQ`."""
        tokens = self.token(states_BQd + self.told(gap_BQ))
        return torch.cat([self.gap(states_BQd), tokens], dim=-1)


Head = nn.Linear | RecurringHead | NextEventHead


def make_head(name: str, shape: ModelShape, width: int) -> Head:
    """Return the head called `name`, its output small and its bias at the outcome's rarity."""
    if name == NEXT_EVENT:
        return NextEventHead(width, shape.tokens)
    each = {NEXT_VISIT: 1, HAZARD: shape.pieces, CROSS_MODAL: shape.cross_horizons}
    outputs = {
        LABEL: 1,
        MASKED_CODES: shape.tokens,
        WEARABLE_RECONSTRUCTION: shape.windows * shape.features,
        PREDICTIVE_CODING: len(CODING_HOURS) * width,
    }
    head = RecurringHead(width, shape.targets, each[name]) if name in RECURRING else None
    layer = head.state if head else nn.Linear(width, outputs[name])
    nn.init.normal_(layer.weight, std=0.1 * width**-0.5)
    rare = name in (*RECURRING, LABEL)
    nn.init.constant_(layer.bias, RARE_LOGIT if rare else 0.0)
    if name == NEXT_VISIT and shape.target_rates:
        rates = torch.tensor(shape.target_rates, dtype=torch.float32)
        layer.bias.data.copy_(torch.logit(rates.clamp(LEAST_RATE, 1 - LEAST_RATE)))
    if name == LABEL and shape.label_rate:
        nn.init.constant_(layer.bias, math.log(shape.label_rate / (1 - shape.label_rate)))
    return head or layer


def heads_for(
    weights: ObjectivesConfig, *, label: bool, modalities: Collection[str]
) -> tuple[str, ...]:
    """Return the heads that the objectives need of a site, in the order of their definition.

    Args:
        weights: The objectives.
        label: Whether there is a label to train on.
        modalities: What the site holds.
    """
    worn, coded = "wearable" in modalities, "ehr" in modalities
    wanted = {
        NEXT_VISIT: weights.next_visit > 0,
        LABEL: label and weights.label > 0,
        HAZARD: weights.time_to_event > 0,
        MASKED_CODES: weights.masked_reconstruction > 0 and coded,
        WEARABLE_RECONSTRUCTION: weights.masked_reconstruction > 0 and worn,
        NEXT_EVENT: weights.next_event > 0 and coded,
        PREDICTIVE_CODING: weights.predictive_coding > 0 and worn,
        CROSS_MODAL: weights.cross_modal > 0 and worn,
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)
