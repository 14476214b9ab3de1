"""Some of a store's people at a time, in the order of their ids, so that all need not fit."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_layers import event_files

EVENTS_AT_ONCE: Final = 1_000_000
"""Events that are held, about. A store whose people are scattered over all its files is read once
for each such part."""


class PeopleInOrder:
    """Views of a store's people, some at a time.

    Args:
        store: The store, or a view of it.
        subjects: [n] people of it, ascending.
        events: About how many events to hold.
    """

    def __init__(self, store: SiteStore, subjects: Int64, *, events: int = EVENTS_AT_ONCE) -> None:
        self.subjects = subjects
        self._store = store
        rows = sum(layer.rows_in(file) for file, layer in event_files(store.path))
        everyone = max(1, len(store.subjects()))
        self._each = max(1, int(events // max(1.0, rows / everyone)))
        self._low = self._high = 0
        self._events = pa.table({"subject_id": pa.array([], pa.int64())})

    def view(self, low: int, high: int) -> SiteStore:
        """Return the view of people ``low … high - 1`` of `subjects`.

        Raises:
            StoreError: A file cannot be read (HF-209).
        """
        if not self._low <= low <= high <= self._high:
            self._load(low, max(high, low + self._each))
        people = self.subjects[low:high]
        start, stop = np.searchsorted(ids(self._events), [people[0], people[-1] + 1])
        rows = self._events.slice(int(start), int(stop - start))
        return self._store.with_records(rows, people)

    def _load(self, low: int, high: int) -> None:
        high = min(high, len(self.subjects))
        self._events = self._events.slice(0, 0)
        self._events = self._store.narrowed(subjects=self.subjects[low:high]).events()
        self._low, self._high = low, high
