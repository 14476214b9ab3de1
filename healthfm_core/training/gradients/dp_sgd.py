"""Gradients with patient-level differential privacy (DP-SGD, Abadi et al. 2016).

In each step every person of the site is drawn by itself with one probability; the loss of each one
drawn is a sum over the whole of their row; each one's gradient is clipped to a norm; to the sum of
what is left Gaussian noise is added; and only then does the optimiser see it. The unit is the
person, neighbours differ by one person, and the guarantee is for the update that leaves, whoever
reads it. Which objective a step trains is drawn too, without a look at the data, so that a step
reads one row of a person at most: the sampling rate of a step is the same whichever it is.

Everything that is drawn here comes from the operating system, masks and dropout too: the
coordinator knows the seed it sent, and a mask of one person must not follow from who else was
there. So no two private rounds are alike.

Not covered by ε: how many people the site has and how many hold each modality; the counts and
sketches of the vocabulary; tuning metrics, where the configuration lets them leave; anything that
was chosen by looking at results of this site.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from healthfm_core.arrays import Float32Arrays
from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.federation.protocol import RoundOrder
from healthfm_core.models import HealthFM
from healthfm_core.privacy.entropy import Entropy, noised
from healthfm_core.seeding import numpy_generator
from healthfm_core.training.gradients.corrections import GradientTransform
from healthfm_core.training.gradients.local_gradient import change_metrics, parameter_change
from healthfm_core.training.gradients.per_person import ClippedGradients
from healthfm_core.training.optimizer import optimizer_for
from healthfm_core.training.passes import ForwardPass, private_passes
from healthfm_core.training.privacy_plan import PrivacyPlan


class DPSGDGradient:
    """Draws people, and leaves the noised mean of their clipped gradients on the parameters.

    Args:
        model: The site's, without intercepts; what is trained of it requires gradients.
        loader: Rows of the people it trains on.
        config: Training settings of the round.
        order: Which round.
        privacy: Noise, sampling rate and steps.
        entropy: The operating system's where not given.
    """

    def __init__(
        self,
        model: HealthFM,
        loader: BatchLoader,
        config: TrainConfig,
        order: RoundOrder,
        privacy: PrivacyPlan,
        entropy: Entropy | None = None,
    ) -> None:
        self._entropy = entropy or Entropy()
        torch.manual_seed(self._entropy.seed())
        self._model, self._config, self._privacy = model, config, privacy
        self._people = loader.sequences.n_subjects
        self._passes = private_passes(config, list(model.heads))
        self._choice = numpy_generator(order.seed, "kinds", order.round)  # nobody's secret
        self._clipped = ClippedGradients(model, loader, config, privacy.config, self._entropy)
        self.steps = privacy.mechanism.steps if self._passes else 0

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW over what is trained."""
        return optimizer_for(self._model, self._config)

    def compute(self) -> None:
        """Leave the gradient of a pass on the parameters it trains; which pass is drawn."""
        self.compute_pass(self._passes[int(self._choice.integers(len(self._passes)))])

    def compute_pass(self, part: ForwardPass) -> None:
        """Leave the noised mean of the clipped gradients of `part` on the parameters it trains.

        Nobody drawn is a step like any other: nothing is read, and the noise is the same.
        """
        mechanism = self._privacy.mechanism
        drawn = self._entropy.chosen(self._people, mechanism.sample_rate)
        sums = self._clipped.sums(part, drawn)
        norms = self._clipped.norms(sums)
        noise = mechanism.noise_multiplier * math.sqrt(self._clipped.groups(sums))
        parameters = dict(self._model.named_parameters())
        for name, total in sums.items():
            mean = noised(total, noise * norms[name], self._entropy) / self._config.batch_size
            parameters[name].grad = mean.to(total.dtype)

    @property
    def transforms(self) -> Sequence[GradientTransform]:
        """Nothing: it was clipped person by person."""
        return ()

    def update(self, start: Mapping[str, Tensor]) -> Float32Arrays:
        """Return how the parameters changed."""
        return parameter_change(self._model, start)

    def metrics(self, update: Float32Arrays) -> dict[str, float]:
        """Return metrics that tell nothing of the people."""
        return {
            "steps": float(self._privacy.mechanism.steps),
            "privacy_noise_multiplier": self._privacy.mechanism.noise_multiplier,
            "privacy_epsilon": self._privacy.epsilon(),
        } | change_metrics(self._model, update)

    def close(self) -> None:
        """Take the hooks off the model."""
        self._clipped.close()
