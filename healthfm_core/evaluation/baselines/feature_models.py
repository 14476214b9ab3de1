"""Logistic regression and boosted trees on numbers that sum up a history.

One regression for each target, all fitted at once by L-BFGS. Its loss is a sum over sites, and so
is the loss's gradient: fitted over sites it needs no more than their sums, about one for each
step, and is the same regression. How strong its penalty is, and how many trees are grown, is
chosen on tuning people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch.nn.functional import binary_cross_entropy_with_logits

from healthfm_core.arrays import Bool, Float32, Float64, Int64

PENALTIES: Final = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Weights of ½‖w‖² beside the mean loss that are tried, strongest first; numbers standardised."""
STEPS: Final = 30
"""L-BFGS steps at each penalty; each begins where the one before ended."""
MIN_SD: Final = 1e-6
TREES: Final = 150
"""Most trees of a target."""
MIN_EVENTS: Final = 20
"""A target with fewer training rows of either kind gets no trees."""
CHOSEN_NUMBERS: Final = 48
"""So many numbers of codes does a target's trees branch on, beside all others."""


@dataclass(frozen=True)
class FeatureRows:
    """n rows to fit or to choose on.

    Attributes:
        x: [n, F] float32, finite.
        outcome: [n, V].
    """

    x: Float32
    outcome: Bool


@dataclass(frozen=True)
class FittedRegression:
    """A logistic regression per target.

    Attributes:
        mean: [F] of the training rows.
        sd: [F] likewise; 1 where a number never varies.
        weight: [F, V].
        bias: [V].
        penalty: The one chosen.
    """

    mean: Float32
    sd: Float32
    weight: Float32
    bias: Float32
    penalty: float

    def score(self, x: Float32) -> Float32:
        """Return probabilities [n, V]."""
        logit = ((x - self.mean) / self.sd) @ self.weight + self.bias
        return np.asarray(0.5 * (np.tanh(0.5 * logit) + 1.0), np.float32)


class _SummedLoss:
    """The penalised mean loss of all sites' rows, as a sum of what each site adds."""

    def __init__(self, sites: Sequence[FeatureRows]) -> None:
        rows = sum(len(site.x) for site in sites)
        total = sum(site.x.sum(axis=0, dtype=np.float64) for site in sites)
        square = sum((site.x.astype(np.float64) ** 2).sum(axis=0) for site in sites)
        mean = np.asarray(total) / rows
        sd = np.sqrt(np.maximum(np.asarray(square) / rows - mean**2, 0.0))
        self.mean = mean.astype(np.float32)
        self.sd = np.where(sd > MIN_SD, sd, 1.0).astype(np.float32)
        self._sites = [
            (torch.from_numpy((s.x - self.mean) / self.sd), torch.from_numpy(s.outcome).float())
            for s in sites
        ]
        self._rows = rows
        rate = torch.cat([y for _, y in self._sites]).mean(dim=0)
        self.bias = torch.logit(rate.clamp(1e-4, 1 - 1e-4)).requires_grad_(True)
        self.weight = torch.zeros(len(mean), len(self.bias), requires_grad=True)

    def descend(self, penalty: float, *, steps: int) -> None:
        """Take L-BFGS steps; the gradient of each is a sum over the sites."""
        optimizer = torch.optim.LBFGS(
            [self.weight, self.bias], max_iter=steps, line_search_fn="strong_wolfe"
        )

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            value = 0.5 * penalty * self.weight.square().sum()
            for x, y in self._sites:
                logit = x @ self.weight + self.bias
                error = binary_cross_entropy_with_logits(logit, y, reduction="none")
                value = value + error.sum() / self._rows
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(closure)  # type: ignore[no-untyped-call]

    def fitted(self, penalty: float) -> FittedRegression:
        weight, bias = self.weight.detach().numpy().copy(), self.bias.detach().numpy().copy()
        return FittedRegression(self.mean, self.sd, weight, bias, penalty)


def fit_regression(
    sites: Sequence[FeatureRows],
    tuning: FeatureRows,
    *,
    penalties: Sequence[float] = PENALTIES,
    steps: int = STEPS,
) -> FittedRegression:
    """Fit a regression per target over all sites' rows, at the penalty that serves tuning people.

    Args:
        sites: Each site's training rows; one entry is a pooled fit or a site alone.
        tuning: Rows the penalty is chosen on, by the mean loss; none: the middle one is taken.
        penalties: Those to try, strongest first.
        steps: L-BFGS steps at each.
    """
    loss = _SummedLoss(sites)
    tried = []
    for penalty in penalties:
        loss.descend(penalty, steps=steps)
        tried.append(loss.fitted(penalty))
    if not len(tuning.x):
        return tried[len(tried) // 2]
    return min(tried, key=lambda model: log_loss(model.score(tuning.x), tuning.outcome))


def log_loss(score: Float32, outcome: Bool) -> float:
    """Return the mean log loss of probabilities [n, V]."""
    p = np.clip(score.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(outcome, np.log(p), np.log1p(-p))))


@dataclass(frozen=True)
class FittedTrees:
    """Boosted trees per target.

    Attributes:
        models: Per target the trees; None with fewer than `MIN_EVENTS` rows of either kind.
        numbers: Per target [.] which of the F numbers they may branch on.
        rate: [V] of the training rows, the answer without trees.
        rounds: Trees that are asked, the number that serves tuning people.
    """

    models: tuple[HistGradientBoostingClassifier | None, ...]
    numbers: tuple[Int64, ...]
    rate: Float64
    rounds: int

    def score(self, x: Float32) -> Float32:
        """Return probabilities [n, V]."""
        return self.staged(x)[self.rounds - 1]

    def staged(self, x: Float32) -> Float32:
        """Return probabilities [T, n, V] after each of T trees."""
        score = np.empty((TREES, len(x), len(self.models)), np.float32)
        for target, (model, numbers) in enumerate(zip(self.models, self.numbers, strict=True)):
            if model is None or not len(x):
                score[:, :, target] = self.rate[target]
                continue
            for tree, p in enumerate(model.staged_predict_proba(x[:, numbers])):
                score[tree, :, target] = p[:, 1]
        return score


def fit_trees(
    train: FeatureRows, tuning: FeatureRows, *, always: Bool, seed: int = 0
) -> FittedTrees:
    """Fit gradient boosting per target, as many trees as serve tuning people best.

    A target's trees branch on the numbers that are `always` given and on `CHOSEN_NUMBERS` others
    that correlate most with it in training. With all of them they take three times as long and
    are no better.

    Args:
        train: Rows to fit on.
        tuning: Rows on which the number of trees is chosen; none: all are asked.
        always: [F] numbers that every target's trees may branch on.
        seed: Of the trees.
    """
    given, others = np.flatnonzero(always), np.flatnonzero(~always)
    numbers = tuple(
        np.concatenate([given, others[np.argsort(-c[others], kind="stable")[:CHOSEN_NUMBERS]]])
        for c in _correlations(train)
    )
    outcomes = train.outcome.T
    models = tuple(
        _boosted(train.x[:, own], outcome, seed)
        if min(outcome.sum(), (~outcome).sum()) >= MIN_EVENTS
        else None
        for own, outcome in zip(numbers, outcomes, strict=True)
    )
    fitted = FittedTrees(models, numbers, train.outcome.mean(axis=0), TREES)
    if not len(tuning.x):
        return fitted
    losses = [log_loss(score, tuning.outcome) for score in fitted.staged(tuning.x)]
    return replace(fitted, rounds=int(np.argmin(losses)) + 1)


def _correlations(train: FeatureRows) -> Float32:
    """Return [V, F], how strongly each number goes with each outcome."""
    x = train.x - train.x.mean(axis=0)
    x /= np.maximum(x.std(axis=0), MIN_SD)
    return np.asarray(np.abs((train.outcome - train.outcome.mean(axis=0)).T @ x), np.float32)


def _boosted(x: Float32, outcome: Bool, seed: int) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        learning_rate=0.1,
        max_iter=TREES,
        max_leaf_nodes=4,
        min_samples_leaf=50,
        l2_regularization=1.0,
        max_bins=63,
        early_stopping=False,
        random_state=seed,
    ).fit(x, outcome)
