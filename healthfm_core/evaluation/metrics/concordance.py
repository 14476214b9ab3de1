"""Whether people at higher risk have the event earlier: Harrell's C and Uno's C, under censoring.

A pair of rows can be ordered where one had the event while the other was still under observation
without it; both indices are the share of such pairs that the score orders rightly. Harrell's
counts each pair once, so its value depends on who was censored when. Uno's (Stat Med 2011,
30:1105) weighs a pair by 1 / G(t−)², G(t−) being the chance of not being censored before the
earlier time, and stops at a truncation time, beyond which few are left to tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float64, Floats, Int64
from healthfm_core.evaluation.metrics.bootstrap import (
    CHUNK,
    Draws,
    Estimate,
    draw_subjects,
    mean_estimate,
)
from healthfm_core.evaluation.metrics.metric_rows import MINUS, MetricRow, rows_of_estimates

INDICES: Final = ("harrell_c", "uno_c")
MIN_EVENTS: Final = 10
"""A target with fewer events is left out of a mean over targets."""


@dataclass(frozen=True)
class SurvivalTimes:
    """n rows of how long until an event, or until nobody looked any more.

    Attributes:
        subject: [n] int64, whom to resample together.
        time_days: [n] float64, until the event or the end of observation.
        event: [n] bool, whether it ended in the event; whoever is censored at a time was without
            the event up to and at that time.
        score: [n], higher for those expected to have the event earlier.
    """

    subject: Int64
    time_days: Float64
    event: Bool
    score: Floats

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(lengths) > 1:
            raise ValueError(f"columns of survival differ in length: {sorted(lengths)}")
        if np.isnan(self.time_days).any() or np.isnan(self.score).any():
            raise ValueError("times and scores must be numbers; leave out rows without them")

    def __len__(self) -> int:
        return len(self.score)


def harrell_c(data: SurvivalTimes, *, until_days: float | None = None) -> float:
    """Harrell's C, score ties counting half; NaN where no pair can be ordered."""
    return _indices(data, np.ones((len(data), 1)), until_days)["harrell_c"].item()


def uno_c(data: SurvivalTimes, *, until_days: float | None = None) -> float:
    """Uno's C, the censoring estimated by Kaplan-Meier from the rows themselves.

    Args:
        data: The rows.
        until_days: Only events before it start a pair; None is all.
    """
    return _indices(data, np.ones((len(data), 1)), until_days)["uno_c"].item()


def concordance(
    data: SurvivalTimes, draws: Draws, *, until_days: float | None = None
) -> dict[str, Estimate]:
    """Return both indices with their replicates; the censoring is estimated anew in each.

    Args:
        data: Rows of subjects among those drawn from; none gives NaN.
        draws: The draws; the same ones for scores that will be compared.
        until_days: Only events before it start a pair; None is all.
    """
    index = draws.index(data.subject) if len(data) else np.zeros(0, np.int64)
    step = max(1, CHUNK // (4 * max(len(data), 1)))
    parts = [
        _indices(data, draws.weight[first : first + step, index].T.astype(np.float64), until_days)
        for first in range(0, len(draws.weight), step)
    ]
    everybody = _indices(data, np.ones((len(data), 1)), until_days)
    return {
        name: Estimate(everybody[name].item(), np.concatenate([part[name] for part in parts]))
        for name in INDICES
    }


def mean_concordance(
    targets: Sequence[SurvivalTimes], draws: Draws, *, until_days: float | None = None
) -> dict[str, Estimate]:
    """Return the mean of both indices over the targets with at least `MIN_EVENTS` events."""
    by_target = [
        concordance(data, draws, until_days=until_days)
        for data in targets
        if data.event.sum() >= MIN_EVENTS
    ]
    return {name: mean_estimate([one[name] for one in by_target], draws) for name in INDICES}


def concordance_rows(
    arms: Mapping[str, Sequence[SurvivalTimes]],
    *,
    task: str,
    subset: str = "overall",
    bootstraps: int,
    rng: np.random.Generator,
    reference: str = "federated",
    until_days: float | None = None,
) -> list[MetricRow]:
    """Return every arm's rows, then `reference` minus each other arm on the same draws.

    Args:
        arms: Arm → a `SurvivalTimes` per target, the same targets and rows in every arm.
        task: Named in the rows.
        subset: Named in the rows.
        bootstraps: Number of replicates.
        rng: Where the draws come from.
        reference: The arm the others are held against.
        until_days: Truncation time; None is all the follow-up.
    """
    everyone = [data.subject for targets in arms.values() for data in targets]
    subjects = np.unique(np.concatenate([*everyone, np.zeros(0, np.int64)]))
    draws = draw_subjects(subjects, bootstraps, rng)
    by_arm = {arm: mean_concordance(of, draws, until_days=until_days) for arm, of in arms.items()}
    people = dict.fromkeys(INDICES, len(subjects))
    rows = []
    for arm, own in by_arm.items():
        rows += rows_of_estimates(arm, task, subset, own, people)
    for arm in by_arm:
        if arm != reference and reference in by_arm:
            paired = {name: by_arm[reference][name] - by_arm[arm][name] for name in INDICES}
            rows += rows_of_estimates(f"{reference}{MINUS}{arm}", task, subset, paired, people)
    return rows


def _indices(data: SurvivalTimes, weight: Float64, until_days: float | None) -> dict[str, Float64]:
    """Both indices [R] for rows counted `weight` [n, R] times."""
    begins_pairs = data.event.copy()
    if until_days is not None:
        begins_pairs &= data.time_days < until_days
    if not begins_pairs.any():
        return {name: np.full(weight.shape[1], np.nan) for name in INDICES}
    place = _places(data.time_days, data.event)
    cases = np.flatnonzero(begins_pairs)
    later, kept = _later_and_uncensored(place, data.event, weight)
    pairs, won = later[place[cases]], _won(place, data.score, cases, weight)
    kept = kept[place[cases]]
    uncensored = np.divide(1.0, kept**2, out=np.zeros_like(kept), where=kept > 0)
    result = {}
    for name, factor in zip(INDICES, (weight[cases], weight[cases] * uncensored), strict=True):
        total = (factor * pairs).sum(0)
        share = np.full_like(total, np.nan)
        result[name] = np.divide((factor * won).sum(0), total, out=share, where=total > 0)
    return result


def _places(time_days: Float64, event: Bool) -> Int64:
    """Dense rank [n] of the times, events before those censored at the same time.

    Of two rows the one at the lower place, if it had the event, had it first; rows at one place
    cannot be ordered.
    """
    order = np.lexsort((~event, time_days))
    t, e = time_days[order], event[order]
    step = np.r_[False, (t[1:] != t[:-1]) | (e[1:] != e[:-1])]
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(step)
    return place


def _later_and_uncensored(place: Int64, event: Bool, weight: Float64) -> tuple[Float64, Float64]:
    """Rows after each place [P, R], and the chance G(t−) of not being censored before it [P, R]."""
    order = np.argsort(place, kind="stable")
    begin = np.flatnonzero(np.r_[True, np.diff(place[order]) > 0])
    here = np.add.reduceat(weight[order], begin, axis=0)
    at_risk = np.cumsum(here[::-1], axis=0)[::-1]
    censored = ~event[order[begin]]
    gone = np.where(censored[:, None], here, 0.0)
    stays = 1.0 - np.divide(gone, at_risk, out=np.zeros_like(gone), where=at_risk > 0)
    before = np.vstack([np.ones((1, weight.shape[1])), np.cumprod(stays, axis=0)[:-1]])
    return at_risk - here, before


def _won(place: Int64, score: Floats, cases: Int64, weight: Float64) -> Float64:
    """Rows at later places with a lower score, ties counting half [cases, R].

    Two places differ first at one bit: for each bit, rows with equal higher bits are sorted by
    score and those with the bit set are summed up. O(n log n) for each of at most log₂ n bits.
    """
    won = np.zeros((len(cases), weight.shape[1]))
    row_of_case = np.full(len(place), -1, np.int64)
    row_of_case[cases] = np.arange(len(cases))
    by_score = np.argsort(score, kind="stable")
    for bit in range(int(place.max()).bit_length()):
        group = place >> (bit + 1)
        order = by_score[np.argsort(group[by_score], kind="stable")]
        is_later = (place[order] >> bit & 1).astype(np.bool_)
        asked = np.flatnonzero(~is_later & (row_of_case[order] >= 0))
        below, level, start = _places_of_ties(group[order], score[order], is_later, asked)
        summed = np.zeros((int(is_later.sum()) + 1, weight.shape[1]))
        np.cumsum(weight[order[is_later]], axis=0, out=summed[1:])
        half = 0.5 * (summed[below] + summed[level])
        won[row_of_case[order[asked]]] += half - summed[start]
    return won


def _places_of_ties(
    group: Int64, score: Floats, is_later: Bool, asked: Int64
) -> tuple[Int64, Int64, Int64]:
    """Later rows before each asked row's ties, up to their end, and before its group."""
    new_group = np.r_[True, group[1:] != group[:-1]]
    new_tie = new_group | np.r_[True, score[1:] != score[:-1]]
    counted = np.r_[0, np.cumsum(is_later)].astype(np.int64)
    ties, groups = np.flatnonzero(new_tie), np.flatnonzero(new_group)
    tie = np.cumsum(new_tie)[asked] - 1
    first = groups[np.cumsum(new_group)[asked] - 1]
    end = np.r_[ties[1:], len(group)]
    return counted[ties[tie]], counted[end[tie]], counted[first]
