"""The model that a site would have alone: the study's settings and rounds, its own people only.

What it is held against is the model of all sites. So it gets what that one got: vocabulary, start,
rounds, schedule, the server's optimiser; and one thing more, a choice among its rounds by its own
tuning people, as a hospital alone would stop when it gets worse. It trains without noise, since
nothing of it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.federation.aggregation.server_optimizer import OptimizerState, apply_means
from healthfm_core.federation.early_stopping import best_round
from healthfm_core.federation.parameter_groups import group_names, groups_held
from healthfm_core.federation.protocol import RoundOrder, Study
from healthfm_core.seeding import seed_for
from healthfm_core.training import SiteData, initial_parameters, train_round

BY_LABEL: Final = "tuning_auroc"
BY_VISIT: Final = ("tuning_average_precision_new_onset", "tuning_average_precision")
"""Metrics on tuning people by which a round is chosen, the first that there is."""


@dataclass(frozen=True)
class AloneModel:
    """A site's own model.

    Attributes:
        parameters: Of the groups that the site holds.
        round: After how many rounds it was best on the site's tuning people.
        rounds: How many were trained.
        scores: Round → the metric it was chosen by; empty where tuning people cannot give it.
    """

    parameters: Mapping[str, Float32]
    round: int
    rounds: int
    scores: Mapping[int, float]


def train_alone(
    data: SiteData,
    study: Study,
    *,
    start: Mapping[str, Float32] | None = None,
    show: Callable[[int, int], None] = lambda done, rounds: None,
) -> AloneModel:
    """Train on one site's people what the study trained on all.

    Args:
        data: The site's people.
        study: The study.
        start: What its model started from, where that was a trained one; None: from new.
        show: Told after each round: how many are done, of how many.

    Raises:
        RunError: Training diverged (HF-726).
    """
    first = initial_parameters(study) if start is None else start
    held = groups_held(data.modalities, group_names(first))
    names = {name for group in held for name in group_names(first)[group]}
    parameters: Float32Arrays = {name: np.array(first[name]) for name in names}
    config = study.config.federation.aggregation.server_optimizer
    optimizer, rounds = OptimizerState(), study.config.federation.rounds
    scores: dict[int, float] = {}
    best = 0, parameters
    for number in range(1, rounds + 1):
        order = _order(study, number, held)
        result = train_round(dict(parameters), data, study, order)
        best = _better(best, scores, result.metrics, number - 1, parameters, study)
        means = {name: np.asarray(change, np.float64) for name, change in result.update.items()}
        parameters, optimizer = apply_means(parameters, optimizer, means, config)
        show(number, rounds)
    scored = train_round(
        dict(parameters), data, study, _order(study, rounds + 1, held, train=False)
    )
    best = _better(best, scores, scored.metrics, rounds, parameters, study)
    round_, chosen = best if scores else (rounds, parameters)
    return AloneModel(chosen, round_, rounds, scores)


def _order(study: Study, number: int, held: tuple[str, ...], *, train: bool = True) -> RoundOrder:
    return RoundOrder(
        round=number,
        rounds=study.config.federation.rounds,
        groups=held,
        evaluate=True,
        seed=seed_for(study.config.seed, "round", number, "alone"),
        train=train,
    )


def _better(
    best: tuple[int, Float32Arrays],
    scores: dict[int, float],
    metrics: Mapping[str, float],
    round_: int,
    parameters: Float32Arrays,
    study: Study,
) -> tuple[int, Float32Arrays]:
    """Note the score of the model after a round, and return the better of it and the best."""
    wanted = BY_VISIT if study.config.label_task is None else (BY_LABEL,)
    found = [metrics[name] for name in wanted if name in metrics]
    if not found:
        return best
    scores[round_] = found[0]
    return (round_, parameters) if best_round(scores) == round_ else best
