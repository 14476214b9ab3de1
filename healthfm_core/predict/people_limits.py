"""Whom a model should not be asked about, since it has seen nobody like them; and why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.data.batch.batch import DAYS_PER_YEAR, US_PER_DAY
from healthfm_core.data.batch.moments import Moments
from healthfm_core.data.batch.row_plan import RowPlan
from healthfm_core.data.batch.segments import offsets_of
from healthfm_core.data.batch.sequences import UNKNOWN_TIME, WEARABLE, Sequences

REASONS: Final = {
    "not_in_store": "the store does not have them",
    "no_history": "nothing is on record of them by then",
    "died": "they had died by then",
    "few_known_codes": "the model knows too few of their codes",
    "age": "they are of another age",
    "age_unknown": "their age is not known",
    "gap": "they were last seen too long before",
}
"""Why somebody has no prediction, in the order in which it is looked for → in words."""


@dataclass(frozen=True)
class PeopleLimits:
    """What a person has to be like.

    Attributes:
        known_codes: Least share of a person's events by then, and static facts, that are under a
            code of the model's vocabulary or below one; of who has none nothing is asked.
        ages: Youngest and oldest age in years at the moment, both allowed; None is any.
        max_gap_days: Most days from the last of the record to the moment; None is any.
        last_edge_days: How far hazards reach from the last visit; None for a label.
    """

    known_codes: float = 0.5
    ages: tuple[float, float] | None = None
    max_gap_days: float | None = None
    last_edge_days: float | None = None


@dataclass(frozen=True)
class PeopleFacts:
    """What is known of n people at their moments.

    Attributes:
        known_codes: [n] share of events and static facts under codes that the model knows, NaN
            where there are none.
        age_years: [n] NaN where the birth is not known.
        gap_days: [n] from the last of the record that is read to the moment.
        has_history: [n] whether anything is on record.
        died: [n] whether by then.
    """

    known_codes: Float32
    age_years: Float32
    gap_days: Float32
    has_history: Bool
    died: Bool

    @classmethod
    def of(
        cls, people: Sequences, moments: Moments, rows: RowPlan, died_us: Int64, first_code: int
    ) -> Self:
        """Return the facts of `moments`.

        Args:
            people: The people.
            moments: Whom, and when.
            rows: What is read of those with a history.
            died_us: [S] the people's death, µs since 1970; the latest time where there is none.
            first_code: Code indices below it stand for codes that the model does not know.
        """
        answered = moments.answered
        time_us = np.where(answered, moments.time_us, 0)
        birth_us = people.birth_us[moments.subject]
        years = (time_us - np.where(birth_us == UNKNOWN_TIME, 0, birth_us)) / US_PER_DAY
        known = answered & (birth_us != UNKNOWN_TIME)
        gap = np.where(answered, time_us - moments.last_us, 0) / US_PER_DAY
        return cls(
            known_codes=_known_codes(people, moments, rows, first_code),
            age_years=np.where(known, years / DAYS_PER_YEAR, np.nan).astype(np.float32),
            gap_days=gap.astype(np.float32),
            has_history=answered,
            died=answered & (died_us[moments.subject] <= time_us),
        )

    def reasons(self, limits: PeopleLimits, horizon_days: float | None) -> Int64:
        """Return [n] place of the first of `REASONS` that holds, -1 where none does."""
        low, high = limits.ages or (-np.inf, np.inf)
        reach = np.inf if limits.max_gap_days is None else limits.max_gap_days
        if limits.last_edge_days is not None and horizon_days is not None:
            reach = min(reach, limits.last_edge_days - horizon_days)
        unknown = np.isnan(self.age_years)
        age = np.where(unknown, low, self.age_years)
        holds = {
            "no_history": ~self.has_history,
            "died": self.died,
            "few_known_codes": self.known_codes < limits.known_codes,
            "age": (age < low) | (age > high),
            "age_unknown": unknown & (limits.ages is not None),
            "gap": self.gap_days > reach,
        }
        reason = np.full(len(unknown), -1, np.int64)
        for name, where in holds.items():
            reason[where & (reason < 0)] = tuple(REASONS).index(name)
        return reason


def _known_codes(people: Sequences, moments: Moments, rows: RowPlan, first_code: int) -> Float32:
    """Return [n] the share of each person's events and statics by then under known codes."""
    clinical = people.kind != WEARABLE
    in_all = offsets_of(clinical.astype(np.int64))
    known = offsets_of((clinical & (people.code >= first_code)).astype(np.int64))
    low = people.offsets[rows.subject]
    total, of = in_all[rows.stop] - in_all[low], known[rows.stop] - known[low]
    share = np.full(len(moments.subject), np.nan, np.float32)
    share[moments.answered] = np.divide(of, total, out=np.full(len(total), np.nan), where=total > 0)
    return share
