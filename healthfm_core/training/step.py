"""One optimisation step: batches in, per-subject losses, clipped update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from healthfm_core.config import TrainConfig
from healthfm_core.data.batch import Batch
from healthfm_core.data.loader import Query
from healthfm_core.models import HealthFM
from healthfm_core.objectives import (
    hide,
    label,
    masked_codes,
    masked_wearing,
    next_visit,
    time_to_event,
)

SEP_QUERY: Final = "sep"
NOW_QUERY: Final = "now"
LABEL_QUERY: Final = "label"


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
        SEP_QUERY: weights.next_visit > 0,
        NOW_QUERY: weights.time_to_event > 0,
        LABEL_QUERY: weights.label > 0,
    }
    kinds = tuple(name for name, is_wanted in wanted.items() if is_wanted)
    return kinds or (NOW_QUERY,)


def losses(
    model: HealthFM,
    batch: Batch,
    query: Query,
    config: TrainConfig,
    generator: torch.Generator,
) -> StepLosses:
    """Return the losses of the objectives that read rows of kind `query`.

    Masked reconstruction reads whatever rows the first other objective reads.
    """
    weights = config.objectives
    parts: dict[str, tuple[float, Tensor]] = {}
    hidden = None
    if weights.masked_reconstruction > 0 and query == queries_for(config)[0]:
        hidden = hide(
            batch,
            mask_token=model.shape.mask_token,
            fraction=config.mask_fraction,
            generator=generator,
        )
    wanted = [batch.query]
    if hidden:
        wanted += [hidden.position, wearable_positions(batch)]
    states = model(hidden.batch if hidden else batch, torch.cat(wanted, dim=1))
    asked, *rest = states.split([positions.shape[1] for positions in wanted], dim=1)
    if query == SEP_QUERY:
        loss = next_visit(
            model.head("next_visit", asked, batch),
            batch,
            repeat_decay=config.repeat_decay,
            weighting=config.repeat_weighting,
        )
        parts["next_visit"] = (weights.next_visit, loss)
    if query == NOW_QUERY and weights.time_to_event > 0:
        loss = time_to_event(
            model.head("hazard", asked, batch), batch, edges_days=config.horizons_days
        )
        parts["time_to_event"] = (weights.time_to_event, loss)
    if query == LABEL_QUERY:
        parts["label"] = (weights.label, label(model.head("label", asked, batch), batch))
    if hidden and "masked_codes" in model.heads:
        loss = masked_codes(model.head("masked_codes", rest[0], batch), hidden)
        parts["masked_codes"] = (weights.masked_reconstruction, loss)
    if hidden and "wearable_reconstruction" in model.heads:
        worn = model.head("wearable_reconstruction", rest[1], batch)
        decoded = worn.reshape(batch.wearable.shape)
        loss = masked_wearing(decoded, batch, hidden)
        parts["masked_wearing"] = (weights.masked_reconstruction, loss)
    nothing = batch.t_days.new_zeros(batch.size)
    total = sum((weight * loss for weight, loss in parts.values()), nothing)
    return StepLosses(total, {name: loss.detach().mean() for name, (_, loss) in parts.items()})


def wearable_positions(batch: Batch) -> Int64[Tensor, "B S"]:
    """Return the row positions of the wearable tokens, in the order of the batch's slots."""
    slots = batch.wearable.shape[1]
    real = batch.wearable_slot >= 0
    position = torch.arange(batch.kind.shape[1], device=real.device).expand_as(real)
    where = position.new_zeros(batch.size, slots + 1)
    return where.scatter(1, batch.wearable_slot.masked_fill(~real, slots), position)[:, :slots]


def optimizer_for(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW; only matrices of linear maps decay, not embeddings, norms, biases or rates."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_matrix = isinstance(module, nn.Linear) and name == "weight"
            (decayed if is_matrix else kept).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=config.betas,
        fused=True,
    )


def proximal(model: nn.Module, start: Mapping[str, Tensor], mu: float) -> Float[Tensor, ""]:
    """Return FedProx's term as ½µ times the **mean** squared distance to the global model.

    The mean, not the sum: µ then means the same for a model of any size.
    """
    squares = [
        (parameter - start[name]).square().sum() for name, parameter in model.named_parameters()
    ]
    size = sum(parameter.numel() for parameter in model.parameters())
    return 0.5 * mu * torch.stack(squares).sum() / size
