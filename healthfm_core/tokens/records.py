"""What tokenisation reads: a site's events as columns of integers, from Arrow to NumPy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Bool, Float64, Int32, Int64
from healthfm_core.data.batch.segments import run_starts
from healthfm_core.data.store.events import STATIC_TIME, coded, ids, times_us
from healthfm_core.data.store.joined_stores import StoreView
from healthfm_core.modalities.registry import VITAL_CODES, is_panel_code

US_PER_HOUR: Final = 3_600_000_000


@dataclass(frozen=True)
class Events:
    """R events of S subjects, sorted by subject and time, statics first.

    Attributes:
        subjects: [S] int64 identifiers, sorted.
        codes: the distinct codes.
        subject: [R] int64, index into `subjects`.
        code: [R] int32, index into `codes`.
        time_us: [R] int64, 0 where static.
        static: [R] bool, the event has no time.
        value: [R] float64, NaN where there is no finite value.
    """

    subjects: Int64
    codes: tuple[str, ...]
    subject: Int64
    code: Int32
    time_us: Int64
    static: Bool
    value: Float64

    def where(self, rows: Bool) -> Events:
        """Return the events for which `rows` holds."""
        return Events(
            self.subjects,
            self.codes,
            self.subject[rows],
            self.code[rows],
            self.time_us[rows],
            self.static[rows],
            self.value[rows],
        )


def read_events(store: StoreView, split: str | None, domains: Collection[str] = ()) -> Events:
    """Return the events of a split of a store (None: of all); a null code is left out.

    Args:
        store: The store.
        split: Whose events.
        domains: Codes of these domains alone (`in_domains`); () is all.
    """
    table = store.events(split)
    code, codes = coded(table["code"])
    time = times_us(table)
    value = np.asarray(table["numeric_value"].cast(pa.float64()).fill_null(np.nan).to_numpy())
    subjects = store.subjects(split)
    events = Events(
        subjects=subjects,
        codes=tuple(codes),
        subject=np.searchsorted(subjects, ids(table)).astype(np.int64),
        code=code.astype(np.int32),
        time_us=np.where(time == STATIC_TIME, 0, time),
        static=time == STATIC_TIME,
        value=np.where(np.isfinite(value), value, np.nan),
    )
    wanted = np.array([not domains or in_domains(name, domains) for name in codes], np.bool_)
    keep = (code >= 0) & np.append(wanted, False)[code]
    return events if keep.all() else events.where(keep)


def in_domains(code: str, domains: Collection[str]) -> bool:
    """Whether `code` is of one of `domains`: what stands before its first ``//``, or all of it.

    Birth and death always are, and so are the values of panels (polygenic scores), which have a
    switch of their own.
    """
    return code.partition("//")[0] in {*domains, *VITAL_CODES} or is_panel_code(code)


def read_parents(store: StoreView) -> dict[str, str]:
    """Return each code's first parent, from the store's ``metadata/codes.parquet`` if any."""
    return {code: above[0] for code, above in store.parents().items()}


def visit_starts(subject: Int64, time_us: Int64, gap_hours: float) -> Bool:
    """Return where a visit starts among timed events sorted by subject and time.

    A visit goes on while an event follows the one before within `gap_hours`; with 0 a visit is one
    instant.
    """
    starts = run_starts(subject)
    gap_us = round(gap_hours * US_PER_HOUR)
    starts[1:] |= np.diff(time_us) > gap_us
    return starts
