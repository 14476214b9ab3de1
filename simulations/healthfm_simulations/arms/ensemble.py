"""One answer from many models: the mean of the local models' probabilities on each query.

Nothing is trained together, so only finished models leave a site. Each model reads of a person what
it has encoders for; one that can read nothing a site holds has no say there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from healthfm_core.config import RunConfig
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import (
    Model,
    ScoredQueries,
    answered_by_all,
    concatenate,
    readable,
    score,
)
from healthfm_simulations.sites import SimulatedSite


def score_ensemble(
    models: Mapping[str, Model],
    fold: CrossValidationFold,
    sites: Sequence[SimulatedSite],
    config: RunConfig,
    inputs: str,
) -> ScoredQueries | None:
    """Return the models' mean probabilities for the fold's test people.

    At each test site only queries that every model that can read the site answered are kept.

    Args:
        models: Name → model, all of one vocabulary.
        fold: Whose people, and which of them.
        sites: All sites of the run.
        config: The run's configuration.
        inputs: The modalities shown, as for `score`.

    Returns:
        None where no model can read anything at any test site.
    """
    parts = []
    for site in fold.test:
        can_read = {name: model for name, model in models.items() if readable(model, site, inputs)}
        only = replace(fold, test=(site,))
        each = {name: score(model, only, sites, config, inputs) for name, model in can_read.items()}
        if each:
            parts.append(mean_of(answered_by_all(each)))
    return concatenate(parts) if parts else None


def mean_of(answers: Mapping[str, ScoredQueries]) -> ScoredQueries:
    """Return the mean probability of answers to the very same queries."""
    first = next(iter(answers.values()))
    scores = np.stack([answer.predictions.score for answer in answers.values()])
    mean = scores.mean(axis=0, dtype=np.float64).astype(np.float32)
    return replace(first, predictions=replace(first.predictions, score=mean))
