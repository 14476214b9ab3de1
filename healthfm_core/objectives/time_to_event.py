"""Time to each target's next occurrence by piecewise-constant hazards (MOTOR, arXiv 2301.03150)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from healthfm_core.data.batch import Batch

YEAR_DAYS = 365.25


def piece_exposure(
    stop_days: Float[Tensor, "B Q V"], edges_days: Sequence[float]
) -> Float[Tensor, "B Q V K"]:
    """Return the years at risk in each piece, given how long the subject was followed.

    Args:
        stop_days: Days from the query to the event or to the end of the record.
        edges_days: Ends of the K pieces; what is later than the last is not counted.
    """
    ends = stop_days.new_tensor(edges_days)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    inside = stop_days.unsqueeze(-1).clamp_max(1e9) - starts
    return torch.minimum(inside.clamp_min(0), ends - starts) / YEAR_DAYS


def time_to_event(
    logits_BQV: Float[Tensor, "B Q VK"], batch: Batch, *, edges_days: Sequence[float]
) -> Float[Tensor, " B"]:
    """Return each subject's mean negative log-likelihood over its NOW queries and all targets.

    With z the log hazard per year in a piece: Σ_k e^z_k · years_k − z at the event's piece.
    The record's end censors; death, being a target itself, ends the record.
    """
    z = logits_BQV.reshape(*logits_BQV.shape[:2], -1, len(edges_days))
    stop = torch.minimum(batch.event_days, batch.exposure_days.unsqueeze(-1))
    years = piece_exposure(stop, edges_days)
    ends = stop.new_tensor(edges_days)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    event = batch.event_days.unsqueeze(-1)
    here = (event > starts) & (event <= ends) & (event <= batch.exposure_days[..., None, None])
    loss = (z.exp() * years - z * here).sum(-1)
    asked = batch.query_mask.sum(1).clamp_min(1) * loss.shape[-1]
    return (loss * batch.query_mask.unsqueeze(-1)).sum((1, 2)) / asked


def risk(
    logits_BQV: Float[Tensor, "B Q VK"], edges_days: Sequence[float], horizon_days: float
) -> Float[Tensor, "B Q V"]:
    """Return P(event within `horizon_days`) = 1 − exp(−Σ hazard · width), ignoring competitors."""
    z = logits_BQV.reshape(*logits_BQV.shape[:2], -1, len(edges_days))
    stop = z.new_full(z.shape[:-1], min(horizon_days, math.inf))
    return -torch.expm1(-(z.exp() * piece_exposure(stop, edges_days)).sum(-1))
