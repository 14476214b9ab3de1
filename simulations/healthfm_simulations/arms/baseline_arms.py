"""Baselines beside the trained arms: simple models, and reference scores in the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from healthfm_core.arrays import Int64
from healthfm_core.config import RunConfig
from healthfm_core.data.store.events import times_us
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.evaluation import Predictions
from healthfm_core.evaluation.baselines.next_visit_baselines import next_visit_baselines, queries_at
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_simulations.arms.fair_baselines import FoldFeatures, fair_baselines
from healthfm_simulations.arms.fair_label_baselines import (
    FoldSummaries,
    fitted_on,
    label_predictions,
)
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import EVERYTHING, NEXT_VISIT, ScoredQueries
from healthfm_simulations.sites import SimulatedSite

REFERENCE_SCORE: Final = "reference_score"
"""Extra column of a label table: an established score's own prediction, null where it has none."""
NO_TARGETS: Final = (
    "Nothing is asked of a next visit, and no baseline is fitted: no code is of at least "
    "tokens.k_min={k_min} people of a site. With evaluation.task a label can be asked about"
)


@dataclass(frozen=True)
class ReferencePredictions:
    """What the baselines say.

    Attributes:
        by_arm: (inputs, arm) → predictions for the fold's test people.
        notes: Plain sentences on what they were fitted on.
    """

    by_arm: dict[tuple[str, str], Predictions]
    notes: tuple[str, ...] = ()


def reference_predictions(
    config: RunConfig,
    fold: CrossValidationFold,
    sites: Sequence[SimulatedSite],
    vocabulary: Vocabulary,
    scored: ScoredQueries,
) -> ReferencePredictions:
    """Return the baselines' predictions for the fold's test people.

    Args:
        config: The run's configuration.
        fold: Trained on its training sites, pooled; tested on its test people.
        sites: All sites of the run.
        vocabulary: The vocabulary that all arms use.
        scored: An arm's answers, for the rows to answer.
    """
    if config.evaluation.task == NEXT_VISIT and not vocabulary.targets:
        return ReferencePredictions({}, (NO_TARGETS.format(k_min=config.tokens.k_min),))
    if config.evaluation.task == NEXT_VISIT:
        by_arm = _next_visit(config, fold, sites, vocabulary, scored)
        fitted = FoldFeatures.of(config, fold, vocabulary)
        by_arm |= fair_baselines(config, fold, sites, vocabulary, scored, fitted=fitted)
        visits = {(EVERYTHING, arm): predictions for arm, predictions in by_arm.items()}
        return ReferencePredictions(visits, (fitted.fitted_on(fold),))
    found: dict[tuple[str, str], Predictions] = {}
    notes = []
    for inputs in (EVERYTHING, *config.evaluation.inputs):
        read = FoldSummaries.of(config, fold, inputs)
        answers = label_predictions(config, fold, read, pooled_only=inputs != EVERYTHING)
        for arm, predictions in answers.items():
            found[inputs, arm] = _in_place(predictions, fold, sites, read.test_stores)
        if inputs == EVERYTHING:
            notes.append(fitted_on(config, fold, read.train))
    given_by_data = given_scores(config, fold, sites)
    found |= {(EVERYTHING, arm): predictions for arm, predictions in given_by_data.items()}
    return ReferencePredictions(found, tuple(notes))


def _next_visit(
    config: RunConfig,
    fold: CrossValidationFold,
    sites: Sequence[SimulatedSite],
    vocabulary: Vocabulary,
    scored: ScoredQueries,
) -> dict[str, Predictions]:
    """Return repeat-history, base rates and a bag of codes on the rows of `scored`."""
    train = tokenize([s.view() for s in fold.train], vocabulary, config.tokens, split="train")
    test = tokenize([s.view() for s in fold.test], vocabulary, config.tokens, split=fold.split)
    index = {site.name: i for i, site in enumerate(sites)}
    place = {
        (index[fold.test[int(site)].name], int(subject)): i
        for i, (site, subject) in enumerate(zip(test.site, test.subject_id, strict=True))
    }
    asked = zip(scored.site.tolist(), scored.subject_id.tolist(), strict=True)
    subject = np.array([place[pair] for pair in asked], np.int64)
    n_targets = len(vocabulary.targets)
    queries = queries_at(test, n_targets, subject, scored.time_us)
    columns = [vocabulary.targets.index(name) for name in scored.targets]
    scores = next_visit_baselines(train, test, n_targets, queries)
    judged = np.zeros(n_targets, np.bool_)
    judged[columns] = True
    return {
        arm: replace(scored.predictions, score=prediction.score[judged[prediction.target]])
        for arm, prediction in scores.items()
    }


def _in_place(
    predictions: Predictions,
    fold: CrossValidationFold,
    sites: Sequence[SimulatedSite],
    test: Sequence[SiteStore],
) -> Predictions:
    """Return predictions with the run's numbers of sites and people, in the arms' order."""
    index = {site.name: i for i, site in enumerate(sites)}
    where = np.array([index[site.name] for site in fold.test], np.int32)[predictions.site]
    key = np.empty(len(predictions), np.int64)
    for i, store in enumerate(test):
        rows = predictions.site == i
        everyone = store.subjects(fold.split)
        key[rows] = np.searchsorted(everyone, predictions.subject[rows]) + (
            np.int64(index[fold.test[i].name]) << 32
        )
    order = np.lexsort((key, predictions.site))
    return _take(replace(predictions, subject=key, site=where), order)


def _take(predictions: Predictions, rows: Int64) -> Predictions:
    columns = predictions.__dataclass_fields__
    return Predictions(**{name: getattr(predictions, name)[rows] for name in columns})


def given_scores(
    config: RunConfig, fold: CrossValidationFold, sites: Sequence[SimulatedSite]
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
        asked_us = times_us(labels, "prediction_time")[keep]
        parts.append(
            Predictions.of_queries(
                key, where, score[keep, None], outcome[keep, None], zeros, asked_us
            )
        )
    return {REFERENCE_SCORE: Predictions.concatenate(parts)}
