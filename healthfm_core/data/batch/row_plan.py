"""Rows to be: whose record is read, what of it is kept, and where each item goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int64, UInt8
from healthfm_core.data.batch.hiding import HiddenItems
from healthfm_core.data.batch.segments import offsets_of, ranges
from healthfm_core.data.batch.sequences import EVENT, KINDS, STATIC, WEARABLE, Sequences
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.registry import columns_of, modality_names
from healthfm_core.modalities.wearable import WEARABLES


@dataclass(frozen=True)
class Sizes:
    """What a batch is padded and cut to.

    Attributes:
        max_len: Most soft tokens, statics and history items of a row together.
        max_wearable: Most wearable tokens of a row.
        soft_tokens: Modality → soft tokens in the row of a subject who has a value of its panel.
        targets: V.
        panel: P of the batch, at least 1.
        windows: W, at least 1.
        features: F, at least 1.
    """

    max_len: int
    max_wearable: int
    soft_tokens: Mapping[str, int]
    targets: int
    panel: int
    windows: int
    features: int


@dataclass(frozen=True)
class RowPlan:
    """R rows to be: whose record, up to where, and what is asked.

    Attributes:
        subject: [R] index of the subject.
        stop: [R] index of the item before which the row's history ends.
        query_offsets: [R + 1] the row's queries among those below.
        time_us: [.] the query's own time.
        known_stop: [.] index of the item before which what the query may know ends.
        known_visits: [.] visits of the subject that lie wholly within what it may know.
        next_visit: [.] the first visit of the subject that starts after that.
        label: [.] the task's label, NaN where there is none.
    """

    subject: Int64
    stop: Int64
    query_offsets: Int64
    time_us: Int64
    known_stop: Int64
    known_visits: Int64
    next_visit: Int64
    label: Float32

    def __len__(self) -> int:
        return len(self.subject)

    def take(self, rows: Int64) -> RowPlan:
        """Return some of the rows, in that order."""
        count = np.diff(self.query_offsets)[rows]
        query = ranges(self.query_offsets[rows], count)
        return RowPlan(
            self.subject[rows],
            self.stop[rows],
            offsets_of(count),
            self.time_us[query],
            self.known_stop[query],
            self.known_visits[query],
            self.next_visit[query],
            self.label[query],
        )


@dataclass(frozen=True)
class Drops:
    """What is hidden of each row, as if the subject never had it.

    Attributes:
        modality: Modality → [R] rows from which it is hidden; the birth is part of the clinical
            records.
        event: probability of each clinical event.
        single: single things.
    """

    modality: Mapping[str, Bool]
    event: float = 0.0
    single: HiddenItems | None = None

    @classmethod
    def nothing(cls, rows: int, single: HiddenItems | None = None) -> Self:
        """Return that no modality is dropped from so many rows."""
        none = np.zeros(rows, np.bool_)
        return cls(dict.fromkeys(modality_names(), none), single=single)

    def panel_left(self, sequences: Sequences, subject: Int64) -> Bool:
        """Return which of the panels' values [R, P] of each row's subject are left."""
        left = sequences.panel_mask[subject]
        for name in modality_names("panel"):
            columns = columns_of(name, sequences.panel_names)
            left[:, columns] &= ~self.modality[name][:, None]
        return left if self.single is None else left & ~self.single.score

    @property
    def birth(self) -> Bool:
        """[R] rows whose birth is hidden."""
        clinic = self.modality[EHR]
        return clinic if self.single is None else clinic | self.single.birth


@dataclass(frozen=True)
class ItemPlacement:
    """Where each kept item of each row goes.

    Attributes:
        soft_tokens: [R, G] which of the study's soft tokens a row has; they lead the row.
        statics: [R] leading positions without a time, soft tokens included.
        length: [R] positions before the queries.
        item: [K] kept items, row by row.
        row: [K] their rows.
        position: [K] their positions.
        query_end: [.] for each query, positions that hold what it may know.
    """

    soft_tokens: Bool
    statics: Int64
    length: Int64
    item: Int64
    row: Int64
    position: Int64
    query_end: Int64


def place_items(
    sequences: Sequences, rows: RowPlan, drops: Drops, sizes: Sizes, rng: np.random.Generator | None
) -> ItemPlacement:
    """Choose the items of each row (statics, then the latest history) and their positions."""
    low = sequences.offsets[rows.subject]
    size = rows.stop - low
    start = offsets_of(size)
    row = np.repeat(np.arange(len(rows)), size)
    item = ranges(low, size)
    kind = sequences.kind[item]
    soft_tokens = _soft_tokens(sequences, rows, drops, sizes)
    slots = soft_tokens.sum(axis=1, dtype=np.int64)
    keep = _not_dropped(row, kind, slots, drops, rng)
    if drops.single is not None:
        keep &= drops.single.shown(low, size)
    static = keep & (kind == STATIC)
    keep &= ~static | (ranges(np.zeros_like(size), size) < (sizes.max_len - 1 - slots)[row])
    static &= keep
    statics = slots + np.bincount(row[static], minlength=len(rows))
    worn = keep & (kind == WEARABLE)
    if worn.any():
        keep &= ~worn | (_from_end(worn, row, start) < sizes.max_wearable)
    history = keep & ~static
    keep = static | (history & (_from_end(history, row, start) < (sizes.max_len - statics)[row]))
    before = offsets_of(keep.astype(np.int64))
    kept = np.flatnonzero(keep)
    base = slots - before[start[:-1]]
    query_row = np.repeat(np.arange(len(rows)), np.diff(rows.query_offsets))
    query_at = start[query_row] + rows.known_stop - low[query_row]
    return ItemPlacement(
        soft_tokens=soft_tokens,
        statics=statics,
        length=before[start[1:]] + base,
        item=item[kept],
        row=row[kept],
        position=before[kept] + base[row[kept]],
        query_end=before[query_at] + base[query_row],
    )


def _soft_tokens(sequences: Sequences, rows: RowPlan, drops: Drops, sizes: Sizes) -> Bool:
    """Return [R, G] which soft tokens the rows have: all of a panel's where a value of it is."""
    left = drops.panel_left(sequences, rows.subject)
    tokens = [np.zeros((len(rows), 0), np.bool_)]
    for name in modality_names("panel"):
        has_value = left[:, columns_of(name, sequences.panel_names)].any(axis=1, keepdims=True)
        tokens.append(np.repeat(has_value, sizes.soft_tokens.get(name, 0), axis=1))
    return np.concatenate(tokens, axis=1)


def _not_dropped(
    row: Int64,
    kind: UInt8,
    slots: Int64,
    drops: Drops,
    rng: np.random.Generator | None,
) -> Bool:
    allowed = np.ones((len(slots), KINDS), np.bool_)
    allowed[drops.modality[EHR], STATIC] = False
    allowed[drops.modality[EHR], EVENT] = False
    allowed[drops.modality[WEARABLES], WEARABLE] = False
    keep = allowed[row, kind]
    if drops.event > 0 and rng is not None:
        fewer = keep & ~((kind == EVENT) & (rng.random(len(kind)) < drops.event))
        empty = (np.bincount(row[fewer], minlength=len(slots)) + slots) == 0
        keep = fewer | (keep & empty[row])
    return keep


def _from_end(flag: Bool, row: Int64, start: Int64) -> Int64:
    """Return how many flagged items of the same row follow each item."""
    before = offsets_of(flag.astype(np.int64))
    return before[start[1:]][row] - before[1:]
