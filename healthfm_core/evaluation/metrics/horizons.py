"""What happens within 30 days, a year, five: outcomes at a horizon, where they are known.

A query asks, as of a day, when each target happens next. Its answer is scored where the person was
followed to the horizon, or died before it; every other row is left out, whether it happened or not.
To keep those who had it and were lost afterwards, and drop those who were lost without it, would
leave more events than people have: on the simulated cohort it made 365-day hazards look twice as
badly calibrated. To drop the dead would lose those who died of what is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

from healthfm_core.arrays import Floats
from healthfm_core.evaluation.metrics.concordance import SurvivalTimes, concordance_rows
from healthfm_core.evaluation.metrics.metric_rows import MetricRow, metric_rows
from healthfm_core.evaluation.metrics.report_metrics import metrics_at_horizon
from healthfm_core.evaluation.predictions import SUBSETS, Predictions, Subset

HORIZONS_DAYS: Final = (30.0, 90.0, 180.0, 365.0, 730.0, 1825.0)
TIME_TO_EVENT: Final = "time_to_event"
"""The task's name in rows of C-indices."""


@dataclass(frozen=True)
class FollowedQueries:
    """n queries, and when each of V targets happened next.

    Attributes:
        subject: [n] int64, whom to resample together.
        site: [n] int32.
        next_days: [n, V] days from the query to the target's next occurrence, inf where none was
            seen; an occurrence shows that the person was followed until then.
        followed_days: [n] days from the query to the end of follow-up.
        repeats: [n, V] earlier visits with the target's code; 0 makes it a new onset.
        died: [n] whether the follow-up ended in death: what had not happened by then never will.
    """

    subject: Int[np.ndarray, " n"]
    site: Int[np.ndarray, " n"]
    next_days: Float[np.ndarray, "n V"]
    followed_days: Float[np.ndarray, " n"]
    repeats: Float[np.ndarray, "n V"]
    died: Bool[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        n, shape = len(self.subject), self.next_days.shape
        if shape[0] != n or self.repeats.shape != shape or len(self.followed_days) != n:
            raise ValueError("columns of followed queries differ in length")
        if not (self.next_days >= 0).all() or not (self.followed_days >= 0).all():
            raise ValueError("days from the query must be numbers of at least 0")

    @property
    def dead(self) -> Bool[np.ndarray, " n"]:
        """Whether the follow-up ended in death; false where nobody says so."""
        return np.zeros(len(self.subject), np.bool_) if self.died is None else self.died

    @property
    def seen_days(self) -> Float[np.ndarray, " n"]:
        """Days under observation: to the end, or to the last next occurrence if that is later."""
        occurred = np.where(np.isfinite(self.next_days), self.next_days, 0.0)
        return np.maximum(occurred.max(axis=1, initial=0.0), self.followed_days)


def within(followed: FollowedQueries, score: Float[np.ndarray, "n V"], days: float) -> Predictions:
    """Return a row per query and target of who was followed for `days`, or died before.

    An occurrence on the last day counts. Whoever died without it did not have it.

    Args:
        followed: The queries.
        score: The risk within `days`, or any score to rank by.
        days: The horizon.
    """
    occurs = followed.next_days <= days
    known = (followed.seen_days >= days) | followed.dead
    rows = Predictions.of_queries(
        followed.subject.astype(np.int64),
        followed.site.astype(np.int32),
        score.astype(np.float32),
        occurs,
        followed.repeats.astype(np.float32),
    )
    return rows.where(np.repeat(known, occurs.shape[1]))


def survival_of(
    followed: FollowedQueries,
    score: Float[np.ndarray, "n V"],
    target: int,
    subset: Subset = "overall",
) -> SurvivalTimes:
    """Return one target's time to event, for `concordance.concordance`.

    Death without the event censors at death: the index compares the times of people who are alive.

    Args:
        followed: The queries.
        score: Higher for an earlier event.
        target: Which column.
        subset: All queries, those of people who had the code before, or of those who had not.
    """
    keep = np.ones(len(followed.subject), np.bool_)
    if subset != "overall":
        keep = (followed.repeats[:, target] > 0) == (subset == "repeat")
    event_days = followed.next_days[keep, target].astype(np.float64)
    event = np.isfinite(event_days)
    return SurvivalTimes(
        subject=followed.subject[keep].astype(np.int64),
        time_days=np.where(event, event_days, followed.followed_days[keep]),
        event=event,
        score=score[keep, target],
    )


def horizon_task(days: float) -> str:
    """Return a horizon's name in the rows, ``within_365_days``."""
    return f"within_{days:g}_days"


def horizon_rows(
    followed: FollowedQueries,
    scores: Mapping[str, Floats],
    *,
    bootstraps: int,
    rng: np.random.Generator,
    reference: str = "federated",
    horizons_days: Sequence[float] = HORIZONS_DAYS,
    subsets: Sequence[Subset] = SUBSETS,
) -> list[MetricRow]:
    """Return every arm's metrics at each horizon, with paired differences to `reference`.

    Args:
        followed: The queries, the same for every arm.
        scores: Arm → [H, n, V] risk within each horizon; or [n, V] one score for all of them, of
            which only AUROC and average precision are taken, being no probability.
        bootstraps: Number of replicates.
        rng: Where the draws come from.
        reference: The arm the others are held against.
        horizons_days: The H horizons.
        subsets: The columns.
    """
    rows: list[MetricRow] = []
    risks = all(score.ndim == 3 for score in scores.values())
    for place, days in enumerate(horizons_days):
        of = {arm: s[place] if s.ndim == 3 else s for arm, s in scores.items()}
        rows += metric_rows(
            {arm: within(followed, score, days) for arm, score in of.items()},
            task=horizon_task(days),
            bootstraps=bootstraps,
            rng=rng,
            reference=reference,
            metrics=metrics_at_horizon(are_probabilities=risks),
            subsets=subsets,
        )
    return rows


def time_to_event_rows(
    followed: FollowedQueries,
    scores: Mapping[str, Float[np.ndarray, "n V"]],
    *,
    bootstraps: int,
    rng: np.random.Generator,
    reference: str = "federated",
    until_days: float | None = HORIZONS_DAYS[-1],
    subsets: Sequence[Subset] = SUBSETS,
) -> list[MetricRow]:
    """Return Harrell's and Uno's C of every arm, the mean over targets with enough events.

    Of 2,000 queries, a target, an arm and 1,000 replicates take about a second on one core, of
    20,000 about ten: with many targets, ask for fewer replicates.

    Args:
        followed: The queries, the same for every arm.
        scores: Arm → a score, higher for an earlier event; the risk at the longest horizon will do.
        bootstraps: Number of replicates.
        rng: Where the draws come from.
        reference: The arm the others are held against.
        until_days: Truncation time; None is all the follow-up.
        subsets: The columns.
    """
    rows: list[MetricRow] = []
    for subset in subsets:
        targets = range(followed.next_days.shape[1])
        arms = {
            arm: [survival_of(followed, score, target, subset) for target in targets]
            for arm, score in scores.items()
        }
        rows += concordance_rows(
            arms,
            task=TIME_TO_EVENT,
            subset=subset,
            bootstraps=bootstraps,
            rng=rng,
            reference=reference,
            until_days=until_days,
        )
    return rows
