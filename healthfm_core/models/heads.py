"""What heads are made of; each objective builds its own (`objectives`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.models.shape import ModelShape

RARE_LOGIT: Final = -3.0
"""Bias a head of rare outcomes starts from: about 5 %."""

MOST_REPEATS: Final = 8
"""A code seen in more earlier visits than this counts as seen in this many."""

RECURRENCE_SCALE: Final = 10.0
"""Logits per unit of the table: under Adam its steps are this many times the backbone's, which
needs small ones to learn what is new."""


@dataclass(frozen=True)
class HeadSpec:
    """How an objective's head is built.

    Attributes:
        build: Gives the head for a shape and the backbone's width: a module from states to outputs
            with ``out_features``.
        adds_linear_logit: Whether its one output adds the model's linear logit, if it has one.
    """

    build: Callable[[ModelShape, int], nn.Module]
    adds_linear_logit: bool = False


def start_small(layer: nn.Linear, bias: float = 0.0) -> None:
    """Let an output layer start near 0, with `bias`."""
    nn.init.normal_(layer.weight, std=0.1 * layer.in_features**-0.5)
    nn.init.constant_(layer.bias, bias)


def output_layer(width: int, outputs: int, bias: float = 0.0) -> nn.Linear:
    """Return a linear map from states to `outputs` that starts near 0, with `bias`."""
    layer = nn.Linear(width, outputs)
    start_small(layer, bias)
    return layer


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
        start_small(self.state, bias=RARE_LOGIT)
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
