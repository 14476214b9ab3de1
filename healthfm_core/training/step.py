"""One optimisation step: batches in, per-subject losses, clipped update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeGuard

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from healthfm_core.config import TrainConfig
from healthfm_core.config.train import Learns
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.loader import Query
from healthfm_core.federation.parameter_groups import is_learning
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.wearable import WEARABLES
from healthfm_core.models import HealthFM
from healthfm_core.models.decay import DecayRates
from healthfm_core.models.heads import CODING_HOURS
from healthfm_core.objectives import (
    Hidden,
    cross_modal,
    hide,
    hours_ahead,
    label,
    masked_codes,
    masked_wearing,
    next_event,
    next_events,
    next_visit,
    predictive_coding,
    time_to_event,
)

SEP_QUERY: Final = "sep"
NOW_QUERY: Final = "now"
LABEL_QUERY: Final = "label"
WORN_QUERY: Final = "worn"

EPS: Final = 1e-8
SPEED: Final = "speed"
"""Option of the optimiser's groups: their learning rate as a multiple of the round's."""


@dataclass(frozen=True)
class StepLosses:
    """Losses of one batch: the weighted sum per subject, and each objective's mean.

    Attributes:
        per_subject: Σ_m λ_m L_m for each of the B subjects.
        means: Mean over subjects of each objective, unweighted, without gradients.
    """

    per_subject: Float[Tensor, " B"]
    means: dict[str, Float[Tensor, ""]]


def queries_for(config: TrainConfig) -> tuple[Query, ...]:
    """Return the kinds of row the objectives read: one batch of each per step."""
    weights = config.objectives
    wanted: dict[Query, bool] = {
        SEP_QUERY: weights.next_visit > 0 or weights.next_event > 0,
        NOW_QUERY: weights.time_to_event > 0,
        LABEL_QUERY: weights.label > 0,
        WORN_QUERY: weights.cross_modal > 0,
    }
    kinds = tuple(name for name, is_wanted in wanted.items() if is_wanted)
    return kinds or (NOW_QUERY,)


Parts = dict[str, tuple[float, Tensor]]
"""Objective → its weight and its loss per subject."""


def losses(
    model: HealthFM,
    batch: Batch,
    query: Query,
    config: TrainConfig,
    generator: torch.Generator,
    *,
    leads: bool = True,
) -> StepLosses:
    """Return the losses of the objectives that read rows of kind `query`.

    Args:
        model: The site's.
        batch: Rows of that kind.
        query: The kind.
        config: Weights and settings, those of the round.
        generator: Draws what is hidden.
        leads: Whether what asks nothing of its own (masked reconstruction, predictive coding)
            reads these rows; one kind of the step's does.
    """
    parts = (
        _read(model, batch, query, config, generator, leads) if _reads(query, config, leads) else {}
    )
    if query == SEP_QUERY and config.objectives.next_event > 0 and "next_event" in model.heads:
        parts["next_event"] = (config.objectives.next_event, _next_event(model, batch))
    nothing = batch.t_days.new_zeros(batch.size)
    total = sum((weight * loss for weight, loss in parts.values()), nothing)
    return StepLosses(total, {name: loss.detach().mean() for name, (_, loss) in parts.items()})


def _reads(query: Query, config: TrainConfig, leads: bool) -> bool:
    """Whether anything but the next event is asked of rows of this kind."""
    return leads or query != SEP_QUERY or config.objectives.next_visit > 0


def _read(
    model: HealthFM,
    batch: Batch,
    query: Query,
    config: TrainConfig,
    generator: torch.Generator,
    leads: bool,
) -> Parts:
    """Return the losses of one pass over the rows, read as they are but for what is hidden."""
    hidden = _hidden(model, batch, config, generator) if leads else None
    wanted = [batch.query]
    if hidden:
        wanted.append(hidden.position)
    if leads and model.heads_of_wearing:
        wanted.append(wearable_positions(batch))
    states = model(hidden.batch if hidden else batch, torch.cat(wanted, dim=1))
    asked, *rest = states.split([positions.shape[1] for positions in wanted], dim=1)
    parts = _asked(model, asked, batch, query, config)
    if hidden and "masked_codes" in model.heads:
        loss = masked_codes(model.head("masked_codes", rest[0], batch), hidden)
        parts["masked_codes"] = (config.objectives.masked_reconstruction, loss)
    if leads and model.heads_of_wearing:
        parts |= _of_wearing(model, rest[-1], batch, hidden, config)
    return parts


def _hidden(
    model: HealthFM, batch: Batch, config: TrainConfig, generator: torch.Generator
) -> Hidden | None:
    if config.objectives.masked_reconstruction == 0:
        return None
    return hide(
        batch,
        mask_token=model.shape.mask_token,
        fraction=config.mask_fraction,
        of_wearing=config.mask_wearing,
        channels=model.shape.channels,
        generator=generator,
    )


def _asked(
    model: HealthFM, states: Tensor, batch: Batch, query: Query, config: TrainConfig
) -> Parts:
    """Return the losses of what the rows' own queries are asked."""
    weights = config.objectives
    if query == SEP_QUERY and weights.next_visit > 0:
        loss = next_visit(
            model.head("next_visit", states, batch),
            batch,
            repeat_decay=config.repeat_decay,
            weighting=config.repeat_weighting,
        )
        return {"next_visit": (weights.next_visit, loss)}
    if query == NOW_QUERY and weights.time_to_event > 0:
        logits = model.head("hazard", states, batch)
        loss = time_to_event(logits, batch, edges_days=config.horizons_days)
        return {"time_to_event": (weights.time_to_event, loss)}
    if query == LABEL_QUERY:
        return {"label": (weights.label, label(model.head("label", states, batch), batch))}
    if query == WORN_QUERY and "cross_modal" in model.heads:
        logits = model.head("cross_modal", states, batch)
        loss = cross_modal(logits, batch, horizons_days=config.cross_horizons_days)
        return {"cross_modal": (weights.cross_modal, loss)}
    return {}


def _of_wearing(
    model: HealthFM, states: Tensor, batch: Batch, hidden: Hidden | None, config: TrainConfig
) -> Parts:
    """Return the losses of what the states at worn hours tell of the wearing itself."""
    weights, parts = config.objectives, Parts()
    if hidden and "wearable_reconstruction" in model.heads:
        worn = model.head("wearable_reconstruction", states, batch)
        loss = masked_wearing(worn.reshape(batch.wearable.shape), batch, hidden)
        parts["masked_wearing"] = (weights.masked_reconstruction, loss)
    if weights.predictive_coding > 0 and "predictive_coding" in model.heads:
        at = wearable_positions(batch)
        ahead, known = hours_ahead(batch.t_days.gather(1, at), _worn(batch), CODING_HOURS)
        said = model.head("predictive_coding", states, batch)
        with torch.no_grad():
            latent = model.encoders[WEARABLES](batch)
        said = said.reshape(*known.shape, -1)
        loss = predictive_coding(said, latent, ahead, known)
        parts["predictive_coding"] = (weights.predictive_coding, loss)
    return parts


def _next_event(model: HealthFM, batch: Batch) -> Float[Tensor, " B"]:
    """Return the loss of the next event at every position, the record read from left to right."""
    asked = next_events(batch)
    return next_event(model.head("next_event", model(asked.batch), batch, asked.gap), asked)


def _worn(batch: Batch) -> Bool[Tensor, "B S"]:
    """Return which slots of the batch hold a worn hour."""
    slot = torch.arange(batch.wearable.shape[1], device=batch.wearable_slot.device)
    return slot < (batch.wearable_slot >= 0).sum(1, keepdim=True)


def wearable_positions(batch: Batch) -> Int64[Tensor, "B S"]:
    """Return the row positions of the wearable tokens, in the order of the batch's slots."""
    slots = batch.wearable.shape[1]
    real = batch.wearable_slot >= 0
    position = torch.arange(batch.kind.shape[1], device=real.device).expand_as(real)
    where = position.new_zeros(batch.size, slots + 1)
    return where.scatter(1, batch.wearable_slot.masked_fill(~real, slots), position)[:, :slots]


def optimizer_for(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW; only matrices of linear maps decay, not embeddings, norms, biases or rates."""
    found: dict[tuple[float, float, float], list[nn.Parameter]] = {}
    rates = [m.log_rate.weight for m in model.modules() if _is_decay(m)]
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_matrix = isinstance(module, nn.Linear) and name == "weight"
            speed, eps = 1.0, EPS
            if any(parameter is rate for rate in rates):
                speed = config.lr_half_lives
            elif path.endswith(".evidence"):
                speed, eps = config.lr_evidence, config.eps_evidence
            if parameter.requires_grad:
                decay = config.weight_decay if is_matrix else 0.0
                found.setdefault((decay, speed, eps), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "eps": eps, SPEED: speed}
            for (decay, speed, eps), parameters in found.items()
        ],
        lr=config.lr,
        betas=config.betas,
        fused=True,
    )


def beside_wearing(config: TrainConfig) -> dict[str, float]:
    """Return what of the modality dropout is different for rows that ask at worn hours."""
    return {WEARABLES: 0.0, EHR: config.cross_drop_ehr}


def freeze(model: nn.Module, learns: Learns) -> None:
    """Let only the parts that `learns` names learn; heads always do."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_learning(name, learns))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group, each at its own multiple."""
    for options in optimizer.param_groups:
        options["lr"] = rate * options[SPEED]


def _is_decay(module: nn.Module) -> TypeGuard[DecayRates]:
    return isinstance(module, DecayRates)
