"""What each code's values will be in the hours to come, forecast from the state at an early query.

Of every code the next hours' mean, lowest, highest, first and last value, and how many there are:
what the code does tomorrow is a label that every record has, so a network can learn a patient's
state where nobody has written down an outcome. On PhysioNet 2012 it is this, of all that was tried,
that pays where labels are few (docs/decisions/0036, 0042).
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import SPREAD
from healthfm_core.modalities.ehr import EHR
from healthfm_core.models.code_summaries import summaries_of
from healthfm_core.models.heads import HeadSpec, output_layer
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.objective import Objective, PassOutputs, forecast_share

VALUES: Final = len(SPREAD) - 1
"""Numbers of a code that only its values give; the last number, how many, is always known."""

FURTHEST: Final = 3.0
"""A value further out than this, in standard deviations squashed by asinh, is asked as this one."""


def value_forecast_loss(
    said_BCn: Float[Tensor, "B C n"],
    wanted_BCn: Float[Tensor, "B C n"],
    valued_BC: Bool[Tensor, "B C"],
) -> Float[Tensor, " B"]:
    """Return each subject's mean squared error of values that come, and of how many do.

    Args:
        said_BCn: Forecast of each code's numbers (`sequences.SPREAD`).
        wanted_BCn: What came.
        valued_BC: Which codes came with values; of the others the count alone is asked.
    """
    values, counts = wanted_BCn[..., :VALUES].clamp(-FURTHEST, FURTHEST), wanted_BCn[..., VALUES]
    error = (said_BCn[..., :VALUES] - values).square() * valued_BC.unsqueeze(-1)
    asked = VALUES * valued_BC.sum(1)
    of_counts = (said_BCn[..., VALUES] - counts).square().mean(1)
    return error.sum((1, 2)) / asked.clamp_min(1) + of_counts


def later_numbers(batch: Batch, codes: int) -> tuple[Float[Tensor, "B C n"], Bool[Tensor, "B C"]]:
    """Return what comes of each code in the hours after each row's query, and which have values."""
    found = summaries_of(batch.later_code, batch.later_spread, batch.later_code > 0, codes)
    valued = torch.zeros(found.shape[:2], device=found.device)
    valued = valued.scatter_add(1, batch.later_code, batch.later_has_value.to(valued.dtype))
    return found[..., 1:], valued > 0


def _head(shape: ModelShape, width: int) -> nn.Module:
    """Return a head with the numbers of every code side by side."""
    return output_layer(width, shape.codes * len(SPREAD))


def _loss(seen: PassOutputs) -> Float[Tensor, " B"]:
    wanted, valued = later_numbers(seen.batch, seen.model.shape.codes)
    said = seen.model.head("value_forecast", seen.states, seen.batch)[:, 0]
    loss = value_forecast_loss(said.view(*valued.shape, -1), wanted, valued)
    return loss * seen.batch.query_mask[:, 0]


VALUE_FORECAST: Final = Objective(
    name="value_forecast",
    head=HeadSpec(_head),
    loss=_loss,
    query="early",
    modality=EHR,
    share=forecast_share,
)
