"""What the training loop needs of a gradient, whichever it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from healthfm_core.arrays import Float32Arrays
from healthfm_core.models import HealthFM
from healthfm_core.models.monitors import half_life_monitors
from healthfm_core.training.gradients.corrections import GradientTransform


@runtime_checkable
class LocalOptimizer(Protocol):
    """What the loop needs of an optimiser; PyTorch's are such.

    Attributes:
        param_groups: Options of its groups of parameters, the learning rate among them.
    """

    param_groups: list[dict[str, Any]]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""

    def step(self) -> Any:
        """Move the parameters by their gradients."""


@runtime_checkable
class LocalGradient(Protocol):
    """Gives the gradient of each local step of one round, and reads off what the round gave.

    Attributes:
        steps: How many steps the round has.
    """

    steps: int

    def optimizer(self) -> LocalOptimizer:
        """Return what moves the parameters by the gradient."""

    def compute(self) -> None:
        """Leave the gradient of the next step on the model's parameters."""

    @property
    def transforms(self) -> Sequence[GradientTransform]:
        """What the gradient goes through last, after what is added to it."""

    def update(self, start: Mapping[str, Tensor]) -> Float32Arrays:
        """Return what leaves the site, by parameter.

        Args:
            start: Parameter → its value before the first step.
        """

    def metrics(self, update: Float32Arrays) -> dict[str, float]:
        """Return metrics of the steps and of the `update` they made."""

    def close(self) -> None:
        """Take whatever it hung on the model off again."""


def parameter_change(model: HealthFM, start: Mapping[str, Tensor]) -> Float32Arrays:
    """Return each parameter's value less that at the start."""
    return {
        name: (parameter.detach() - start[name]).cpu().numpy()
        for name, parameter in model.named_parameters()
    }


def change_metrics(model: HealthFM, update: Float32Arrays) -> dict[str, float]:
    """Return the kernel's half-lives per layer and the update's L2 norm."""
    total = sum(float(np.square(array, dtype=np.float64).sum()) for array in update.values())
    return half_life_monitors(model.backbone) | {"update_norm": math.sqrt(total)}
