"""The clipped gradients of the people of a site, added up: what every kind of noise begins with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from healthfm_core.arrays import Bool
from healthfm_core.config import PrivacyConfig, TrainConfig
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.models import HealthFM
from healthfm_core.privacy.clipping import TOGETHER, ClippedSum
from healthfm_core.privacy.entropy import Entropy
from healthfm_core.training.gradients import layer_samplers
from healthfm_core.training.passes import ForwardPass, input_dropout, losses

__all__ = ["ClippedGradients", "layer_samplers"]


class ClippedGradients:
    """Reads a row of each of some people, and adds up their clipped gradients.

    Args:
        model: What is trained of it requires gradients.
        loader: Rows of the people.
        config: Training settings of the round.
        privacy: Clipping norms, and how per-person gradients are found.
        entropy: Masks and what is dropped are drawn from it.
    """

    def __init__(
        self,
        model: HealthFM,
        loader: BatchLoader,
        config: TrainConfig,
        privacy: PrivacyConfig,
        entropy: Entropy,
    ) -> None:
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._group = {name: group_of(name) if privacy.group_norms else TOGETHER for name in names}
        self._norms = {
            group: privacy.group_norms.get(group, privacy.max_grad_norm)
            for group in self._group.values()
        }
        self._model, self._loader, self._config = model, loader, config
        self._rows_at_once = privacy.rows_at_once
        self._rng = np.random.default_rng(entropy.seed())
        self._masks = torch.Generator().manual_seed(entropy.seed())
        self._sum = ClippedSum(model, self._norms, self._group, privacy.grad_sample)

    def norms(self, names: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the norm that each parameter's group was clipped to."""
        return {name: self._norms[self._group[name]] for name in names}

    def groups(self, names: Mapping[str, Tensor]) -> int:
        """Return how many groups that were clipped by themselves `names` belong to."""
        return len({self._group[name] for name in names})

    def sums(self, part: ForwardPass, drawn: Bool) -> dict[str, Tensor]:
        """Return the sums of the parameters that the pass trains; of nobody, they are 0.

        Args:
            part: What is asked.
            drawn: Of whom; nothing else is read.
        """
        self._add(part, drawn)
        return self._sum.take({name for name in self._group if part.trains(name)})

    def close(self) -> None:
        """Take the hooks off the model."""
        self._sum.close()

    def _add(self, part: ForwardPass, drawn: Bool) -> None:
        for batch in self._loader.sampled(
            self._rng,
            drawn,
            batch_size=self._rows_at_once,
            query=part.query,
            dropout=input_dropout(part.query, self._config),
            drop_events=self._config.drop_events,
        ):
            rows = batch.to(self._model.device)
            batch_losses = losses(self._model, rows, (part,), self._config, self._masks)
            not_finite = self._sum.add(batch_losses.per_subject).cpu().numpy()
            if not_finite.any():
                others = np.zeros_like(drawn)
                others[batch.subject.numpy()[~not_finite]] = True
                self._add(part, others)
