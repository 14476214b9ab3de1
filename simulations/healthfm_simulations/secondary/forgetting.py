"""What a model that was trained on costs it: the old task, asked of the new body."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from healthfm_core.config import RunConfig
from healthfm_core.evaluation import MetricRow, metric_rows
from healthfm_core.seeding import numpy_generator
from healthfm_core.trained import TrainedModel
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import NEXT_VISIT, Model, score
from healthfm_simulations.sites import SimulatedSite

OLD_TASK: Final = "next_visit_after"
STARTED_FROM: Final = "started_from"


def forgetting_rows(
    model: Model, fold: CrossValidationFold, sites: tuple[SimulatedSite, ...], config: RunConfig
) -> list[MetricRow]:
    """Return how the model started from does at the next visit, before and after the run.

    After: every parameter both models have as the run left it, and the old heads as they were.
    Adapters belong to the new task, so the old one is asked without them.

    Args:
        model: What the run came to.
        fold: Whose people are asked about.
        sites: All sites of the run.
        config: The run's; `federation.start_from` names the model started from.
    """
    if config.federation.start_from is None:
        return []
    old = TrainedModel.load(Path(config.federation.start_from))
    kept = {
        name: model.parameters.get(name, array) if not name.startswith("heads.") else array
        for name, array in old.parameters.items()
    }
    asked = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"task": NEXT_VISIT})}
    )
    models = {"federated": kept, STARTED_FROM: old.parameters}
    answers = {
        arm: score(Model(old.study, parameters), fold, sites, asked).predictions
        for arm, parameters in models.items()
    }
    return metric_rows(
        answers,
        task=OLD_TASK,
        bootstraps=config.evaluation.bootstraps,
        rng=numpy_generator(config.seed, "bootstrap", OLD_TASK),
        reference="federated",
    )
