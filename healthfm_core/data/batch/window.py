"""Where a row that reads to the end of a record begins: its first visit."""

from __future__ import annotations

import numpy as np

from healthfm_core.arrays import Int64
from healthfm_core.bounded_parts import in_parts
from healthfm_core.data.batch.row_plan import Drops, RowPlan, Sizes, place_items
from healthfm_core.data.batch.segments import ranges
from healthfm_core.data.batch.sequences import EVENT, STATIC, Sequences


def first_in_window(sequences: Sequences, sizes: Sizes) -> Int64:
    """Return [S] each subject's first visit with an item among the latest of a row's length.

    Whose record fits into a row is not looked at; of the others, a part at a time.
    """
    name = f"first_visit {sizes.max_len} {sizes.max_wearable} {sorted(sizes.soft_tokens.items())}"
    if name not in sequences.per_subject:
        sequences.per_subject[name] = _first_visits(sequences, sizes)
    return sequences.per_subject[name]


def _first_visits(sequences: Sequences, sizes: Sizes) -> Int64:
    first = np.zeros(sequences.n_subjects, np.int64)
    n_items = np.diff(sequences.offsets)
    most = sizes.max_len - sum(sizes.soft_tokens.values())
    longer = np.flatnonzero((n_items > most) | (sequences.items_worn > sizes.max_wearable))
    for low, high in in_parts(n_items[longer]):
        subject = longer[low:high]
        first[subject] = _first_visit(sequences, subject, sizes)
    return first


def _first_visit(sequences: Sequences, subject: Int64, sizes: Sizes) -> Int64:
    """Return the same of some subjects: the visit of the first event that is left, or the last."""
    size, end = sequences.n_items(subject), sequences.offsets[subject + 1]
    none, no_query = np.empty(0, np.int64), np.zeros(len(subject) + 1, np.int64)
    no_label = np.empty(0, np.float32)
    rows = RowPlan(subject, end, no_query, none, none, none, none, no_label)
    placed = place_items(sequences, rows, Drops.nothing(len(subject)), sizes, None)
    timed = np.flatnonzero(sequences.kind[placed.item] != STATIC)
    earliest = end.copy()
    earliest[placed.row[timed][::-1]] = placed.item[timed][::-1]
    item, of = ranges(end - size, size), np.repeat(np.arange(len(subject)), size)
    left = (sequences.kind[item] == EVENT) & (item >= earliest[of])
    first = sequences.n_visits(subject)
    np.minimum.at(first, of[left], sequences.visit[item[left]])
    return first
