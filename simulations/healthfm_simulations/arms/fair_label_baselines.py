"""Baselines of a label on the labels that the network trains on, `train.label_task`'s.

``logistic_regression`` and ``gradient_boosting`` read summaries of the history, pooled over the
training sites: of whatever a site may use where the arms are given all, and where they are shown
some modalities alone, of these at every site, also at one whose network may not use them.
``federated_regression`` takes as many steps as the network has rounds, each with the sum of the
sites' gradients; ``local_regression`` and ``local_boosting`` are each site's alone. Where the
people of a run's own sites are tested, the site is among what they read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.pipeline import Pipeline

from healthfm_core.arrays import Bool, Float32, Float64, Integers
from healthfm_core.config import RunConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.splits import keeps_label
from healthfm_core.evaluation import Predictions
from healthfm_core.evaluation.baselines import label_baselines
from healthfm_core.evaluation.baselines.feature_models import (
    FeatureRows,
    FittedRegression,
    fit_regression,
)
from healthfm_core.evaluation.baselines.label_baselines import STRENGTH, Summaries
from healthfm_core.training.site_data import training_splits
from healthfm_simulations.arms.fair_baselines import GRADIENT_BOOSTING, LOGISTIC_REGRESSION
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.scoring.model_scores import EVERYTHING
from healthfm_simulations.sites import SimulatedSite


@dataclass(frozen=True)
class FoldSummaries:
    """Summaries of one fold's people.

    Attributes:
        train: Of every label of `train.label_task` that a training person has, over the sites.
        test: Of every label of `evaluation.task` that a test person has.
        test_stores: The test sites' stores.
    """

    train: Summaries
    test: Summaries
    test_stores: tuple[SiteStore, ...]

    @classmethod
    def of(cls, config: RunConfig, fold: CrossValidationFold, inputs: str) -> FoldSummaries:
        """Read the fold's stores.

        Args:
            config: Tasks, device and protocol.
            fold: Whose sites.
            inputs: ``all``, or modalities joined by ``+``.
        """
        train = [_given(site, inputs) for site in fold.train]
        test = tuple(_given(site, inputs) for site in fold.test)
        split = "train" if fold.split is not None else None
        what = label_baselines.choose(train, split=split, device=config.tokens.device)
        task = config.label_task or config.evaluation.task
        known = label_baselines.summarise(train, task, what, split=None)
        asked = label_baselines.summarise(test, config.evaluation.task, what, split=fold.split)
        known = known.where(_trained_on(config, known, train))
        if not fold.tests_newcomers:
            column = {site.name: i for i, site in enumerate(fold.train)}
            of_test = np.array([column[site.name] for site in fold.test])
            known = _with_site(known, known.site, len(train))
            asked = _with_site(asked, of_test[asked.site], len(train))
        return cls(known, asked, test)


def label_predictions(
    config: RunConfig, fold: CrossValidationFold, read: FoldSummaries, *, pooled_only: bool
) -> dict[str, Predictions]:
    """Return each baseline's predictions of the test people's labels; see the module.

    Args:
        config: The run's configuration.
        fold: What `read` was read of.
        read: The people.
        pooled_only: Whether the federated and the local ones are left out.
    """
    train, test = read.train, read.test
    regression = label_baselines.fit(train)
    boosted = label_baselines.fit_trees(train, seed=config.seed)
    found = {
        LOGISTIC_REGRESSION: label_baselines.predict(regression, test),
        GRADIENT_BOOSTING: label_baselines.predict(boosted, test),
    }
    if pooled_only:
        return found
    base, n_sites = found[LOGISTIC_REGRESSION], len(fold.train)
    x, asked = _complete(regression, train.x), _complete(regression, test.x)
    rows = [_rows(x, train.outcome, train.site == i) for i in range(n_sites)]
    steps = config.federation.rounds
    summed = _regression(rows, steps=steps).score(asked)
    scores = {"federated_regression": summed[:, 0]}
    if not fold.tests_newcomers:
        own = {site.name: i for i, site in enumerate(fold.train)}
        where = np.array([own[site.name] for site in fold.test])[test.site]
        scores["local_regression"] = _at_sites(
            where, lambda i, people: _regression([rows[i]]).score(asked[people])[:, 0]
        )
        scores["local_boosting"] = _at_sites(
            where, lambda i, people: _own_trees(train.where(train.site == i), test.x[people])
        )
    return found | {
        arm: replace(base, score=score.astype(np.float32)) for arm, score in scores.items()
    }


def fitted_on(config: RunConfig, fold: CrossValidationFold, train: Summaries) -> str:
    """Return a sentence that says on what the baselines of a fold were fitted."""
    return (
        f"{fold.name}: the baselines are fitted on the {len(train.outcome):,} labels of "
        f"{config.label_task} that the network trains on, {int(train.outcome.sum()):,} of them "
        "events."
    )


def _regression(rows: Sequence[FeatureRows], *, steps: int = 100) -> FittedRegression:
    n = sum(len(part.x) for part in rows)
    nobody = FeatureRows(rows[0].x[:0], rows[0].outcome[:0])
    return fit_regression(rows, nobody, penalties=[1.0 / (STRENGTH * max(n, 1))], steps=steps)


def _own_trees(own: Summaries, x: Float64) -> Float32:
    if own.outcome.all() or not own.outcome.any():
        return np.full(len(x), own.outcome.any(), np.float32)
    score = label_baselines.fit_trees(own).predict_proba(x)[:, 1] if len(x) else np.zeros(0)
    return np.asarray(score, np.float32)


def _at_sites(where: Integers, answer: Callable[[int, Bool], Float32]) -> Float32:
    """Return [n] what each site's own model says of the people at it."""
    score = np.zeros(len(where), np.float32)
    for site in np.unique(where):
        score[where == site] = answer(int(site), where == site)
    return score


def _complete(model: Pipeline, x: Float64) -> Float32:
    """Return what the regression reads once medians stand for what is missing."""
    return np.asarray(model[:-1].transform(x), np.float32) if len(x) else x.astype(np.float32)


def _rows(x: Float32, outcome: Bool, keep: Bool) -> FeatureRows:
    return FeatureRows(x[keep], outcome[keep, None])


def _with_site(summaries: Summaries, site: Integers, n_sites: int) -> Summaries:
    """Return the summaries with a column for each site."""
    one_hot = site[:, None] == np.arange(n_sites)
    return replace(summaries, x=np.concatenate([summaries.x, one_hot], axis=1))


def _trained_on(config: RunConfig, summaries: Summaries, stores: Sequence[SiteStore]) -> Bool:
    """Return [n] which labels are of people that the network trains on."""
    chosen = np.zeros(len(summaries.subject), np.bool_)
    for i, store in enumerate(stores):
        for split in training_splits(config):
            chosen |= (summaries.site == i) & np.isin(summaries.subject, store.subjects(split))
    share, seed = config.train.label_share, config.seed
    return chosen & keeps_label(summaries.subject, share=share, seed=seed)


def _given(site: SimulatedSite, inputs: str) -> SiteStore:
    if inputs == EVERYTHING:
        return site.view()
    return SiteStore.open(site.path, modalities=inputs.split("+"))
