"""Time to each target's next occurrence by piecewise-constant hazards (MOTOR, arXiv 2301.03150)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch
from healthfm_core.errors import RunError
from healthfm_core.models.heads import HeadSpec, RecurringHead
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.objective import Objective, PassOutputs, forecast_share

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


def time_to_event_loss(
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


def check_horizon(horizon_days: float, edges_days: Sequence[float], *, where: str) -> None:
    """Check that the hazard's pieces reach a horizon.

    Args:
        horizon_days: How far to look.
        edges_days: Ends of the pieces.
        where: Who asks, for the sentence.

    Raises:
        RunError: They end before it, or it is not ahead (HF-708).
    """
    last = max(edges_days)
    if not 0 < horizon_days <= last:
        raise RunError(
            708,
            where=where,
            seen=f"a horizon of {horizon_days:g} days is asked for",
            wanted=f"the model knows hazards from now to {last:g} days",
            do="Ask within them, or train with a further edge in train.horizons_days",
        )


def risk(
    logits_BQV: Float[Tensor, "B Q VK"],
    edges_days: Sequence[float],
    horizon_days: float,
    *,
    death: int | None = None,
    from_days: Float[Tensor, "B Q"] | None = None,
) -> Float[Tensor, "B Q V"]:
    """Return P(event within `horizon_days`), in closed form.

    Without competitor 1 − exp(−Σ hazard · width). With death as a competing cause a target occurs
    only to who is alive: Σ_k S(start of k) · h / (h + d) · (1 − exp(−(h + d) · width_k)), with S
    the probability that neither has come before.

    Args:
        logits_BQV: Log hazards per year, K pieces of each of V targets.
        edges_days: Ends of the pieces.
        horizon_days: How far to look.
        death: Which target is death; None where the study has none.
        from_days: When after each query the horizon begins, given that until then neither the
            target nor death came; None is at the query. What is later than the last edge counts
            as without any hazard, so that the caller has to see to it.

    Raises:
        RunError: No hazard is known so far ahead (HF-708).
    """
    check_horizon(horizon_days, edges_days, where="a risk by hazards")
    z = logits_BQV.reshape(*logits_BQV.shape[:2], -1, len(edges_days))
    ends = z.new_full(z.shape[:-1], horizon_days)
    years = piece_exposure(ends, edges_days)
    if from_days is not None:
        begin = from_days.to(z.dtype)[..., None].expand_as(ends)
        years = piece_exposure(begin + ends, edges_days) - piece_exposure(begin, edges_days)
    hazard = z.exp()
    if death is None:
        return -torch.expm1(-(hazard * years).sum(-1))
    competing = hazard[..., death : death + 1, :].expand_as(hazard)
    is_death = torch.arange(z.shape[2], device=z.device) == death
    both = hazard + competing.masked_fill(is_death[:, None], 0.0)
    spent = both * years
    alive = torch.exp(-(spent.cumsum(-1) - spent))
    return (alive * hazard / both.clamp_min(1e-30) * -torch.expm1(-spent)).sum(-1)


def _head(shape: ModelShape, width: int) -> nn.Module:
    """Return a head with one log hazard per target and piece of time."""
    return RecurringHead(width, shape.targets, shape.pieces)


def _loss(seen: PassOutputs) -> Float[Tensor, " B"]:
    logits = seen.model.head("time_to_event", seen.states, seen.batch)
    return time_to_event_loss(logits, seen.batch, edges_days=seen.config.horizons_days)


TIME_TO_EVENT: Final = Objective(
    name="time_to_event", head=HeadSpec(_head), loss=_loss, query="now", share=forecast_share
)
