"""The sum of everyone's clipped gradient: a site's part in a round that is one step of all sites.

Nothing is drawn: everybody is read in every round, so that the cost of a round is that of one
noised sum. The noise is not added here but to what is masked (`federation.secure`), and the step
is the server's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from healthfm_core.arrays import Float32Arrays
from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.models import HealthFM
from healthfm_core.privacy.entropy import Entropy
from healthfm_core.training.gradients.corrections import GradientTransform
from healthfm_core.training.gradients.per_person import ClippedGradients
from healthfm_core.training.passes import private_passes
from healthfm_core.training.privacy_plan import PrivacyPlan


class ClippedSumGradient:
    """Leaves the sum of everyone's clipped gradient on the parameters, which stay as they are.

    Args:
        model: The site's, without intercepts; what is trained of it requires gradients.
        loader: Rows of the people it trains on.
        config: Training settings; its objectives make one pass.
        privacy: The clipping norm, and how per-person gradients are found.
        entropy: The operating system's where not given.
    """

    def __init__(
        self,
        model: HealthFM,
        loader: BatchLoader,
        config: TrainConfig,
        privacy: PrivacyPlan,
        entropy: Entropy | None = None,
    ) -> None:
        entropy = entropy or Entropy()
        torch.manual_seed(entropy.seed())
        self._model, self._everyone = model, np.ones(loader.sequences.n_subjects, np.bool_)
        self._passes = private_passes(config, list(model.heads))
        self._clipped = ClippedGradients(model, loader, config, privacy.config, entropy)
        self.steps = 1

    def optimizer(self) -> ServerStep:
        """Return what leaves the parameters as they are."""
        return ServerStep()

    def compute(self) -> None:
        """Leave the sum over everyone on the parameters."""
        parameters = dict(self._model.named_parameters())
        for part in self._passes:
            for name, total in self._clipped.sums(part, self._everyone).items():
                parameters[name].grad = total

    @property
    def transforms(self) -> Sequence[GradientTransform]:
        """Nothing: the server gets the sum as it is."""
        return ()

    def update(self, start: Mapping[str, Tensor]) -> Float32Arrays:
        """Return minus the sum, of every parameter that is trained."""
        return {
            name: -parameter.grad.cpu().numpy()
            for name, parameter in self._model.named_parameters()
            if parameter.grad is not None
        }

    def metrics(self, update: Float32Arrays) -> dict[str, float]:
        """Return nothing: no ε covers a metric."""
        return {}

    def close(self) -> None:
        """Take the hooks off the model."""
        self._clipped.close()


class ServerStep:
    """Stands in for a site's optimiser where the server takes the step.

    Attributes:
        param_groups: None.
    """

    def __init__(self) -> None:
        self.param_groups: list[dict[str, Any]] = []

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: there is one step."""

    def step(self) -> None:
        """Leave the parameters as they are."""
