"""A site's part in a round that is one step of all sites: the sum of its people's gradients.

Nothing is drawn: everybody is read in every round, so that the cost of a round is that of one
noised sum. The noise is not added here but to what is masked (`federation.secure`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from healthfm_core.arrays import ArrayDict
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.federation.protocol import RoundOrder, Study
from healthfm_core.models import HealthFM
from healthfm_core.privacy.entropy import Entropy
from healthfm_core.training.curriculum import in_round
from healthfm_core.training.gradients.clipped import ClippedGradients, kinds_of
from healthfm_core.training.gradients.dp_sgd import PrivacyPlan
from healthfm_core.training.site import loader_for
from healthfm_core.training.step import freeze


def clipped_gradient_sum(
    model: HealthFM,
    people: Sequences,
    study: Study,
    order: RoundOrder,
    private: PrivacyPlan,
    entropy: Entropy | None = None,
) -> ArrayDict:
    """Return minus the sum of everyone's clipped gradient, by parameter that learns.

    Args:
        model: The site's, without intercepts; its parameters stay as they are.
        people: Whose gradients.
        study: Contract of the run; its objectives make one kind of step.
        order: Which round.
        private: The norm, and how gradients are told apart.
        entropy: The operating system's where not given.
    """
    entropy = entropy or Entropy()
    config = in_round(study.config.train, round_=order.round, rounds=order.rounds)
    freeze(model, config.learns)
    torch.manual_seed(entropy.seed())
    model.train()
    gradients = ClippedGradients(model, loader_for(people, study), private.config, entropy)
    everyone = np.ones(people.n_subjects, np.bool_)
    found: dict[str, Tensor] = {}
    for kind in kinds_of(config, model):
        found |= gradients(kind, everyone)
    gradients.close()
    return {name: -total.cpu().numpy() for name, total in found.items()}
