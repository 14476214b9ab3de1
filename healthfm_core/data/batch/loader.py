"""Batches of rows for training and evaluation, from ragged sequences."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.collate import collate
from healthfm_core.data.batch.hiding import HiddenItems
from healthfm_core.data.batch.row_plan import Drops, Record, RowPlan, Sizes, place_items
from healthfm_core.data.batch.segments import offsets_of, ranges, search
from healthfm_core.data.batch.sequences import (
    EVENT,
    NOW,
    SEP,
    STATIC,
    UNKNOWN_TIME,
    WEARABLE,
    Sequences,
)
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.registry import holders, modality_names
from healthfm_core.modalities.wearable import WEARABLES

Query = Literal["sep", "now", "label", "worn", "early"]
QUERIES: Final[tuple[Query, ...]] = ("sep", "now", "label", "worn", "early")
"""All kinds of row, in the order in which a training step reads them."""

NO_DROPOUT: Final[Mapping[str, float]] = MappingProxyType({})
_HOUR_US: Final = 3_600_000_000
_POOL: Final = 32
"""Batches whose rows are sorted by length together."""


class BatchLoader:
    """Makes batches of one site's subjects.

    Five questions can be asked of a record:

    - ``sep``: after each visit but the last, at the time of the next one, what occurs in it. A row
      is a subject with two visits or more; the latest `max_queries` visits of the window ask.
    - ``now``: when each target occurs next. In training a row ends at one random visit (not the
      last, where there are more), and asks there; in evaluation every visit of the window asks. A
      subject who has no visit but a history is asked at its end.
    - ``label``: the task's label at its prediction time. A row is a label, and nothing later than
      that time is in it.
    - ``worn``: when each target occurs next, asked at a worn hour. A row is a subject who wears a
      device and has visits; it ends at one worn hour, a random one in training, else the last.
    - ``early``: what is written down in the hours to come. A row is a subject whose record goes on
      for so many hours after the end of some bin (`tokens.bin_hours`, else an hour) that holds a
      clinical event; it ends there, in training at the bin of a random event, else at the last.

    Which visits ask depends on the record alone, never on what was dropped from it.

    Args:
        sequences: The subjects.
        tokens: Cuts: `max_len` (of soft tokens, statics and history), `max_queries`,
            `max_wearable_tokens`; bins.
        n_targets: V, at least 1.
        windows: W; 0 without wearables.
        features: F; 0 without wearables.
        soft_tokens: Modality → soft tokens in the row of a subject with a value of its panel.
        forecast_hours: How long a record goes on after an ``early`` row.
    """

    def __init__(
        self,
        sequences: Sequences,
        tokens: TokensConfig,
        *,
        n_targets: int,
        windows: int,
        features: int,
        soft_tokens: Mapping[str, int],
        forecast_hours: float = 24.0,
    ) -> None:
        self.sequences = sequences
        self._bin_us = round((tokens.bin_hours or 1.0) * _HOUR_US)
        self._forecast_us = round(forecast_hours * _HOUR_US)
        self._record = Record(sequences)
        self._max_queries = tokens.max_queries
        self._sizes = Sizes(
            max_len=tokens.max_len,
            max_wearable=tokens.max_wearable_tokens,
            soft_tokens=soft_tokens,
            targets=max(1, n_targets),
            panel=max(1, len(sequences.panel_names)),
            windows=max(1, windows),
            features=max(1, features),
        )
        self._has_panel = {
            name: np.asarray(holders(name, sequences), np.bool_) for name in modality_names("panel")
        }
        self._first_visit = self._first_in_window()
        self._worn_items = np.flatnonzero(sequences.kind == WEARABLE)
        worn = np.diff(self._record.worn_before[sequences.offsets]) > 0
        self._wearers = np.flatnonzero(worn & (np.diff(sequences.visit_offsets) > 0))

    def n_rows(self, query: Query) -> int:
        """Return the number of rows an epoch of `query` has."""
        if query == "label":
            return len(self.sequences.label_subject)
        if query == "sep":
            return int((np.diff(self.sequences.visit_offsets) >= 2).sum())
        if query == "worn":
            return len(self._wearers)
        if query == "early":
            return len(self._early_bins[0])
        return int((self._record.end_us != UNKNOWN_TIME).sum())

    def epoch(
        self,
        rng: np.random.Generator,
        *,
        batch_size: int,
        query: Query,
        dropout: Mapping[str, float] = NO_DROPOUT,
        drop_events: float = 0.0,
    ) -> Iterator[Batch]:
        """Yield every row once, shuffled, in batches of rows of like length.

        What is dropped is hidden as if the subject had never had it. Where the draw would leave a
        row nothing at all, nothing is dropped from it.

        Args:
            rng: Decides everything; the same state gives the same batches.
            batch_size: Rows of a batch; the last ones may be smaller.
            query: What is asked.
            dropout: Modality → probability, per row, that all of it is hidden (of the clinic the
                age too); 0 for one that is not named.
            drop_events: Probability, per clinical event, that it is hidden.
        """
        rows = self._rows(query, rng)
        for picked in self._shuffled(rows, batch_size, rng):
            chosen = rows.take(picked)
            yield self._batch(chosen, self._dropped(chosen, dropout, drop_events, rng), query, rng)

    def sampled(
        self,
        rng: np.random.Generator,
        drawn: Bool,
        *,
        batch_size: int,
        query: Query,
        dropout: Mapping[str, float] = NO_DROPOUT,
        drop_events: float = 0.0,
    ) -> Iterator[Batch]:
        """Yield one row of each subject who is drawn and has any, the shortest first.

        Of a subject's several labels one is taken at random. Nobody drawn: no batch.

        Args:
            rng: Decides which row of a subject, and what is dropped.
            drawn: [N] the subjects.
            batch_size: Rows of a batch, at most.
            query: What is asked.
            dropout: See `epoch`.
            drop_events: See `epoch`.
        """
        rows = self._rows(query, rng)
        order = rng.permutation(len(rows))
        order = order[drawn[rows.subject[order]]]
        _, first = np.unique(rows.subject[order], return_index=True)
        picked = order[first]
        picked = picked[np.argsort(self._lengths(rows)[picked], kind="stable")]
        for low in range(0, len(picked), batch_size):
            chosen = rows.take(picked[low : low + batch_size])
            yield self._batch(chosen, self._dropped(chosen, dropout, drop_events, rng), query, rng)

    def in_order(
        self, *, batch_size: int, query: Query, inputs: Collection[str] | None = None
    ) -> Iterator[Batch]:
        """Yield every row once, in the order of the subjects (of the labels, for ``label``).

        Args:
            batch_size: Rows of a batch.
            query: What is asked.
            inputs: Modalities that are shown; None is all.
        """
        rows = self._rows(query, None)
        shown = set(modality_names() if inputs is None else inputs)
        for low in range(0, len(rows), batch_size):
            chosen = rows.take(np.arange(low, min(low + batch_size, len(rows))))
            hidden = {name: np.full(len(chosen), name not in shown) for name in modality_names()}
            yield self._batch(chosen, Drops(hidden), query, None)

    def plan(self, query: Query) -> RowPlan:
        """Return the rows that ask `query`, as `in_order` reads them and, for ``sep``, an epoch."""
        return self._rows(query, None)

    def after_visits(self, subject: int) -> RowPlan:
        """Return a row per visit of a subject, which ends with the visit and asks there.

        So is a record read in training. A subject with no visit but a history is asked at its end.
        """
        who = np.array([subject])
        if self._record.end_us[subject] == UNKNOWN_TIME:
            return self._visit_rows(who[:0], who[:0], who[:0])
        n_visits = np.diff(self.sequences.visit_offsets)[who]
        visit = np.arange(max(int(n_visits[0]), 1))
        last = np.minimum(visit + 1, n_visits)
        rows = self._visit_rows(np.repeat(who, len(visit)), visit, last)
        return replace(rows, stop=rows.known_stop)

    def rows_at(self, subject: Int64, time_us: Int64) -> RowPlan:
        """Return a row per subject and time that holds nothing later, and asks then.

        Args:
            subject: [R] indices of the subjects, who have some history by then.
            time_us: [R] µs since 1970.
        """
        return self._rows_at(subject, time_us, np.full(len(subject), np.nan, np.float32))

    def last_item_us(self, subject: Int64, time_us: Int64, *, clinical: bool) -> Int64:
        """Return [R] when each subject's last item up to a time was, `UNKNOWN_TIME` without any.

        Args:
            subject: [R] indices of the subjects.
            time_us: [R] µs since 1970.
            clinical: The last clinical event instead, where there is one: the end of a visit, as
                far as it is over by then.
        """
        sequences, record = self.sequences, self._record
        first = sequences.offsets[subject] + record.n_static[subject]
        last = record.history_before(subject, time_us) - 1
        none = last < first
        at = np.maximum(last, 0)
        if clinical and len(sequences.kind):
            event = np.where(sequences.kind == EVENT, np.arange(len(sequences.kind)), -1)
            event = np.maximum.accumulate(event)[at]
            at = np.where(event >= first, event, at)
        if not len(sequences.time_us):
            return np.full(len(subject), UNKNOWN_TIME, np.int64)
        return np.where(none, UNKNOWN_TIME, sequences.time_us[at])

    def asked(
        self, rows: RowPlan, *, batch_size: int, hidden: HiddenItems | None = None
    ) -> Iterator[Batch]:
        """Yield batches of `rows` (of `after_visits`) in their order, less what is hidden."""
        for low in range(0, len(rows), batch_size):
            chosen = rows.take(np.arange(low, min(low + batch_size, len(rows))))
            single = None if hidden is None else hidden.slice(low, low + len(chosen))
            yield self._batch(chosen, _nothing(len(chosen), single), "now", None)

    def items_read(self, rows: RowPlan) -> Int64:
        """Return the items that are left of `rows` when they are cut to their length."""
        return place_items(self._record, rows, _nothing(len(rows)), self._sizes, None).item

    def _batch(
        self, rows: RowPlan, drops: Drops, query: Query, rng: np.random.Generator | None
    ) -> Batch:
        kind = SEP if query == "sep" else NOW
        later_us = self._forecast_us if query == "early" else 0
        return collate(
            self._record, rows, drops, self._sizes, query_kind=kind, later_us=later_us, rng=rng
        )

    def _rows(self, query: Query, rng: np.random.Generator | None) -> RowPlan:
        if query == "label":
            return self._label_rows()
        if query == "worn":
            return self._worn_rows(rng)
        if query == "early":
            return self._early_rows(rng)
        if query == "now":
            return self._now_rows(rng)
        n_visits = np.diff(self.sequences.visit_offsets)
        subject = np.flatnonzero(n_visits >= 2)
        first = np.minimum(self._first_visit[subject], n_visits[subject] - 2)
        return self._visit_rows(subject, first, n_visits[subject] - 1, to_next=True)

    def _label_rows(self) -> RowPlan:
        sequences = self.sequences
        return self._rows_at(
            sequences.label_subject, sequences.label_time_us, sequences.label_value
        )

    def _worn_rows(self, rng: np.random.Generator | None) -> RowPlan:
        sequences, record = self.sequences, self._record
        before = record.worn_before
        low = before[sequences.offsets[self._wearers]]
        count = before[sequences.offsets[self._wearers + 1]] - low
        drawn = np.ones(len(low)) if rng is None else rng.random(len(low))
        hour = low + np.minimum((drawn * count).astype(np.int64), count - 1)
        time = sequences.time_us[self._worn_items[hour]]
        return self._rows_at(self._wearers, time, np.full(len(time), np.nan, np.float32))

    @cached_property
    def _early_bins(self) -> tuple[Int64, Int64, Int64]:
        """Subjects with an ``early`` row; how many events each has to end at; their bins' ends."""
        sequences, record = self.sequences, self._record
        event = np.flatnonzero(sequences.kind == EVENT)
        subject = np.searchsorted(sequences.offsets, event, side="right") - 1
        stop_us = (sequences.time_us[event] // self._bin_us + 1) * self._bin_us
        end_us = -(-record.end_us[subject] // self._bin_us) * self._bin_us
        chosen = stop_us + self._forecast_us <= end_us
        subjects, count = np.unique(subject[chosen], return_counts=True)
        return subjects, count.astype(np.int64), stop_us[chosen]

    def _early_rows(self, rng: np.random.Generator | None) -> RowPlan:
        subject, count, stop_us = self._early_bins
        drawn = np.ones(len(subject)) if rng is None else rng.random(len(subject))
        at = np.minimum((drawn * count).astype(np.int64), count - 1)
        time = stop_us[offsets_of(count)[:-1] + at]
        return self._rows_at(subject, time, np.full(len(time), np.nan, np.float32))

    def _rows_at(self, subject: Int64, time: Int64, label: Float32) -> RowPlan:
        """Return a row per subject and time that holds what is not later, and asks there."""
        sequences, record = self.sequences, self._record
        stop = record.history_before(subject, time)
        low, high = sequences.visit_offsets[subject], sequences.visit_offsets[subject + 1]
        begun = search(sequences.visit_time_us, low, high, time, "right") - low
        ended = search(record.visit_end_us, low, high, time, "right") - low
        each = np.arange(len(subject) + 1)
        return RowPlan(subject, stop, each, time, stop, ended, begun, label)

    def _now_rows(self, rng: np.random.Generator | None) -> RowPlan:
        """Return a row per subject with a history: every visit asks, or one that `rng` draws."""
        n_visits = np.diff(self.sequences.visit_offsets)
        subject = np.flatnonzero(self._record.end_us != UNKNOWN_TIME)
        if rng is None:
            return self._visit_rows(subject, self._first_visit[subject], n_visits[subject])
        choices = np.maximum(n_visits[subject] - 1, 1)
        picked = (rng.random(len(subject)) * choices).astype(np.int64)
        rows = self._visit_rows(subject, picked, np.minimum(picked + 1, n_visits[subject]))
        return replace(rows, stop=rows.known_stop)

    def _visit_rows(
        self, subject: Int64, first: Int64, stop: Int64, *, to_next: bool = False
    ) -> RowPlan:
        """Return rows that ask after visits ``first … stop - 1``, at most the latest allowed.

        A subject with none of them asks once, at the end of the record.
        """
        sequences, record = self.sequences, self._record
        first = np.maximum(first, stop - self._max_queries)
        count = stop - first
        visit = ranges(sequences.visit_offsets[subject] + first, count)
        none = np.flatnonzero(count == 0)
        at = np.cumsum(count)[none]
        time = sequences.visit_time_us[visit + 1] if to_next else record.visit_end_us[visit]
        known = ranges(first + 1, count)
        end = sequences.offsets[subject + 1]
        n_visits = sequences.visit_offsets[subject + 1] - sequences.visit_offsets[subject]
        visits = np.insert(known, at, n_visits[none])
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

    def _first_in_window(self) -> Int64:
        """Return each subject's first visit with an item among the latest `max_len`."""
        sequences, record = self.sequences, self._record
        everyone = np.arange(sequences.n_subjects)
        end = sequences.offsets[1:]
        none = np.empty(0, np.int64)
        no_query = np.zeros(len(end) + 1, np.int64)
        label = np.empty(0, np.float32)
        rows = RowPlan(everyone, end, no_query, none, none, none, none, label)
        placed = place_items(record, rows, _nothing(len(end)), self._sizes, None)
        timed = np.flatnonzero(sequences.kind[placed.item] != STATIC)
        earliest = end.copy()
        earliest[placed.row[timed][::-1]] = placed.item[timed][::-1]
        cut = record.visit_last < earliest[record.visit_subject]
        return np.bincount(record.visit_subject[cut], minlength=len(end)).astype(np.int64)

    def _lengths(self, rows: RowPlan) -> Int64:
        history = rows.stop - self.sequences.offsets[rows.subject]
        return np.minimum(history, self._sizes.max_len) + np.diff(rows.query_offsets)

    def _dropped(
        self,
        rows: RowPlan,
        dropout: Mapping[str, float],
        drop_events: float,
        rng: np.random.Generator,
    ) -> Drops:
        """Return what is hidden of each row, by the chances of each modality and of an event.

        A draw that would leave a row nothing hides nothing of it.
        """
        low = self.sequences.offsets[rows.subject]
        worn = self._record.worn_before[rows.stop] - self._record.worn_before[low]
        holds = {EHR: rows.stop - low > worn, WEARABLES: worn > 0}
        holds |= {name: has[rows.subject] for name, has in self._has_panel.items()}
        names = modality_names()
        held = np.stack([holds[name] for name in names], 1)
        dropped = rng.random(held.shape) < np.array([dropout.get(name, 0.0) for name in names])
        dropped &= (held & ~dropped).any(1, keepdims=True)
        return Drops(dict(zip(names, dropped.T, strict=True)), drop_events)

    def _shuffled(
        self, rows: RowPlan, batch_size: int, rng: np.random.Generator
    ) -> Iterator[Int64]:
        """Yield the rows of each batch: like lengths together, in random order."""
        length = self._lengths(rows)
        order = rng.permutation(len(rows))
        pool = np.arange(len(order)) // (batch_size * _POOL)
        order = order[np.lexsort((length[order], pool))]
        for batch in rng.permutation(-(-len(order) // batch_size)):
            yield order[batch * batch_size : (batch + 1) * batch_size]


def _nothing(rows: int, single: HiddenItems | None = None) -> Drops:
    """Return that no modality is dropped from so many rows."""
    none = np.zeros(rows, np.bool_)
    return Drops(dict.fromkeys(modality_names(), none), single=single)
