"""When targets occur, seen from each query: how often before, at the next visit, how soon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.data.batch.batch import US_PER_DAY
from healthfm_core.data.batch.row_plan import RowPlan
from healthfm_core.data.batch.segments import ranges
from healthfm_core.data.batch.sequences import Sequences

_NEVER: Final = np.iinfo(np.int64).max


def days(span_us: Int64) -> Float32:
    """Return a span in days."""
    return (span_us / US_PER_DAY).astype(np.float32)


@dataclass(frozen=True)
class Occurrences:
    """Every (visit, target) of every row's subject, over the whole record, and the row's queries.

    Attributes:
        row: [K] the row.
        visit: [K] number of the visit, ascending within a row.
        target: [K] the target that occurs in it.
        time_us: [K] start of the visit.
        mask: [R, Q] where there is a query.
    """

    row: Int64
    visit: Int64
    target: Int64
    time_us: Int64
    mask: Bool

    @classmethod
    def of(cls, sequences: Sequences, rows: RowPlan, mask: Bool) -> Self:
        """Return the pairs of the subjects of `rows`."""
        low = sequences.visit_offsets[rows.subject]
        n_visits = sequences.visit_offsets[rows.subject + 1] - low
        number = ranges(np.zeros_like(n_visits), n_visits)
        at, of_visit = ranges(low, n_visits), np.repeat(np.arange(len(rows)), n_visits)
        first = sequences.visit_target_offsets[at]
        size = sequences.visit_target_offsets[at + 1] - first
        target = sequences.visit_target[ranges(first, size)].astype(np.int64)
        time = np.repeat(sequences.visit_time_us[at], size)
        return cls(np.repeat(of_visit, size), np.repeat(number, size), target, time, mask)

    def _queries_up_to(self, bound: Int64) -> Int64:
        """Count, for each pair, the row's queries whose `bound` is at most the pair's visit."""
        table = np.full(self.mask.shape, _NEVER, np.int64)
        table[self.mask] = bound
        return (table[self.row] <= self.visit[:, None]).sum(1)

    def repeats(self, rows: RowPlan, shape: tuple[int, int, int]) -> Float32:
        """Return the visits with each target that each query knows of."""
        first = self._queries_up_to(rows.known_visits)
        known = first < shape[1]
        at = (self.row[known] * shape[1] + first[known]) * shape[2] + self.target[known]
        count = np.zeros(shape, np.float32)
        np.add.at(count.reshape(-1), at, np.float32(1))
        for query in range(1, shape[1]):
            count[:, query] += count[:, query - 1]
        count[~self.mask] = 0
        return count

    def at_next(self, rows: RowPlan, shape: tuple[int, int, int]) -> Float32:
        """Return which targets occur in the visit that each query asks about."""
        last = self._queries_up_to(rows.next_visit) - 1
        table = np.full(self.mask.shape, -1, np.int64)
        table[self.mask] = rows.next_visit
        hit = (last >= 0) & (table[self.row, last] == self.visit)
        target = np.zeros(shape, np.float32)
        target[self.row[hit], last[hit], self.target[hit]] = 1
        return target

    def days_to_next(
        self, rows: RowPlan, query_time: Int64, shape: tuple[int, int, int]
    ) -> Float32:
        """Return days from each query to each target's next visit, +inf where there is none."""
        last = self._queries_up_to(rows.next_visit) - 1
        ahead = np.flatnonzero(last >= 0)[::-1]  # backwards: the earliest visit is written last
        at = (self.row[ahead] * shape[1] + last[ahead]) * shape[2] + self.target[ahead]
        next_us = np.full(int(np.prod(shape)), _NEVER, np.int64)
        next_us[at] = self.time_us[ahead]
        next_us = np.minimum.accumulate(next_us.reshape(shape)[:, ::-1], axis=1)[:, ::-1]
        never = (next_us == _NEVER) | ~self.mask[:, :, None]
        span = np.where(never, 0, next_us - np.where(never, 0, query_time[:, :, None]))
        return np.where(never, np.inf, days(span)).astype(np.float32)
