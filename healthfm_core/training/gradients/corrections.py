"""What is added to the gradient of every local step, after the batch's own and before clipping.

A federated algorithm that changes the local step is one of these: FedProx pulls the parameters
towards the global model (Li et al. 2020), SCAFFOLD adds the difference of its control variates,
c − c_i, the same in every step of a round (Karimireddy et al. 2020). With `privacy=dp` they are
added to the noised gradient, which costs no privacy as long as they follow from what is public or
noised already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

GradientTransform = Callable[[nn.Module], None]
"""Changes ``parameter.grad`` of the model's parameters, which hold the gradient of a step."""


@dataclass(frozen=True)
class ConstantCorrection:
    """Adds the same array to a parameter's gradient in every step.

    Attributes:
        values: Parameter → what is added; a parameter that is not named is left as it is, and so
            is one without a gradient, which the step does not train.
    """

    values: Mapping[str, npt.NDArray[np.float32]]

    def __call__(self, model: nn.Module) -> None:
        """Add the values to the gradients."""
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and name in self.values:
                parameter.grad += torch.from_numpy(self.values[name]).to(parameter.grad)


@dataclass(frozen=True)
class ProximalCorrection:
    """FedProx's pull towards the global model.

    Attributes:
        start: Parameter → its value in the global model.
        mu: Weight µ of the term.
    """

    start: Mapping[str, Tensor]
    mu: float

    def __call__(self, model: nn.Module) -> None:
        """Add the gradient of the proximal term."""
        proximal(model, self.start, self.mu).backward()  # type: ignore[no-untyped-call]


def proximal(model: nn.Module, start: Mapping[str, Tensor], mu: float) -> Float[Tensor, ""]:
    """Return FedProx's term as ½µ times the **mean** squared distance to the global model.

    The mean, not the sum: µ then means the same for a model of any size.
    """
    squares = [
        (parameter - start[name]).square().sum() for name, parameter in model.named_parameters()
    ]
    size = sum(parameter.numel() for parameter in model.parameters())
    return 0.5 * mu * torch.stack(squares).sum() / size
