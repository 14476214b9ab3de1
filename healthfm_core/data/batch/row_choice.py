"""Which rows ask a query: of whom, and, when one is read, up to where and what.

A row is worked out when it is taken. What is held of all of them is whose each one is, and what
was drawn for it, so that a site's people need not fit in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np

from healthfm_core.arrays import Float32, Float64, Int64
from healthfm_core.bounded_parts import in_parts
from healthfm_core.data.batch.row_plan import RowPlan
from healthfm_core.data.batch.segments import offsets_of, ranges, search
from healthfm_core.data.batch.sequences import EVENT, UNKNOWN_TIME, Sequences

Query = Literal["sep", "now", "label", "worn", "early"]
QUERIES: Final[tuple[Query, ...]] = ("sep", "now", "label", "worn", "early")
"""All kinds of row, in the order in which a training step reads them."""

Build = Callable[[Int64], RowPlan]
"""Returns some of the rows, given by number, in that order."""


@dataclass(frozen=True)
class RowChoice:
    """R rows that ask a query, none of them worked out yet.

    Attributes:
        subject: [R] index of each one's subject.
        take: Works some of them out.
    """

    subject: Int64
    take: Build

    def __len__(self) -> int:
        return len(self.subject)

    def all(self) -> RowPlan:
        """Return all of them, worked out."""
        return self.take(np.arange(len(self)))


class RowChooser:
    """Knows the rows of every query over some people.

    Args:
        sequences: The people.
        first_visit: [S] each subject's first visit with an item within a row's length.
        max_queries: Queries of a row, at most.
        bin_us: After how long an ``early`` row's bin ends.
        forecast_us: How long a record goes on after an ``early`` row.
    """

    def __init__(
        self,
        sequences: Sequences,
        first_visit: Int64,
        *,
        max_queries: int,
        bin_us: int,
        forecast_us: int,
    ) -> None:
        self._people = sequences
        self._first_visit = first_visit
        self._max_queries = max_queries
        self._bin_us, self._forecast_us = bin_us, forecast_us

    def count(self, query: Query) -> int:
        """Return how many rows ask `query`."""
        people = self._people
        if query == "label":
            return len(people.label_subject)
        if query == "sep":
            return int((np.diff(people.visit_offsets) >= 2).sum())
        if query == "worn":
            return len(self._wearers)
        if query == "early":
            return len(self._early[0])
        return int((people.record.end_us != UNKNOWN_TIME).sum())

    def rows(self, query: Query, rng: np.random.Generator | None) -> RowChoice:
        """Return the rows that ask `query`.

        Args:
            query: What is asked.
            rng: Draws where each ends, in training; None: as in evaluation.
        """
        people = self._people
        if query == "label":
            return RowChoice(people.label_subject, self._labelled)
        if query == "worn":
            return self._worn(rng)
        if query == "early":
            return self._early_rows(rng)
        if query == "now":
            return self._now(rng)
        subject = np.flatnonzero(np.diff(people.visit_offsets) >= 2)
        return RowChoice(subject, lambda rows: self._before_visits(subject[rows]))

    def after_visits(self, subject: int) -> RowPlan:
        """Return a row per visit of a subject, which ends with the visit and asks there.

        A subject with no visit but a history is asked at its end.
        """
        who = np.array([subject])
        if self._people.record.end_us[subject] == UNKNOWN_TIME:
            return self._of_visits(who[:0], who[:0], who[:0])
        n_visits = self._people.n_visits(who)
        visit = np.arange(max(int(n_visits[0]), 1))
        last = np.minimum(visit + 1, n_visits)
        rows = self._of_visits(np.repeat(who, len(visit)), visit, last)
        return replace(rows, stop=rows.known_stop)

    def at(self, subject: Int64, time_us: Int64, label: Float32 | None = None) -> RowPlan:
        """Return a row per subject and time that holds what is not later, and asks then.

        Args:
            subject: [R] who.
            time_us: [R] µs since 1970.
            label: [R] what is asked for; None: it is not known.
        """
        people = self._people
        stop = people.history_before(subject, time_us)
        low, high = people.visit_offsets[subject], people.visit_offsets[subject + 1]
        begun = search(people.visit_time_us, low, high, time_us, "right") - low
        ended = search(people.record.visit_end_us, low, high, time_us, "right") - low
        known = np.full(len(subject), np.nan, np.float32) if label is None else label
        each = np.arange(len(subject) + 1)
        return RowPlan(subject, stop, each, time_us, stop, ended, begun, known)

    def _labelled(self, rows: Int64) -> RowPlan:
        people = self._people
        asked, time_us = people.label_subject[rows], people.label_time_us[rows]
        return self.at(asked, time_us, people.label_value[rows])

    @cached_property
    def _wearers(self) -> Int64:
        worn = self._people.items_worn > 0
        return np.flatnonzero(worn & (np.diff(self._people.visit_offsets) > 0))

    def _worn(self, rng: np.random.Generator | None) -> RowChoice:
        wearers, record = self._wearers, self._people.record
        drawn = _drawn(rng, len(wearers))

        def take(rows: Int64) -> RowPlan:
            subject = wearers[rows]
            low = record.worn_offsets[subject]
            count = record.worn_offsets[subject + 1] - low
            hour = low + np.minimum((drawn[rows] * count).astype(np.int64), count - 1)
            return self.at(subject, self._people.time_us[record.worn_item[hour]])

        return RowChoice(wearers, take)

    @cached_property
    def _early(self) -> tuple[Int64, Int64]:
        """Subjects with an ``early`` row, and how many events each has to end at."""
        sizes = np.diff(self._people.offsets)
        none = np.zeros(0, np.int64)
        counts = [none, *(self._early_ends(np.arange(*p))[0] for p in in_parts(sizes))]
        count = np.concatenate(counts)
        subject = np.flatnonzero(count)
        return subject, count[subject]

    def _early_ends(self, subject: Int64) -> tuple[Int64, Int64]:
        """Return [n] how many events each subject has to end at, and [.] those bins' ends."""
        people = self._people
        low, size = people.offsets[subject], people.n_items(subject)
        item, of = ranges(low, size), np.repeat(np.arange(len(subject)), size)
        events = people.kind[item] == EVENT
        item, of = item[events], of[events]
        stop_us = (people.time_us[item] // self._bin_us + 1) * self._bin_us
        end_us = -(-people.record.end_us[subject][of] // self._bin_us) * self._bin_us
        chosen = stop_us + self._forecast_us <= end_us
        return np.bincount(of[chosen], minlength=len(subject)).astype(np.int64), stop_us[chosen]

    def _early_rows(self, rng: np.random.Generator | None) -> RowChoice:
        subjects, counts = self._early
        drawn = _drawn(rng, len(subjects))

        def take(rows: Int64) -> RowPlan:
            subject, count = subjects[rows], counts[rows]
            at = np.minimum((drawn[rows] * count).astype(np.int64), count - 1)
            sizes, times = self._people.n_items(subject), [np.zeros(0, np.int64)]
            for low, high in in_parts(sizes):
                own, stop_us = self._early_ends(subject[low:high])
                times.append(stop_us[offsets_of(own)[:-1] + at[low:high]])
            return self.at(subject, np.concatenate(times))

        return RowChoice(subjects, take)

    def _now(self, rng: np.random.Generator | None) -> RowChoice:
        """Return a row per subject with a history: every visit asks, or one that `rng` draws."""
        subject = np.flatnonzero(self._people.record.end_us != UNKNOWN_TIME)
        if rng is None:
            return RowChoice(subject, lambda rows: self._every_visit(subject[rows]))
        drawn = _drawn(rng, len(subject))
        return RowChoice(subject, lambda rows: self._one_visit(subject[rows], drawn[rows]))

    def _before_visits(self, subject: Int64) -> RowPlan:
        n_visits = self._people.n_visits(subject)
        first = np.minimum(self._first_visit[subject], n_visits - 2)
        return self._of_visits(subject, first, n_visits - 1, to_next=True)

    def _every_visit(self, subject: Int64) -> RowPlan:
        return self._of_visits(subject, self._first_visit[subject], self._people.n_visits(subject))

    def _one_visit(self, subject: Int64, drawn: Float64) -> RowPlan:
        n_visits = self._people.n_visits(subject)
        picked = (drawn * np.maximum(n_visits - 1, 1)).astype(np.int64)
        rows = self._of_visits(subject, picked, np.minimum(picked + 1, n_visits))
        return replace(rows, stop=rows.known_stop)

    def _of_visits(
        self, subject: Int64, first: Int64, stop: Int64, *, to_next: bool = False
    ) -> RowPlan:
        """Return rows that ask after visits ``first … stop - 1``, at most the latest allowed.

        A subject with none of them asks once, at the end of the record.
        """
        people, record = self._people, self._people.record
        first = np.maximum(first, stop - self._max_queries)
        count = stop - first
        visit = ranges(people.visit_offsets[subject] + first, count)
        none = np.flatnonzero(count == 0)
        at = np.cumsum(count)[none]
        time = people.visit_time_us[visit + 1] if to_next else record.visit_end_us[visit]
        end = people.offsets[subject + 1]
        visits = np.insert(ranges(first + 1, count), at, self._people.n_visits(subject)[none])
        return RowPlan(
            subject=subject,
            stop=end,
            query_offsets=offsets_of(np.maximum(count, 1)),
            time_us=np.insert(time, at, record.end_us[subject[none]]),
            known_stop=np.insert(record.visit_stop[visit], at, end[none]),
            known_visits=visits,
            next_visit=visits,
            label=np.full(len(visits), np.nan, np.float32),
        )


def _drawn(rng: np.random.Generator | None, size: int) -> Float64:
    """Return where of its choices each row ends, in [0, 1]; 1 is the last."""
    return np.ones(size) if rng is None else rng.random(size)
