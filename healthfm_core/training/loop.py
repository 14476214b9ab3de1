"""One site's part in one round: parameters in, update out. The one training loop there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.config import TrainConfig
from healthfm_core.federation.parameter_groups import group_of, is_trainable
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.models import HealthFM
from healthfm_core.models.decay import clamp_half_lives
from healthfm_core.training.curriculum import in_round
from healthfm_core.training.divergence import refuse_divergence
from healthfm_core.training.gradients import LocalGradient, local_gradient
from healthfm_core.training.gradients.corrections import (
    DriftCorrection,
    GradientTransform,
    ProximalCorrection,
)
from healthfm_core.training.group_weights import group_weights
from healthfm_core.training.loaders import loader_for
from healthfm_core.training.optimizer import set_learning_rate
from healthfm_core.training.privacy_plan import PrivacyPlan
from healthfm_core.training.schedule import learning_rate
from healthfm_core.training.site_data import SiteData, loaded_model
from healthfm_core.training.tuning_metrics import contexts, tuning_metrics


def train_round(
    parameters: Mapping[str, Float32],
    data: SiteData,
    study: Study,
    order: RoundOrder,
    privacy: PrivacyPlan | None = None,
    drift: DriftCorrection | None = None,
) -> RoundResult:
    """Train the site's model from the global parameters and return what changed.

    Pure but for time: the same arguments give the same result in any process, unless training is
    private. Then the site has no intercepts, and its metrics say nothing but what the noised
    update says too, or the configuration asks for more.

    Args:
        parameters: At least every parameter of the groups in `order`.
        data: The site's people.
        study: Contract of the run.
        order: Which round, which groups, which seed.
        privacy: Noise and sampling of differentially private training; None trains without.
        drift: Added to the direction of every step: SCAFFOLD's control variates.

    Raises:
        RunError: Training diverged (HF-726).

    Returns:
        The update (local minus global) of every parameter of the ordered groups, each group's
        weight (training people who hold the modality), metrics of the round, and the sum of its
        learning rates. With distributed noise, which is not in it yet, the update is minus the sum
        of the clipped gradients.
    """
    config = in_round(study.config.train, round_=order.round, rounds=order.rounds)
    model = loaded_model(
        parameters, study, data.modalities, data.intercepts if privacy is None else None
    )
    metrics: dict[str, float] = {}
    if order.evaluate and (privacy is None or privacy.config.tuning_metrics):
        tuning = loader_for(data.tuning, study)
        metrics = tuning_metrics(model, tuning, study) | contexts(model, tuning)
    if not order.train:
        weights = group_weights(data.train, order.groups)
        return RoundResult(_no_change(model, order), weights, metrics)
    start = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    proximal = [ProximalCorrection(start, config.fedprox_mu)] if config.fedprox_mu > 0 else []
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trainable(name, config.trainable))
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        gradient = local_gradient(model, loader_for(data.train, study), config, order, privacy)
        learning_rate_sum = take_steps(model, gradient, config, order, proximal, drift)
    update = {n: a for n, a in gradient.update(start).items() if group_of(n) in order.groups}
    metrics |= gradient.metrics(update)
    gradient.close()
    refuse_divergence(order.round, update, metrics)
    weights = group_weights(data.train, order.groups)
    return RoundResult(update, weights, metrics, learning_rate_sum)


def _no_change(model: HealthFM, order: RoundOrder) -> Float32Arrays:
    """Return zeros for the ordered groups, from a site that only scored the model."""
    return {
        name: np.zeros(tuple(parameter.shape), np.float32)
        for name, parameter in model.named_parameters()
        if group_of(name) in order.groups
    }


def take_steps(
    model: HealthFM,
    gradient: LocalGradient,
    config: TrainConfig,
    order: RoundOrder,
    corrections: Sequence[GradientTransform] = (),
    drift: DriftCorrection | None = None,
) -> float:
    """Take the round's local steps on `model`, in place; return the sum of their learning rates.

    Args:
        model: The site's.
        gradient: Gives each step's gradient.
        config: Training settings of the round.
        order: Which round, for the learning rate.
        corrections: Added to each gradient before it goes through the gradient's own transforms.
        drift: Added to the direction of each step.
    """
    optimizer, learning_rate_sum = gradient.optimizer(), 0.0
    rounds = config.network_rounds(order.rounds)
    model.train()
    for step in range(gradient.steps):
        done = step / gradient.steps
        rate = learning_rate(config, round_=order.round, rounds=rounds, done=done)
        set_learning_rate(optimizer.param_groups, rate)
        optimizer.zero_grad(set_to_none=True)
        gradient.compute()
        for transform in (*corrections, *gradient.transforms):
            transform(model)
        optimizer.step()
        if drift is not None:
            drift(model, rate)
        clamp_half_lives(model)
        learning_rate_sum += rate
    return learning_rate_sum
