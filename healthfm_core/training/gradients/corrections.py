"""What a federated algorithm changes in every local step.

FedProx adds its pull towards the global model to the gradient, before clipping (Li et al. 2020).
SCAFFOLD adds the difference of its control variates, c − c_i, to the direction of the step, the
same in every step of a round (Karimireddy et al. 2020). With `privacy=dp` the gradient is noised
before either, which costs no privacy as long as they follow from what is public or noised already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.arrays import Float32

GradientTransform = Callable[[nn.Module], None]
"""Changes ``parameter.grad`` of the model's parameters, which hold the gradient of a step."""


@dataclass(frozen=True)
class DriftCorrection:
    """Adds the same array to the direction that every step goes along, as SCAFFOLD does.

    It comes after the optimiser, whose step over the learning rate is the direction: for plain
    gradient descent that is the same as adding it to the gradient.

    Attributes:
        values: Parameter → what is added; what is not named or not trained is left as it is.
    """

    values: Mapping[str, Float32]

    def __call__(self, model: nn.Module, learning_rate: float) -> None:
        """Move the parameters against the values."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and name in self.values:
                    values = torch.from_numpy(self.values[name]).to(parameter)
                    parameter.sub_(values, alpha=learning_rate)


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
