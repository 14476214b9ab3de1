"""Some of a store's people at a time, in the order of their ids, so that all need not fit."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Int64
from healthfm_core.data.store.people_blocks import PeopleBlocks
from healthfm_core.data.store.schemas import EVENTS
from healthfm_core.data.store.site_store import SiteStore

EVENTS_AT_ONCE: Final = 1_000_000
"""Events that are held, about."""


class PeopleInOrder(AbstractContextManager["PeopleInOrder"]):
    """Views of a store's people, any neighbours at a time; the files that it needs go at the end.

    Args:
        store: The store, or a view of it.
        subjects: [n] people of it, ascending.
        events: About how many events to hold.
    """

    def __init__(self, store: SiteStore, subjects: Int64, *, events: int = EVENTS_AT_ONCE) -> None:
        self.subjects = subjects
        self._store = store
        some = store.narrowed(subjects=subjects)
        self._blocks = PeopleBlocks(some, None, events=events, texts=True)
        self._held: dict[int, SiteStore] = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held = {}
        self._blocks.close()

    def view(self, low: int, high: int) -> SiteStore:
        """Return the view of people ``low … high - 1`` of `subjects`.

        Raises:
            StoreError: A file cannot be read (HF-209), or the disk is full (HF-213).
        """
        bounds = self._blocks.bounds
        wanted = [n for n, (first, last) in enumerate(bounds) if first < high and low < last]
        self._held = {n: self._held.get(n) or self._block(n) for n in wanted}
        people = self.subjects[low:high]
        of = [_of(people, block) for block in self._held.values()]
        events = pa.concat_tables([EVENTS.empty_table(), *(view.events() for view in of)])
        wearables = {
            device: pa.concat_tables(
                [view.wearable(device) for view in of], promote_options="default"
            )
            for device in self._store.devices
        }
        return self._store.with_records(events, people, wearables)

    def _block(self, number: int) -> SiteStore:
        (view,) = self._blocks.block(number).members
        worn = {device: view.wearable(device) for device in view.devices}
        return view.with_records(view.events(), view.subjects(), worn)


def _of(people: Int64, block: SiteStore) -> SiteStore:
    """Return the view of those of some people, who are neighbours, that a block has."""
    own = block.subjects()
    low, high = np.searchsorted(own, [people[0], people[-1] + 1])
    return block.narrowed(subjects=own[low:high])
