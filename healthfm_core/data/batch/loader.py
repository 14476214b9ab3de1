"""Batches of rows for training and evaluation, from ragged sequences."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Int32, Int64
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.collate import collate
from healthfm_core.data.batch.hiding import HiddenItems
from healthfm_core.data.batch.row_choice import QUERIES, Query, RowChoice, RowChooser
from healthfm_core.data.batch.row_plan import Drops, RowPlan, Sizes, place_items
from healthfm_core.data.batch.segments import search
from healthfm_core.data.batch.sequences import EVENT, NOW, SEP, UNKNOWN_TIME, Sequences
from healthfm_core.data.batch.window import first_in_window
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.registry import holders, modality_names
from healthfm_core.modalities.wearable import WEARABLES

__all__ = ["QUERIES", "BatchLoader", "Query"]

NO_DROPOUT: Final[Mapping[str, float]] = MappingProxyType({})
_HOUR_US: Final = 3_600_000_000
_POOL: Final = 32
"""Batches whose rows are sorted by length together."""
_ROWS_AT_ONCE: Final = 1 << 14
"""Rows that are worked out together for their length alone."""


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
        self._sizes = Sizes(
            max_len=tokens.max_len,
            max_wearable=tokens.max_wearable_tokens,
            soft_tokens=soft_tokens,
            targets=max(1, n_targets),
            panel=max(1, len(sequences.panel_names)),
            windows=max(1, windows),
            features=max(1, features),
        )
        self._forecast_us = round(forecast_hours * _HOUR_US)
        self._chooser = RowChooser(
            sequences,
            first_in_window(sequences, self._sizes),
            max_queries=tokens.max_queries,
            bin_us=round((tokens.bin_hours or 1.0) * _HOUR_US),
            forecast_us=self._forecast_us,
        )
        self._has_panel = {
            name: np.asarray(holders(name, sequences), np.bool_) for name in modality_names("panel")
        }

    def n_rows(self, query: Query) -> int:
        """Return the number of rows an epoch of `query` has."""
        return self._chooser.count(query)

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
        rows = self._chooser.rows(query, rng)
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
        rows = self._chooser.rows(query, rng)
        order = rng.permutation(len(rows))
        order = order[drawn[rows.subject[order]]]
        _, first = np.unique(rows.subject[order], return_index=True)
        picked = order[first]
        picked = picked[np.argsort(self._lengths(rows, picked), kind="stable")]
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
        rows = self._chooser.rows(query, None)
        shown = set(modality_names() if inputs is None else inputs)
        for low in range(0, len(rows), batch_size):
            chosen = rows.take(np.arange(low, min(low + batch_size, len(rows))))
            hidden = {name: np.full(len(chosen), name not in shown) for name in modality_names()}
            yield self._batch(chosen, Drops(hidden), query, None)

    def plan(self, query: Query) -> RowPlan:
        """Return the rows that ask `query`, as `in_order` reads them and, for ``sep``, an epoch."""
        return self._chooser.rows(query, None).all()

    def after_visits(self, subject: int) -> RowPlan:
        """Return a row per visit of a subject, which ends with the visit and asks there.

        So is a record read in training. A subject with no visit but a history is asked at its end.
        """
        return self._chooser.after_visits(subject)

    def rows_at(self, subject: Int64, time_us: Int64) -> RowPlan:
        """Return a row per subject and time that holds nothing later, and asks then.

        Args:
            subject: [R] indices of the subjects, who have some history by then.
            time_us: [R] µs since 1970.
        """
        return self._chooser.at(subject, time_us)

    def last_item_us(self, subject: Int64, time_us: Int64, *, clinical: bool) -> Int64:
        """Return [R] when each subject's last item up to a time was, `UNKNOWN_TIME` without any.

        Args:
            subject: [R] indices of the subjects.
            time_us: [R] µs since 1970.
            clinical: The last clinical event instead, where there is one: the end of a visit, as
                far as it is over by then.
        """
        sequences = self.sequences
        first = sequences.offsets[subject] + sequences.record.n_static[subject]
        last = sequences.history_before(subject, time_us) - 1
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
            yield self._batch(chosen, Drops.nothing(len(chosen), single), "now", None)

    def items_read(self, rows: RowPlan) -> Int64:
        """Return the items that are left of `rows` when they are cut to their length."""
        return place_items(self.sequences, rows, Drops.nothing(len(rows)), self._sizes, None).item

    def _batch(
        self, rows: RowPlan, drops: Drops, query: Query, rng: np.random.Generator | None
    ) -> Batch:
        kind = SEP if query == "sep" else NOW
        later_us = self._forecast_us if query == "early" else 0
        batch = collate(
            self.sequences, rows, drops, self._sizes, query_kind=kind, later_us=later_us, rng=rng
        )
        self.sequences.release()
        return batch

    def _lengths(self, rows: RowChoice, which: Int64 | None = None) -> Int32:
        """Return how long some of the rows are (None: all), a part of them at a time."""
        which = np.arange(len(rows)) if which is None else which
        lengths = np.zeros(len(which), np.int32)
        for low in range(0, len(which), _ROWS_AT_ONCE):
            some = rows.take(which[low : low + _ROWS_AT_ONCE])
            history = some.stop - self.sequences.offsets[some.subject]
            history = np.minimum(history, self._sizes.max_len)
            lengths[low : low + len(some)] = history + np.diff(some.query_offsets)
            self.sequences.release()
        return lengths

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
        low, record = self.sequences.offsets[rows.subject], self.sequences.record
        first, last = (record.worn_offsets[rows.subject + end] for end in (0, 1))
        worn = search(record.worn_item, first, last, rows.stop, "left") - first
        holds = {EHR: rows.stop - low > worn, WEARABLES: worn > 0}
        holds |= {name: has[rows.subject] for name, has in self._has_panel.items()}
        names = modality_names()
        held = np.stack([holds[name] for name in names], 1)
        dropped = rng.random(held.shape) < np.array([dropout.get(name, 0.0) for name in names])
        dropped &= (held & ~dropped).any(1, keepdims=True)
        return Drops(dict(zip(names, dropped.T, strict=True)), drop_events)

    def _shuffled(
        self, rows: RowChoice, batch_size: int, rng: np.random.Generator
    ) -> Iterator[Int64]:
        """Yield the rows of each batch: like lengths together, in random order."""
        length, pool = self._lengths(rows), batch_size * _POOL
        order = rng.permutation(len(rows))
        for low in range(0, len(order), pool):
            some = order[low : low + pool]
            order[low : low + pool] = some[np.argsort(length[some], kind="stable")]
        for batch in rng.permutation(-(-len(order) // batch_size)):
            yield order[batch * batch_size : (batch + 1) * batch_size]
