"""What a step asks of the model: passes over rows, and the losses of the objectives in each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.loader import QUERIES, Query
from healthfm_core.modalities.registry import specs
from healthfm_core.models import HealthFM
from healthfm_core.objectives import OBJECTIVES, Objective, PassOutputs, trained
from healthfm_core.objectives.input_masking import MaskedInputs, mask_inputs, masked_positions
from healthfm_core.objectives.objective import Positions, query_positions


@dataclass(frozen=True)
class ForwardPass:
    """One pass through the model: over which rows, and what is learned from it.

    Attributes:
        query: Kind of row.
        objectives: Those whose losses it gives, at a model that has their heads; in a pass of its
            own, one alone.
    """

    query: Query
    objectives: tuple[Objective, ...]

    def trains(self, parameter: str) -> bool:
        """Whether the parameter called so gets a gradient: all do but other objectives' heads."""
        first, second = parameter.split(".")[:2]
        return first != "heads" or second in {objective.name for objective in self.objectives}


@dataclass(frozen=True)
class BatchLosses:
    """Losses of one batch: the weighted sum per subject, and each objective's mean.

    Attributes:
        per_subject: Σ_m λ_m L_m for each of the B subjects.
        means: Mean over subjects of each objective, unweighted, without gradients, by the name of
            its metric.
    """

    per_subject: Float[Tensor, " B"]
    means: dict[str, Float[Tensor, ""]]


def queries_for(config: TrainConfig) -> tuple[Query, ...]:
    """Return the kinds of row the objectives read: one batch of each per step."""
    asked = {objective.query for objective in trained(config.objectives)}
    return tuple(query for query in QUERIES if query in asked) or ("now",)


def passes_for(
    config: TrainConfig, queries: Sequence[Query] | None = None
) -> tuple[ForwardPass, ...]:
    """Return the passes of a step: one per kind of row, then one per objective that needs its own.

    What asks nothing of its own (masked inputs, predictive coding) is trained on the first kind.

    Args:
        config: Training settings of the round.
        queries: Kinds of row at hand; None: all that the objectives read.
    """
    queries = queries_for(config) if queries is None else queries
    wanted = trained(config.objectives)
    companions = [objective for objective in wanted if objective.query is None]
    passes = []
    for place, query in enumerate(queries):
        is_primary = place == 0
        asking = [o for o in wanted if o.query == query and o.own_view is None]
        if asking or is_primary:
            passes.append(ForwardPass(query, (*asking, *(companions if is_primary else ()))))
    own = [objective for objective in wanted if objective.own_view is not None]
    passes += [ForwardPass(query, (o,)) for o in own for query in queries if o.query == query]
    return tuple(passes)


def private_passes(config: TrainConfig, heads: Collection[str]) -> tuple[ForwardPass, ...]:
    """Return the passes that train a head of a model with `heads`, whatever the data hold.

    Under differential privacy each of them is a kind of step: a person's row is read once.
    """
    return tuple(
        part for part in passes_for(config) if any(o.name in heads for o in part.objectives)
    )


def input_dropout(query: Query, config: TrainConfig) -> dict[str, float]:
    """Return modality → probability with which it is dropped from a row.

    A modality without a setting of its own (``train.drop_<name>``) is never left out.
    """
    dropped = {spec.name: float(getattr(config, f"drop_{spec.name}", 0.0)) for spec in specs()}
    for objective in OBJECTIVES:
        if objective.query == query and objective.input_dropout is not None:
            dropped |= objective.input_dropout(config)
    return dropped


def losses(
    model: HealthFM,
    batch: Batch,
    passes: Sequence[ForwardPass],
    config: TrainConfig,
    masks: torch.Generator,
) -> BatchLosses:
    """Return the losses of `passes` over one batch, whose rows are of their kind.

    Args:
        model: The site's.
        batch: The rows.
        passes: Passes over them.
        config: Weights and settings, those of the round.
        masks: Draws what is masked.
    """
    parts: dict[Objective, Tensor] = {}
    for part in passes:
        own = part.objectives[0].own_view if part.objectives else None
        if own is None:
            parts |= _shared_pass(model, batch, part, config, masks)
        else:
            parts |= _own_pass(model, batch, part.objectives[0], config)
    nothing = batch.t_days.new_zeros(batch.size)
    weighted = (objective.weight(config.objectives) * loss for objective, loss in parts.items())
    means = {objective.loss_metric: loss.detach().mean() for objective, loss in parts.items()}
    return BatchLosses(sum(weighted, nothing), means)


def _own_pass(
    model: HealthFM, batch: Batch, objective: Objective, config: TrainConfig
) -> dict[Objective, Tensor]:
    """Return the loss of an objective that reads the batch in a view of its own."""
    if objective.name not in model.heads or objective.own_view is None:
        return {}
    states = model(objective.own_view(batch))
    return {objective: objective.loss(PassOutputs(model, states, batch, None, config))}


def _shared_pass(
    model: HealthFM,
    batch: Batch,
    part: ForwardPass,
    config: TrainConfig,
    masks: torch.Generator,
) -> dict[Objective, Tensor]:
    """Return the losses of one pass over the rows, read as they are but for what is masked."""
    masked = _masked(model, batch, part, config, masks)
    objectives = [o for o in part.objectives if o.name in model.heads]
    wanted: dict[Positions, Tensor] = {query_positions: batch.query}
    if masked is not None:
        wanted[masked_positions] = masked.position
    for objective in objectives:
        if objective.positions not in wanted:
            wanted[objective.positions] = objective.positions(batch, masked)
    states = model(batch if masked is None else masked.batch, torch.cat([*wanted.values()], dim=1))
    sizes = [positions.shape[1] for positions in wanted.values()]
    states_at = dict(zip(wanted, states.split(sizes, dim=1), strict=True))
    return {
        o: o.loss(PassOutputs(model, states_at[o.positions], batch, masked, config))
        for o in objectives
    }


def _masked(
    model: HealthFM,
    batch: Batch,
    part: ForwardPass,
    config: TrainConfig,
    masks: torch.Generator,
) -> MaskedInputs | None:
    if not any(objective.masks_inputs for objective in part.objectives):
        return None
    return mask_inputs(
        batch,
        mask_token=model.shape.mask_token,
        fraction=config.mask_fraction,
        wearable_fraction=config.mask_wearable,
        channels=model.shape.channels,
        generator=masks,
    )
