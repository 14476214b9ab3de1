"""What stands beside the arms: simple baselines, and scores that came with the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from healthfm_core.config import RunConfig
from healthfm_core.data.store import SiteStore
from healthfm_core.evaluation import Predictions
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_simulations.folds import Fold
from healthfm_simulations.sites import SimulatedSite

REFERENCE_SCORE = "reference_score"
"""Extra column of a label table: an established score's own prediction, null where it has none."""


def reference_predictions(
    config: RunConfig, fold: Fold, sites: Sequence[SimulatedSite], vocabulary: Vocabulary
) -> dict[str, Predictions]:
    """Return arm → predictions of the baselines for the fold's test people."""
    return given_scores(config, fold, sites)


def given_scores(
    config: RunConfig, fold: Fold, sites: Sequence[SimulatedSite]
) -> dict[str, Predictions]:
    """Return the data's own reference score for the test people who have one (APACHE IVa)."""
    index = {site.name: i for i, site in enumerate(sites)}
    task, parts = config.evaluation.task, []
    for site in fold.test:
        store = SiteStore.open(site.path)
        if task not in store.tasks:
            return {}
        labels = store.labels(task)
        if REFERENCE_SCORE not in labels.column_names:
            return {}
        everyone = store.subjects(fold.split)
        subject = labels["subject_id"].to_numpy()
        score = labels[REFERENCE_SCORE].to_numpy(zero_copy_only=False).astype(np.float32)
        outcome = labels["boolean_value"].to_numpy(zero_copy_only=False).astype(bool)
        keep = np.isin(subject, everyone) & ~np.isnan(score)
        key = np.searchsorted(everyone, subject[keep]) + (np.int64(index[site.name]) << 32)
        where = np.full(int(keep.sum()), index[site.name], np.int32)
        zeros = np.zeros((len(key), 1), np.float32)
        parts.append(
            Predictions.of_queries(key, where, score[keep, None], outcome[keep, None], zeros)
        )
    return {REFERENCE_SCORE: Predictions.concatenate(parts)}
