"""One site's part in one round: parameters in, update out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.config import TrainConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.loader import BatchLoader, Query
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.federation.parameter_groups import group_of, modality_of
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.modalities.registry import holders
from healthfm_core.models import HealthFM
from healthfm_core.models.decay import clamp_half_lives
from healthfm_core.models.inference import answer
from healthfm_core.models.monitors import context_monitors, half_life_monitors
from healthfm_core.seeding import numpy_generator, seed_for, torch_generator
from healthfm_core.training.curriculum import in_round
from healthfm_core.training.gradients.clipped_sum import clipped_gradient_sum
from healthfm_core.training.gradients.corrections import GradientCorrection, ProximalCorrection
from healthfm_core.training.gradients.dp_sgd import PrivacyPlan, dp_sgd
from healthfm_core.training.schedule import learning_rate
from healthfm_core.training.site import SiteData, loaded_model, loader_for
from healthfm_core.training.step import (
    WORN_QUERY,
    beside_wearing,
    freeze,
    losses,
    optimizer_for,
    queries_for,
    set_learning_rate,
)

CONTEXT_ROWS: Final = 32


def train_round(
    parameters: Mapping[str, Float32],
    data: SiteData,
    study: Study,
    order: RoundOrder,
    private: PrivacyPlan | None = None,
    corrections: Sequence[GradientCorrection] = (),
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
        private: Noise and sampling of differentially private training; None trains without.
        corrections: Added to the gradient of every step, such as SCAFFOLD's control variates.

    Returns:
        The update (local minus global) of every parameter of the ordered groups, each group's
        weight (training people who hold the modality), and metrics of the round. With distributed
        noise, which is not in it yet, the update is minus the sum of the clipped gradients.
    """
    scored = order.evaluate
    if private is not None:
        data = replace(data, intercepts={})
        scored = scored and private.config.tuning_metrics
    model = loaded_model(parameters, study, data.modalities, data.intercepts)
    start = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    if study.config.train.fedprox_mu > 0:
        corrections = (ProximalCorrection(start, study.config.train.fedprox_mu), *corrections)
    metrics = evaluate(parameters, data, study) if scored else {}
    metrics |= contexts(model, data.tuning, study) if scored else {}
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        if private is not None and private.config.mechanism.noise_in_sum:
            update = clipped_gradient_sum(model, data.train, study, order, private)
            return RoundResult(update, group_weights(data.train, order.groups), metrics, steps=1)
        if private is not None:
            metrics |= dp_sgd(model, data.train, study, order, private, corrections)
        else:
            torch.manual_seed(seed_for(order.seed, "dropout", order.round))
            metrics |= _train(model, data, study, order, corrections)
    update = {
        name: (tensor.detach() - start[name]).cpu().numpy()
        for name, tensor in model.named_parameters()
        if group_of(name) in order.groups
    }
    steps = int(metrics["steps"])
    metrics |= _monitors(model, update)
    return RoundResult(update, group_weights(data.train, order.groups), metrics, steps)


def group_weights(sequences: Sequences, groups: tuple[str, ...]) -> dict[str, float]:
    """Return, for each group, the number of training people whose data it can learn from."""
    labelled = len(np.unique(sequences.label_subject))
    everyone = float(labelled or sequences.n_subjects)
    who = {group: holders(modality_of(group), sequences) for group in groups}
    return {group: everyone if has is None else float(has.sum()) for group, has in who.items()}


def _train(
    model: HealthFM,
    data: SiteData,
    study: Study,
    order: RoundOrder,
    corrections: Sequence[GradientCorrection],
) -> dict[str, float]:
    """Run the round's local steps on `model` in place; return mean losses and gradient norms."""
    config = in_round(study.config.train, round_=order.round, rounds=order.rounds)
    loader = loader_for(data.train, study)
    steps = _n_steps(loader, config)
    freeze(model, config.learns)
    optimizer = optimizer_for(model, config)
    generator = torch_generator(order.seed, "masks", order.round)
    streams = {
        query: _endless(loader, query, config, numpy_generator(order.seed, query, order.round))
        for query in queries_for(config)
        if loader.n_rows(query)
    }
    first = next(iter(streams), None)
    sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=model.device))
    model.train()
    for step in range(steps):
        rate = learning_rate(config, round_=order.round, rounds=order.rounds, done=step / steps)
        set_learning_rate(optimizer, rate)
        optimizer.zero_grad(set_to_none=True)
        for query, stream in streams.items():
            batch = next(stream).to(model.device)
            with _precision(model.device, config):
                found = losses(model, batch, query, config, generator, leads=query == first)
            (found.per_subject.sum() / batch.size).backward()  # type: ignore[no-untyped-call]
            for name, value in found.means.items():
                sums[f"loss_{name}"] = sums[f"loss_{name}"] + value
        for correct in corrections:
            correct(model)
        for group, norm in _gradient_norms(model).items():
            sums[f"grad_norm/{group}"] = sums[f"grad_norm/{group}"] + norm
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        clamp_half_lives(model)
    means = {name: float(value) / steps for name, value in sums.items()}
    return means | {"steps": float(steps)}


def _precision(device: torch.device, config: TrainConfig) -> torch.autocast:
    half = config.precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


def _n_steps(loader: BatchLoader, config: TrainConfig) -> int:
    """Return local steps of a round; 0 where the site has no row to train on."""
    rows = max(loader.n_rows(query) for query in queries_for(config))
    steps = math.ceil(rows * config.local_epochs / config.batch_size)
    return steps if config.max_steps is None else min(steps, config.max_steps)


def _endless(
    loader: BatchLoader, query: Query, config: TrainConfig, rng: np.random.Generator
) -> Iterator[Batch]:
    asks_wearing = query == WORN_QUERY
    while True:
        yield from loader.epoch(
            rng,
            batch_size=config.batch_size,
            query=query,
            dropout=config.modality_dropout() | (beside_wearing(config) if asks_wearing else {}),
            drop_events=config.drop_events,
        )


def _gradient_norms(model: HealthFM) -> dict[str, Tensor]:
    """Return each group's norm as a scalar on the model's device: nothing waits for it."""
    squares: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            squares[group_of(name)].append(parameter.grad.square().sum())
    return {group: torch.stack(values).sum().sqrt() for group, values in squares.items()}


def _monitors(model: HealthFM, update: Float32Arrays) -> dict[str, float]:
    """Return the kernel's half-lives per layer and the update's L2 norm."""
    total = sum(float(np.square(array, dtype=np.float64).sum()) for array in update.values())
    return half_life_monitors(model.backbone) | {"update_norm": math.sqrt(total)}


def contexts(model: HealthFM, people: Sequences, study: Study) -> dict[str, float]:
    """Return how far back each layer looks, over the latest rows of some of the site's people.

    Nothing where there are fewer than `CONTEXT_ROWS` of them: a mean over them all leaves the site.
    """
    batch = next(
        iter(loader_for(people, study).in_order(batch_size=CONTEXT_ROWS, query="now")), None
    )
    if batch is None or batch.size < CONTEXT_ROWS:
        return {}
    here = batch.to(model.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = context_monitors(model.backbone, model.encode(here), here)
    model.train(was_training)
    return found


def evaluate(
    parameters: Mapping[str, Float32],
    data: SiteData,
    study: Study,
    split: str = "tuning",
) -> dict[str, float]:
    """Return AUROC and average precision of the study's task on the site's own people.

    For ``next_visit`` over all (visit, target) pairs and over new onsets alone. A metric that the
    people at hand cannot give (no case, or nothing but cases) is left out.
    """
    sequences = data.tuning if split == "tuning" else data.train
    model = loaded_model(parameters, study, data.modalities, data.intercepts)
    is_label = study.config.label_task is not None
    head = "label" if is_label else "next_visit"
    if head not in model.heads:
        return {}
    batches = loader_for(sequences, study).in_order(
        batch_size=2 * study.config.train.batch_size, query="label" if is_label else "sep"
    )
    found = answer(model, batches, head)
    if is_label:
        known = ~np.isnan(found.label)
        subsets = {"": (found.logit[known, 0], found.label[known] > 0)}
    else:
        new = found.repeats == 0
        subsets = {
            "": (found.logit.ravel(), found.target.ravel()),
            "_new_onset": (found.logit[new], found.target[new]),
        }
    metrics = {f"{split}_subjects": float(len(np.unique(found.subject)))}
    for name, (logit, outcome) in subsets.items():
        if 0 < outcome.sum() < len(outcome):
            metrics[f"{split}_auroc{name}"] = float(roc_auc_score(outcome, logit))
            metrics[f"{split}_average_precision{name}"] = float(
                average_precision_score(outcome, logit)
            )
    return metrics
