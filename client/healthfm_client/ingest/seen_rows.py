"""Whose rows an update gave, of when, and a mark of each, to find what of a store may equal one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from meds import birth_code

from healthfm_core.arrays import Bool, Int64
from healthfm_core.data.store.events import STATIC_TIME, coded, ids, times_us
from healthfm_core.data.store.store_files import read_parquet
from healthfm_core.data.store.store_layers import StoreLayer
from healthfm_core.modalities.registry import VITAL_CODES

MARK_BITS: Final = 23
"""Two to the power of it are the marks, a byte each."""
_KEYS: Final = ["subject_id", "time", "code"]
_ODD: Final = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


@dataclass
class SeenRows:
    """Whose rows a source gave, and of when.

    A mark stands for the person, time and code of a row, births and deaths left out. Rows that
    differ may share one: where 40,000 rows are noted one other in 200 has a mark too, where 100
    million are every row, so that more is compared and nothing is missed.

    Attributes:
        people: Arrays of ids, together all of them.
        first_us: The earliest time, of other rows than births and deaths; µs since 1970.
        last_us: The latest.
        timeless: Whether a row has no time.
        births: Arrays of ids, together all who have a birth among the rows.
    """

    people: list[Int64] = field(default_factory=lambda: [np.zeros(0, np.int64)])
    births: list[Int64] = field(default_factory=lambda: [np.zeros(0, np.int64)])
    first_us: int = np.iinfo(np.int64).max
    last_us: int = STATIC_TIME
    timeless: bool = False
    _codes: dict[str, int] = field(default_factory=dict)
    _marks: Bool = field(default_factory=lambda: np.zeros(1 << MARK_BITS, np.bool_))

    @property
    def everyone(self) -> Int64:
        """Whose rows, ascending."""
        return np.unique(np.concatenate(self.people))

    @property
    def born(self) -> Int64:
        """Who has a birth among the rows, ascending."""
        return np.unique(np.concatenate(self.births))

    def note(self, rows: pa.Table) -> None:
        """Note the rows of a table."""
        subject, time = ids(rows), times_us(rows)
        self.people.append(np.unique(subject))
        index, names = coded(rows["code"])
        for name in names:
            self._codes.setdefault(name, len(self._codes))
        if birth_code in names:
            self.births.append(np.unique(subject[index == names.index(birth_code)]))
        code = self._numbers(names)[index]
        at = np.flatnonzero(code >= 0)
        subject, time, code = subject[at], time[at], code[at]
        self._marks[_mark(subject, time, code)] = True
        dated = time[time != STATIC_TIME]
        self.timeless |= len(dated) < len(time)
        if len(dated):
            self.first_us = min(self.first_us, int(dated.min()))
            self.last_us = max(self.last_us, int(dated.max()))

    def among(self, file: Path, layer: StoreLayer, people: Int64) -> pa.Table | None:
        """Return those rows of a store's file that count and may equal or contradict one of these.

        They are of the same person, time and code, or births and deaths.

        Args:
            file: Of the layer.
            layer: Of a store.
            people: `everyone`.

        Returns:
            MEDS columns, codes as a dictionary; None where there is no such row.

        Raises:
            StoreError: It cannot be read (HF-209).
        """
        keys = read_parquet(file, file.name, _KEYS, ("code",))
        index, names = coded(keys["code"])
        equal = self._equal(file, keys, index, names)
        vital = [n for n, name in enumerate(names) if name in VITAL_CODES]
        at = np.union1d(equal, np.flatnonzero(np.isin(index, vital))) if vital else equal
        at = at[_counts(ids(keys)[at], people, layer.replaced)]
        if not len(at):
            return None
        found, rows = keys.take(pa.array(at)), pa.array(at)
        for field_ in pq.read_schema(file):
            if field_.name not in _KEYS:
                missing = pa.nulls(len(at), field_.type)  # that of a birth decides nothing
                column = read_parquet(file, file.name, [field_.name]) if len(equal) else None
                values = missing if column is None else column[field_.name].take(rows)
                found = found.append_column(field_.name, values)
        return found

    def _equal(self, file: Path, keys: pa.Table, index: Int64, names: list[str]) -> Int64:
        """Return which rows of a file, births and deaths left out, may be one of these."""
        if not self.may_be_in(file):
            return np.zeros(0, np.int64)
        subject, time = ids(keys), times_us(keys)
        code = self._numbers(names)[index]
        near = (time >= self.first_us) & (time <= self.last_us)
        if self.timeless:
            near |= time == STATIC_TIME
        at = np.flatnonzero(near & (code >= 0))
        return at[self._marks[_mark(subject[at], time[at], code[at])]]

    def may_be_in(self, file: Path) -> bool:
        """Whether a file's own statistics leave it open that a row is of the time of these."""
        footer = pq.read_metadata(file)
        at = footer.schema.names.index("time")
        for group in range(footer.num_row_groups):
            found = footer.row_group(group).column(at).statistics
            if found is None or not found.has_null_count or (self.timeless and found.null_count):
                return True
            if found.num_values and (not found.has_min_max or self._overlaps(found)):
                return True
        return False

    def _numbers(self, names: list[str]) -> Int64:
        """Return the number of each code, and of none; -1 of one unseen, a birth or a death."""
        known = {**self._codes, **dict.fromkeys(VITAL_CODES, -1)}
        return np.array([*(known.get(name, -1) for name in names), -1], np.int64)

    def _overlaps(self, found: pq.Statistics) -> bool:
        first, last = (int(np.datetime64(t, "us").astype(np.int64)) for t in (found.min, found.max))
        return first <= self.last_us and last >= self.first_us


def _counts(subject: Int64, people: Int64, replaced: Int64) -> Bool:
    """Return where somebody is among `people` and not among who is replaced later."""
    return np.asarray(np.isin(subject, people) & ~np.isin(subject, replaced), np.bool_)


def _mark(subject: Int64, time: Int64, code: Int64) -> Int64:
    """Return the mark of each row's person, time and code."""
    mixed = subject.astype(np.uint64) * _ODD[0]
    for part, odd in ((time, _ODD[1]), (code, _ODD[2])):
        more = part.astype(np.uint64)
        more *= odd
        mixed += more
    mixed ^= mixed >> np.uint64(29)
    mixed *= _ODD[0]
    mixed >>= np.uint64(64 - MARK_BITS)
    return mixed.view(np.int64)
