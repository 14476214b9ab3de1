"""What a frozen state holds: a linear probe on few and on all labels, after EHRSHOT.

EHRSHOT (arXiv 2307.02028) trains a logistic regression on frozen states with k labels of each
class, k from 1 to 128, and with all. The tuning labels are as few, so that the whole choice is made
from 2k + 2k. Smaller sets lie within larger ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from healthfm_core import arrays
from healthfm_core.arrays import Float64, Int64
from healthfm_core.evaluation.metrics.calibration_error import fit_logistic, logit
from healthfm_core.evaluation.metrics.ranking import auroc, average_precision
from healthfm_core.evaluation.predictions import Predictions

SHOTS: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128)
REPLICATES: Final = 3
STRENGTHS: Final = tuple(10.0**power for power in range(-8, 5))
"""Inverse weights of the L2 penalty (scikit-learn's C) that are tried, 1e-8 … 1e4 by tens."""
ITERATIONS: Final = 1000
"""L-BFGS stops here; a weak penalty on separable classes may not have converged and is used so."""


@dataclass(frozen=True)
class ProbeData:
    """n frozen states and what is asked of them.

    Attributes:
        x: [n, d] states, as the model gives them.
        outcome: [n] bool.
        subject: [n] int64, whom to resample together; needed of test people only.
        site: [n] int32; None is one site.
    """

    x: Float[np.ndarray, "n d"]
    outcome: Bool[np.ndarray, " n"]
    subject: Int[np.ndarray, " n"]
    site: Int[np.ndarray, " n"] | None = None

    @property
    def has_both(self) -> bool:
        """Whether there is a case and a non-case."""
        return bool(self.outcome.any() and not self.outcome.all())


@dataclass(frozen=True)
class ProbeRow:
    """One probe's score on the test people.

    Attributes:
        arm: Whose states.
        task: What is asked.
        k: Training rows of each class; None is all rows.
        replicate: Which draw of the k, from 0.
        auroc: On all test rows.
        average_precision: On all test rows.
        strength: The C that was chosen.
        n_train: Training rows.
    """

    arm: str
    task: str
    k: int | None
    replicate: int
    auroc: float
    average_precision: float
    strength: float
    n_train: int


@dataclass(frozen=True)
class Probed:
    """All probes of one arm at one task.

    Attributes:
        rows: By k, then replicate; all rows last.
        predictions: Of the probe on all rows, for `tables.metric_rows`; none where `rows` is empty.
            Their probabilities are fitted to the tuning rows (Platt): a penalty chosen by AUROC
            may leave hardly any spread between them.
    """

    rows: tuple[ProbeRow, ...]
    predictions: Predictions


def linear_probe(
    train: ProbeData,
    tuning: ProbeData,
    test: ProbeData,
    *,
    arm: str,
    task: str,
    rng: np.random.Generator,
    shots: Sequence[int] = SHOTS,
    replicates: int = REPLICATES,
    strengths: Sequence[float] = STRENGTHS,
) -> Probed:
    """Return the probes' scores for k rows of each class and for all.

    States are standardised by all training states, which needs no label. A k that the training
    rows of a class do not fill is left out; tuning rows are k of each class or as many as there
    are. Without both classes among train, tuning or test rows there is nothing.

    Args:
        train: Rows the regression is fitted to.
        tuning: Rows the penalty is chosen on, by AUROC; among equals the strongest penalty.
        test: Rows it is scored on.
        arm: Named in the rows.
        task: Named in the rows.
        rng: Where the draws of k come from; the same for every arm that is to be compared.
        shots: The k, besides all rows.
        replicates: Draws of each k; all rows are fitted once.
        strengths: Values of C to try; fewer are quicker.
    """
    if not (train.has_both and tuning.has_both and test.has_both):
        return Probed((), Predictions.empty())
    train, tuning, test = _standardised(train, tuning, test)
    rows = []
    for replicate in range(replicates):
        for k, fitted, chosen in _nested(train, tuning, shots, rng):
            _, score, strength = _fit(fitted, chosen, test, strengths)
            rows.append(_row(arm, task, k, replicate, score, test, strength, 2 * k))
    tuned, score, strength = _fit(train, tuning, test, strengths)
    everybody = _row(arm, task, None, 0, score, test, strength, len(train.outcome))
    ordered = sorted(rows, key=lambda row: (row.k, row.replicate))
    return Probed((*ordered, everybody), _predictions(test, risks(tuned, tuning.outcome, score)))


def _nested(
    train: ProbeData, tuning: ProbeData, shots: Sequence[int], rng: np.random.Generator
) -> Iterator[tuple[int, ProbeData, ProbeData]]:
    """Yield (k, training rows, tuning rows): the first k of each class in one random order."""
    order = [
        [rng.permutation(np.flatnonzero(part.outcome == case)) for case in (False, True)]
        for part in (train, tuning)
    ]
    most = min(len(rows) for rows in order[0])
    for k in sorted(set(shots)):
        if k <= most:
            few = [np.concatenate([rows[:k] for rows in of]) for of in order]
            yield k, _take(train, few[0]), _take(tuning, few[1])


def _take(part: ProbeData, rows: Int64) -> ProbeData:
    site = None if part.site is None else part.site[rows]
    return ProbeData(part.x[rows], part.outcome[rows], part.subject[rows], site)


def standardise(train: Float64, *others: Float64) -> list[Float64]:
    """Centre and scale all by the training columns; a column without spread becomes 0."""
    mean, spread = train.mean(0), train.std(0)
    flat = spread <= 1e-12 * np.maximum(np.abs(mean), 1.0)
    scale = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, spread))
    return [(part - mean) * scale for part in (train, *others)]


def _standardised(*parts: ProbeData) -> tuple[ProbeData, ...]:
    scaled = standardise(*(part.x.astype(np.float64) for part in parts))
    return tuple(
        ProbeData(x, part.outcome, part.subject, part.site)
        for x, part in zip(scaled, parts, strict=True)
    )


def _fit(
    train: ProbeData, tuning: ProbeData, test: ProbeData, strengths: Sequence[float]
) -> tuple[Float64, Float64, float]:
    """Return the log odds of tuning and test rows under the best C, and that C."""
    from sklearn.exceptions import ConvergenceWarning  # here: a report that fits nothing is quick
    from sklearn.linear_model import LogisticRegression

    turn = _rotation(train.x)
    x, seen, asked = train.x @ turn, tuning.x @ turn, test.x @ turn
    model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
    best, fitted = -np.inf, (np.zeros(0), np.zeros(0), float("nan"))
    for strength in sorted(strengths):
        model.C = strength
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, train.outcome)
        tuned = model.decision_function(seen)
        score = auroc(tuned, tuning.outcome)
        if score > best:
            best, fitted = score, (tuned, model.decision_function(asked), strength)
    return fitted


def risks(tuned: Float64, outcome: arrays.Bool, asked: Float64) -> Float64:
    """Return the asked rows' probabilities by a logistic fit to the tuning rows' scores.

    Where it cannot be fitted, or would turn the order round, the standardised score is taken as
    log odds around those of the tuning rows.
    """
    centre, spread = tuned.mean(), tuned.std()
    scale = 1.0 / spread if spread > 0 else 0.0
    intercept, slope = fit_logistic((tuned - centre) * scale, outcome)
    if not slope > 0:
        intercept, slope = float(logit(np.array([outcome.mean()]))[0]), 1.0
    return np.asarray(expit(intercept + slope * (asked - centre) * scale))


def _rotation(x: Float64) -> Float64:
    """Return [d, r] onto the rows' own span: an L2 penalty's solution never leaves it."""
    n, d = x.shape
    if n >= d:
        return np.eye(d)
    basis, _ = np.linalg.qr(x.T)
    return np.asarray(basis)


def _row(
    arm: str,
    task: str,
    k: int | None,
    replicate: int,
    score: Float64,
    test: ProbeData,
    strength: float,
    n_train: int,
) -> ProbeRow:
    ranks = auroc(score, test.outcome), average_precision(score, test.outcome)
    return ProbeRow(arm, task, k, replicate, *ranks, strength, n_train)


def _predictions(test: ProbeData, score: Float64) -> Predictions:
    n = len(score)
    return Predictions(
        subject=test.subject.astype(np.int64),
        site=np.zeros(n, np.int32) if test.site is None else test.site.astype(np.int32),
        target=np.zeros(n, np.int32),
        repeats=np.zeros(n, np.float32),
        score=score.astype(np.float32),
        outcome=test.outcome,
    )
