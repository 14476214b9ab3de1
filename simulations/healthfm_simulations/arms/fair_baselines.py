"""Baselines of the next visit that read what the arms read, on the rows that the arms train on.

``logistic_regression`` and ``gradient_boosting`` are fitted on all sites' rows pooled, which no
hospital would allow; ``federated_regression`` takes as many steps as the network has rounds, each
with the sum of the sites' gradients; ``local_regression`` and ``local_boosting`` are fitted at each
site alone and asked there. Rows are those of the network's own training loader, numbers are of
every modality that a site may use, and what is chosen is chosen on the sites' tuning people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.config import RunConfig
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.evaluation import Predictions
from healthfm_core.evaluation.baselines.feature_models import (
    FeatureRows,
    fit_regression,
    fit_trees,
)
from healthfm_core.evaluation.baselines.history_features import (
    FeatureColumns,
    HistoryCuts,
    HistoryFeatures,
    history_features,
)
from healthfm_core.evaluation.baselines.next_visit_baselines import (
    VisitQueries,
    queries_at,
    queries_of_rows,
)
from healthfm_core.federation.protocol import VERSION, Study, for_the_wire
from healthfm_core.modalities.registry import modality_names
from healthfm_core.tokens.tokenizer import concatenate, tokenize
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_core.training import SiteData, loader_for
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import ScoredQueries, judged_targets
from healthfm_simulations.sites import SimulatedSite

LOGISTIC_REGRESSION: Final = "logistic_regression"
GRADIENT_BOOSTING: Final = "gradient_boosting"


@dataclass(frozen=True)
class VisitFeatures:
    """What the baselines read at queries about next visits.

    Attributes:
        queries: The n queries.
        features: Their numbers.
        site: [n] index of the query's site among those of the fold it is of.
        subject_id: [n].
        time_us: [n] start of the visit asked about.
        judged: [V] the targets that are judged; the models answer these and no others.
    """

    queries: VisitQueries
    features: HistoryFeatures
    site: Int64
    subject_id: Int64
    time_us: Int64
    judged: Bool

    def rows(self, keep: Bool | None = None) -> FeatureRows:
        """Return what a model is fitted to, of some queries [n] or of all."""
        x, outcome = self.features.x, self.queries.outcome[:, self.judged]
        return FeatureRows(x, outcome) if keep is None else FeatureRows(x[keep], outcome[keep])


@dataclass(frozen=True)
class FoldFeatures:
    """The rows of one fold's training and tuning people.

    Attributes:
        study: Under whose vocabulary the records are read.
        columns: What is read of a record.
        train: The very queries that a training pass of the network asks.
        tuning: Those of the tuning people.
    """

    study: Study
    columns: FeatureColumns
    train: VisitFeatures
    tuning: VisitFeatures

    def fitted_on(self, fold: CrossValidationFold) -> str:
        """Return a sentence that says on what the baselines of a fold are fitted."""
        queries, people = self.train.queries, len(np.unique(self.train.queries.subject))
        events = int(queries.outcome[:, self.train.judged].sum())
        return (
            f"{fold.name}: the baselines are fitted on the {len(queries.subject):,} queries of "
            f"{people:,} people that the network trains on, {events:,} events among them."
        )

    @classmethod
    def of(
        cls, config: RunConfig, fold: CrossValidationFold, vocabulary: Vocabulary
    ) -> FoldFeatures:
        """Read the fold's training sites as they train, each with what it may use."""
        views = [site.view() for site in fold.train]
        modalities = tuple(sorted(frozenset[str]().union(*(view.modalities for view in views))))
        study = Study(VERSION, "baselines", for_the_wire(config), vocabulary, modalities)
        data = [SiteData.load([view], study) for view in views]
        train = _together([site.train for site in data])
        tuning = _together([site.tuning for site in data])
        device = vocabulary.wearable
        columns = FeatureColumns.choose(
            train, channels=len(device.channels) if device else 0, sites=len(views)
        )
        return cls(study, columns, _asked(train, study, columns), _asked(tuning, study, columns))

    def test(
        self, fold: CrossValidationFold, sites: Sequence[SimulatedSite], scored: ScoredQueries
    ) -> VisitFeatures:
        """Return the rows that an arm answered, in its order.

        Args:
            fold: Whose test people.
            sites: All sites of the run, whose positions are the sites' indices.
            scored: The arm's answers.
        """
        vocabulary, test = self.study.vocabulary, self._test_people(fold)
        index = {site.name: i for i, site in enumerate(sites)}
        key = zip([index[fold.test[i].name] for i in test.site], test.subject_id, strict=True)
        place = {(site, int(subject)): i for i, (site, subject) in enumerate(key)}
        asked = zip(scored.site.tolist(), scored.subject_id.tolist(), strict=True)
        subject = np.array([place[pair] for pair in asked], np.int64)
        queries = queries_at(test, len(vocabulary.targets), subject, scored.time_us)
        trained = {site.name: i for i, site in enumerate(fold.train)}
        column = np.array([trained.get(site.name, -1) for site in fold.test], np.int64)
        return _features(test, queries, self.study, self.columns, column[test.site])

    def _test_people(self, fold: CrossValidationFold) -> Sequences:
        """Read the fold's test people, at each site what it may use."""
        config, vocabulary = self.study.config, self.study.vocabulary
        views = [site.view() for site in fold.test]
        return tokenize(views, vocabulary, config.tokens, split=fold.split)

    def every_query(
        self, fold: CrossValidationFold, sites: Sequence[SimulatedSite]
    ) -> ScoredQueries:
        """Return all queries a network would be asked of the test people, with scores of 0.

        For a comparison of baselines where no network is trained.
        """
        test, targets = self._test_people(fold), self.study.vocabulary.targets
        rows = loader_for(test, self.study).plan("sep")
        queries = queries_of_rows(test, len(targets), rows)
        index = {site.name: i for i, site in enumerate(sites)}
        site_of = np.array([index[site.name] for site in fold.test], np.int64)[test.site]
        site, time_us = site_of[queries.subject], test.visit_time_us[queries.visit]
        judged = np.flatnonzero(judged_targets(targets, self.study.config))
        outcome, repeats = queries.outcome[:, judged], queries.repeats[:, judged]
        key = queries.subject + (site << 32)
        nothing = np.zeros(outcome.shape, np.float32)
        predictions = Predictions.of_queries(key, site.astype(np.int32), nothing, outcome, repeats)
        subject_id, names = test.subject_id[queries.subject], tuple(targets[i] for i in judged)
        return ScoredQueries(predictions, site.astype(np.int32), subject_id, time_us, names)


def fair_baselines(
    config: RunConfig,
    fold: CrossValidationFold,
    sites: Sequence[SimulatedSite],
    vocabulary: Vocabulary,
    scored: ScoredQueries,
    *,
    fitted: FoldFeatures | None = None,
) -> dict[str, Predictions]:
    """Return each baseline's predictions on the rows of `scored`; see the module.

    Args:
        config: The run's configuration.
        fold: Whose training and test people.
        sites: All sites of the run, whose positions are the sites' indices.
        vocabulary: The vocabulary that all arms use.
        scored: An arm's answers, for the baselines to answer.
        fitted: The fold's rows; None reads them.
    """
    fitted = fitted or FoldFeatures.of(config, fold, vocabulary)
    test = fitted.test(fold, sites, scored)
    train, tuning = fitted.train.rows(), fitted.tuning.rows()
    at_sites = [fitted.train.rows(fitted.train.site == i) for i in range(len(fold.train))]
    regression = fit_regression([train], tuning)
    summed = fit_regression(
        at_sites, tuning, penalties=[regression.penalty], steps=config.federation.rounds
    )
    x, always = test.features.x, not_of_codes(test.features)
    scores = {
        LOGISTIC_REGRESSION: regression.score(x),
        GRADIENT_BOOSTING: fit_trees(train, tuning, always=always, seed=config.seed).score(x),
        "federated_regression": summed.score(x),
    }
    if not fold.tests_newcomers:
        scores["local_regression"] = _alone(
            fitted, test, lambda own, tune: fit_regression([own], tune).score
        )
        scores["local_boosting"] = _alone(
            fitted,
            test,
            lambda own, tune: fit_trees(own, tune, always=always, seed=config.seed).score,
        )
    return {
        arm: replace(scored.predictions, score=score.ravel().astype(np.float32))
        for arm, score in scores.items()
    }


def not_of_codes(features: HistoryFeatures) -> Bool:
    """Return [F] the numbers that are not of codes, which are few and of which none is left out."""
    chosen = np.ones(features.x.shape[1], np.bool_)
    for name in modality_names("codes"):
        chosen[features.blocks[name]] = False
    return chosen


Scorer = Callable[[Float32], Float32]


def _alone(
    fitted: FoldFeatures, test: VisitFeatures, fit: Callable[[FeatureRows, FeatureRows], Scorer]
) -> Float32:
    """Return [n, V] what each site's own model says of its own test people; 0 without any rows."""
    score = np.zeros((len(test.site), int(test.judged.sum())), np.float32)
    for site in np.unique(test.site):
        own = fitted.train.rows(fitted.train.site == site)
        if len(own.x):
            model = fit(own, fitted.tuning.rows(fitted.tuning.site == site))
            score[test.site == site] = model(test.features.x[test.site == site])
    return score


def _together(parts: Sequence[Sequences]) -> Sequences:
    """Return the sites' people as one, `Sequences.site` the site's index."""
    return concatenate(
        [replace(part, site=np.full(part.n_subjects, i, np.int32)) for i, part in enumerate(parts)]
    )


def _asked(sequences: Sequences, study: Study, columns: FeatureColumns) -> VisitFeatures:
    """Return the numbers of every query that a pass over these people asks."""
    rows = loader_for(sequences, study).plan("sep")
    queries = queries_of_rows(sequences, len(study.vocabulary.targets), rows)
    return _features(sequences, queries, study, columns, sequences.site.astype(np.int64))


def _features(
    sequences: Sequences,
    queries: VisitQueries,
    study: Study,
    columns: FeatureColumns,
    site_of_subject: Int64,
) -> VisitFeatures:
    site = site_of_subject[queries.subject]
    cuts = HistoryCuts.before_visits(sequences, queries.visit)
    return VisitFeatures(
        queries,
        history_features(sequences, cuts, columns, site=site),
        site,
        sequences.subject_id[queries.subject],
        sequences.visit_time_us[queries.visit],
        judged_targets(study.vocabulary.targets, study.config),
    )
