"""What any model has to beat at the next visit: repeating the past, base rates, a bag of codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.data.batch.row_plan import RowPlan
from healthfm_core.data.batch.sequences import STATIC, UNKNOWN_TIME, WEARABLE, Sequences
from healthfm_core.evaluation.predictions import Predictions

MAX_TOKENS: Final = 512
PENALTY: Final = 1e-3
STEPS: Final = 60
DAY_US: Final = 86_400_000_000
YEAR_US: Final = 365.25 * DAY_US


@dataclass(frozen=True)
class VisitQueries:
    """n questions "what will this visit bring?", asked after the visit before it.

    Attributes:
        subject: [n] index of the subject in its `Sequences`.
        visit: [n] index of the visit asked about, among all visits of the `Sequences`; never a
            subject's first.
        outcome: [n, V] whether the target occurs in it.
        repeats: [n, V] earlier visits of the subject in which it occurred.
        earlier: [n] earlier visits of the subject.
    """

    subject: Int64
    visit: Int64
    outcome: Bool
    repeats: Float32
    earlier: Int64


def queries_of(sequences: Sequences, n_targets: int, *, latest: int | None = None) -> VisitQueries:
    """Ask about every visit but each subject's first.

    Args:
        sequences: The people.
        n_targets: Number of targets V.
        latest: Only so many latest visits of each subject; None is all.
    """
    subject, number = _visits(sequences)
    keep = number > 0
    if latest is not None:
        keep &= sequences.visit_offsets[subject + 1] - np.arange(len(subject)) <= latest
    return _ask(sequences, n_targets, np.flatnonzero(keep))


def queries_of_rows(sequences: Sequences, n_targets: int, rows: RowPlan) -> VisitQueries:
    """Ask what a model's rows ask: every visit that one of their queries is about."""
    subject = np.repeat(rows.subject, np.diff(rows.query_offsets))
    return _ask(sequences, n_targets, sequences.visit_offsets[subject] + rows.next_visit)


def queries_at(
    sequences: Sequences, n_targets: int, subject: Int64, time_us: Int64
) -> VisitQueries:
    """Ask about the visits a model was asked about, in the same order.

    Args:
        sequences: The people.
        n_targets: Number of targets V.
        subject: [n] index of the subject.
        time_us: [n] start of the visit asked about.

    Raises:
        ValueError: where a subject has no such visit, or it is the first.
    """
    kind = [("subject", np.int64), ("time", np.int64)]
    known = np.empty(len(sequences.visit_time_us), kind)
    known["subject"], number = _visits(sequences)
    known["time"] = sequences.visit_time_us
    asked = np.empty(len(subject), kind)
    asked["subject"], asked["time"] = subject, time_us
    visit = np.minimum(np.searchsorted(known, asked), max(len(known) - 1, 0))
    if not np.array_equal(known[visit], asked) or (number[visit] == 0).any():
        raise ValueError("a visit asked about is not in the sequences, or is a subject's first")
    return _ask(sequences, n_targets, visit)


def _visits(sequences: Sequences) -> tuple[Int64, Int64]:
    """Subject [U] and number within the subject [U] of every visit."""
    counts = np.diff(sequences.visit_offsets)
    subject = np.repeat(np.arange(len(counts)), counts)
    return subject, np.arange(len(subject)) - sequences.visit_offsets[subject]


def _ask(sequences: Sequences, n_targets: int, visit: Int64) -> VisitQueries:
    subject, number = _visits(sequences)
    lengths = np.diff(sequences.visit_target_offsets)
    present = np.zeros((len(subject), n_targets), np.bool_)
    present[np.repeat(np.arange(len(subject)), lengths), sequences.visit_target] = True
    before = _before(present.astype(np.float32), sequences.visit_offsets)
    return VisitQueries(subject[visit], visit, present[visit], before[visit], number[visit])


def _before(per_visit: Float32, visit_offsets: Int64) -> Float32:
    """Sum [U, F] of each column over the subject's earlier visits."""
    running = np.cumsum(per_visit, axis=0, dtype=np.float64) - per_visit
    counts = np.diff(visit_offsets)
    first = np.minimum(visit_offsets[:-1], max(len(per_visit) - 1, 0))
    if len(per_visit) == 0:
        return per_visit
    start = np.repeat(running[first], counts, axis=0)
    return (running - start).astype(np.float32)


def repeat_history(queries: VisitQueries) -> Float32:
    """Score [n, V] each target by the share of earlier visits that had it; never seen is 0."""
    return np.asarray(queries.repeats / queries.earlier[:, None], np.float32)


def marginal(train: VisitQueries, queries: VisitQueries) -> Float32:
    """Score [n, V] each target by how often it occurs in the training people's visits."""
    rate = train.outcome.mean(axis=0, dtype=np.float64).astype(np.float32)
    return np.repeat(rate[None], len(queries.subject), axis=0)


@dataclass(frozen=True)
class BagOfCodes:
    """A logistic regression per target on what the history holds, without order or exact times.

    Attributes:
        tokens: [K] the code⊕bin tokens it counts: the most frequent of the training people.
        mean: [F] of the features in training.
        sd: [F] likewise.
        weight: [F, V].
        bias: [V].
    """

    tokens: Int64
    mean: Float32
    sd: Float32
    weight: Float32
    bias: Float32

    def score(self, sequences: Sequences, queries: VisitQueries) -> Float32:
        """Score [n, V] every target at every query."""
        x = (bag_features(sequences, queries, self.tokens) - self.mean) / self.sd
        return np.asarray(1.0 / (1.0 + np.exp(-(x @ self.weight + self.bias))), np.float32)


def bag_features(sequences: Sequences, queries: VisitQueries, tokens: Int64) -> Float32:
    """Features [n, 2K + 3] of the history before each visit asked about.

    Counts (log1p) of each token over the history, statics included; whether it was in the last
    visit; age in decades (0 where birth is unknown), log days since the last visit, log visits.
    """
    subject, _ = _visits(sequences)
    owner = np.repeat(np.arange(sequences.n_subjects), np.diff(sequences.offsets))
    column = np.full(int(max(sequences.token.max(initial=0), tokens.max(initial=0))) + 1, -1)
    column[tokens] = np.arange(len(tokens))
    place = column[sequences.token]
    timed = (place >= 0) & (sequences.visit >= 0)
    static = (place >= 0) & (sequences.kind == STATIC)
    row = sequences.visit_offsets[owner[timed]] + sequences.visit[timed]
    per_visit = _count(row, place[timed], len(subject), len(tokens))
    always = _count(owner[static], place[static], sequences.n_subjects, len(tokens))
    seen = _before(per_visit, sequences.visit_offsets)[queries.visit] + always[queries.subject]
    last = queries.visit - 1
    time = sequences.visit_time_us
    birth = sequences.birth_us[queries.subject]
    known = birth != UNKNOWN_TIME
    age = np.where(known, (time[last] - np.where(known, birth, 0)) / YEAR_US / 10.0, 0.0)
    gap = np.log1p((time[queries.visit] - time[last]) / DAY_US)
    return np.column_stack(
        [np.log1p(seen), per_visit[last] > 0, age, gap, np.log1p(queries.earlier)]
    ).astype(np.float32)


def _count(row: Int64, column: Int64, rows: int, columns: int) -> Float32:
    flat = np.bincount(row * columns + column, minlength=rows * columns)
    return flat.reshape(rows, columns).astype(np.float32)


def fit_bag_of_codes(
    sequences: Sequences, queries: VisitQueries, *, penalty: float = PENALTY
) -> BagOfCodes:
    """Fit the regressions of all targets at once by L-BFGS; deterministic.

    Args:
        sequences: The training people.
        queries: Visits asked about, at least one.
        penalty: Weight of ½‖w‖² beside the mean loss, on standardised features.
    """
    tokens = _frequent(sequences)
    x = bag_features(sequences, queries, tokens)
    mean, sd = x.mean(axis=0), x.std(axis=0) + np.float32(1e-6)
    inputs = torch.from_numpy((x - mean) / sd)
    outcome = torch.from_numpy(queries.outcome.astype(np.float32))
    rate = outcome.mean(dim=0).clamp(1e-4, 1 - 1e-4)
    weight = torch.zeros(x.shape[1], outcome.shape[1], requires_grad=True)
    bias = torch.logit(rate).requires_grad_(True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logit = inputs @ weight + bias
        error = torch.nn.functional.binary_cross_entropy_with_logits(
            logit, outcome, reduction="none"
        )
        value = error.mean(dim=0).sum() + 0.5 * penalty * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return BagOfCodes(tokens, mean, sd, weight.detach().numpy(), bias.detach().numpy())


def _frequent(sequences: Sequences) -> Int64:
    """The tokens that occur most often, at most `MAX_TOKENS`; wearable tokens are none."""
    counts = np.bincount(sequences.token[sequences.kind != WEARABLE])
    counts[: min(1, len(counts))] = 0
    order = np.argsort(-counts, kind="stable")[:MAX_TOKENS]
    return np.asarray(order[counts[order] > 0], np.int64)


def next_visit_baselines(
    train: Sequences, test: Sequences, n_targets: int, queries: VisitQueries
) -> dict[str, Predictions]:
    """Return predictions of ``linear``, ``repeat_history`` and ``marginal`` for the test people.

    Args:
        train: Training people, pooled over the sites.
        test: The people the queries are about.
        n_targets: Number of targets V.
        queries: Of `test`, from `queries_of` or, for a model's very rows, `queries_at`.
    """
    asked = queries_of(train, n_targets)
    scores = {
        "linear": fit_bag_of_codes(train, asked).score(test, queries),
        "repeat_history": repeat_history(queries),
        "marginal": marginal(asked, queries),
    }
    site = test.site[queries.subject]
    return {
        name: Predictions.of_queries(queries.subject, site, score, queries.outcome, queries.repeats)
        for name, score in scores.items()
    }
