"""The exact gradient of a regression over all labelled people, which the coordinator steps along.

A few local steps of AdamW on the label's head and linear part are no ridge regression, and an
average of them is none either (docs/decisions/0042). In a round of regression a site takes no step:
it answers with the gradient of its people's summed loss at the weights it received, everything else
of the network being as it is. The sites' gradients add up to that of all their people together, so
what the coordinator finds is what pooled records would give, however few each site has (Wu et al.
2012, "Grid Binary LOgistic REgression").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from healthfm_core.arrays import Float32Arrays
from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import RoundOrder
from healthfm_core.models import HealthFM
from healthfm_core.objectives.label import LABEL, label_loss
from healthfm_core.training.gradients.corrections import GradientTransform
from healthfm_core.training.gradients.local_gradient import change_metrics
from healthfm_core.training.group_weights import group_weights


class NoSteps:
    """Moves nothing: the gradient is the answer.

    Attributes:
        param_groups: None.
    """

    param_groups: list[dict[str, Any]] = []  # noqa: RUF012

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Keep what there is: the passes over the batches add up."""

    def step(self) -> None:
        """Stay."""


class RegressionGradient:
    """Minus the summed gradient of every labelled person's loss, read once in order.

    Nothing is dropped or masked, and the network is in evaluation. A parameter that the label's
    regression does not have stays at 0.

    Args:
        model: The site's; what is trained of it requires gradients.
        loader: Rows of the people it trains on.
        config: Training settings of the round.
        order: Which round, and which groups the site moves. The sum is divided by what the site
            counts for in a group (`group_weights`): times that weight it is the sum again.
    """

    steps = 1

    def __init__(
        self,
        model: HealthFM,
        loader: BatchLoader,
        config: TrainConfig,
        order: RoundOrder,
    ) -> None:
        self._model, self._loader, self._config = model, loader, config
        self._weights = group_weights(loader.sequences, order.groups)
        self._loss = 0.0

    def optimizer(self) -> NoSteps:
        """Return an optimiser that stays where it is."""
        return NoSteps()

    def compute(self) -> None:
        """Add up the gradients of all labelled people on the parameters."""
        was_training = self._model.training
        self._model.eval()
        for batch in self._loader.in_order(batch_size=8 * self._config.batch_size, query="label"):
            here = batch.to(self._model.device)
            states = self._model(here, here.query)
            loss = label_loss(self._model.head(LABEL.name, states, here), here).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            self._loss += float(loss.detach())
        self._model.train(was_training)

    @property
    def transforms(self) -> Sequence[GradientTransform]:
        """None: the sum is exact."""
        return ()

    def update(self, start: Mapping[str, Tensor]) -> Float32Arrays:
        """Return minus the summed gradients, over what the site counts for in each group."""
        update: Float32Arrays = {}
        for name, parameter in self._model.named_parameters():
            weight, total = self._weights.get(group_of(name), 0.0), parameter.grad
            if total is None or weight == 0:
                change = torch.zeros_like(parameter)
            else:
                change = -total / weight
            update[name] = change.detach().cpu().numpy()
        return update

    def metrics(self, update: Float32Arrays) -> dict[str, float]:
        """Return the mean loss before the coordinator's step, and the size of the answer."""
        people = max(1, self._loader.n_rows("label"))
        mean = {LABEL.loss_metric: self._loss / people}
        return change_metrics(self._model, update) | mean

    def close(self) -> None:
        """Nothing was hung on the model."""
