"""The plain gradient: the mean loss of a batch of each kind of row, clipped as a whole."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from healthfm_core.arrays import Float32Arrays
from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.loader import BatchLoader, Query
from healthfm_core.federation.parameter_groups import gradient_norm_metric, group_of
from healthfm_core.federation.protocol import RoundOrder
from healthfm_core.models import HealthFM
from healthfm_core.seeding import numpy_generator, seed_for, torch_generator
from healthfm_core.training.gradients.corrections import GradientTransform
from healthfm_core.training.gradients.local_gradient import change_metrics, parameter_change
from healthfm_core.training.optimizer import optimizer_for
from healthfm_core.training.passes import input_dropout, losses, passes_for, queries_for


class PlainGradient:
    """Gradient of the mean loss over a batch of each kind of row that the objectives ask.

    The whole round follows from the order's seed.

    Args:
        model: The site's.
        loader: Rows of the people it trains on.
        config: Training settings of the round.
        order: Which round.
    """

    def __init__(
        self, model: HealthFM, loader: BatchLoader, config: TrainConfig, order: RoundOrder
    ) -> None:
        torch.manual_seed(seed_for(order.seed, "dropout", order.round))
        self._model, self._config = model, config
        self._masks = torch_generator(order.seed, "masks", order.round)
        rows = {query: loader.n_rows(query) for query in queries_for(config)}
        self._batches = {
            query: _endless(loader, query, config, numpy_generator(order.seed, query, order.round))
            for query, n_rows in rows.items()
            if n_rows
        }
        self._passes = passes_for(config, tuple(self._batches))
        self._totals: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=model.device))
        steps = math.ceil(max(rows.values()) * config.local_epochs / config.batch_size)
        # 0 where the site has no row to train on
        self.steps = steps if config.max_steps is None else min(steps, config.max_steps)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW over what is trained."""
        return optimizer_for(self._model, self._config)

    def compute(self) -> None:
        """Leave the gradient of the next batch of each kind of row on the parameters."""
        device, half = self._model.device, self._config.precision == "bfloat16"
        for query, batches in self._batches.items():
            batch = next(batches).to(device)
            passes = [part for part in self._passes if part.query == query]
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                batch_losses = losses(self._model, batch, passes, self._config, self._masks)
            (batch_losses.per_subject.sum() / batch.size).backward()  # type: ignore[no-untyped-call]
            for name, mean in batch_losses.means.items():
                self._totals[name] = self._totals[name] + mean

    @property
    def transforms(self) -> Sequence[GradientTransform]:
        """The norms are noted, then the gradient is clipped."""
        return (self._note_norms, self._clip)

    def update(self, start: Mapping[str, Tensor]) -> Float32Arrays:
        """Return how the parameters changed."""
        return parameter_change(self._model, start)

    def metrics(self, update: Float32Arrays) -> dict[str, float]:
        """Return the mean losses and gradient norms, the steps, and what `update` is like."""
        means = {name: float(total) / self.steps for name, total in self._totals.items()}
        return means | {"steps": float(self.steps)} | change_metrics(self._model, update)

    def close(self) -> None:
        """Do nothing: nothing hangs on the model."""

    def _note_norms(self, model: nn.Module) -> None:
        """Add each group's norm to its total, on the model's device: nothing waits for it."""
        squares: dict[str, list[Tensor]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                squares[group_of(name)].append(parameter.grad.square().sum())
        for group, values in squares.items():
            name, norm = gradient_norm_metric(group), torch.stack(values).sum().sqrt()
            self._totals[name] = self._totals[name] + norm

    def _clip(self, model: nn.Module) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), self._config.clip_norm)


def _endless(
    loader: BatchLoader, query: Query, config: TrainConfig, rng: np.random.Generator
) -> Iterator[Batch]:
    dropout = input_dropout(query, config)
    while True:
        yield from loader.epoch(
            rng,
            batch_size=config.batch_size,
            query=query,
            dropout=dropout,
            drop_events=config.drop_events,
        )
