"""A store's people in blocks, in the order of their ids, so that all need not fit in memory.

The people of one file of a store are scattered over all ids. Where there are more events than a
block holds, every file is read once, a part at a time, and its rows are laid into one file per
block; then block after block is read from there. What is read of a person is the same, in the same
order, however many blocks there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.arrays import Int64
from healthfm_core.bounded_parts import in_parts
from healthfm_core.data.store.beside_store import draft_in, working_folder
from healthfm_core.data.store.event_spool import CodeNumbers, append_rows, named, read_rows
from healthfm_core.data.store.events import ids, sort_events, with_plain_codes
from healthfm_core.data.store.joined_stores import JoinedStores, StoreView
from healthfm_core.data.store.schemas import EVENTS, WEARABLE
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import WEARABLE_FOLDER, in_order, samples_a_row
from healthfm_core.data.store.store_layers import event_files
from healthfm_core.data.store.wearables import sort_wearable
from healthfm_core.errors import StoreError

EVENTS_PER_BLOCK: Final = 1 << 20
"""Events of a block, about; samples of wearables count as `_SAMPLES` to one."""
BYTES_IN_MEMORY: Final = 128 * 1024**2
_SAMPLES: Final = 16
_EVENT_COLUMNS: Final = ("subject_id", "time", "code", "numeric_value")


class PeopleBlocks(AbstractContextManager["PeopleBlocks"]):
    """Views of a store's people of a split, each with all that a study reads of them.

    It may be gone through again and again. Files that it needs lie beside the store, and go at
    the end.

    Args:
        store: The store, or stores that share people.
        split: train, tuning or held_out; None is all three.
        events: About how many events a block has; None: `EVENTS_PER_BLOCK`.
        texts: Events have their texts, and the types of `EVENTS`; no study reads them.

    Attributes:
        subjects: [S] everyone, ascending.
        bounds: ``(low, high)`` of `subjects` for each block.
    """

    def __init__(
        self,
        store: StoreView,
        split: str | None,
        *,
        events: int | None = None,
        texts: bool = False,
    ) -> None:
        events = EVENTS_PER_BLOCK if events is None else events
        self._members = store.members
        self._split, self._texts = split, texts or len(self._members) > 1
        self.subjects = store.subjects(split)
        sizes = np.zeros(len(self.subjects), np.int64)
        if sum(_size(member, split) for member in self._members) > events:
            for member in self._members:
                sizes += _sizes(member, split, self.subjects)
        self.bounds = list(in_parts(sizes, events)) or [(0, 0)]
        self._files = ExitStack()
        self._spools: list[_BlockFiles] = []
        self._whole: StoreView | None = None

    def __len__(self) -> int:
        return len(self.bounds)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the files."""
        self._whole, self._spools = None, []
        self._files.close()

    def __iter__(self) -> Iterator[StoreView]:
        for number in range(len(self)):
            yield self.block(number)

    def block(self, number: int) -> StoreView:
        """Return the view of one block's people.

        Raises:
            StoreError: A file cannot be read (HF-209), or the disk is full (HF-213).
        """
        if len(self) == 1:
            if self._whole is None:
                self._whole = _joined([self._of_split(member) for member in self._members])
            return self._whole
        if not self._spools:
            self._spools = [self._laid_out(member) for member in self._members]
        low, high = self.bounds[number]
        people = self.subjects[low:high]
        return _joined([spool.view(number, people) for spool in self._spools])

    def _of_split(self, store: SiteStore) -> SiteStore:
        return store.with_records(store.events(self._split), store.subjects(self._split))

    def _laid_out(self, store: SiteStore) -> _BlockFiles:
        folder = self._files.enter_context(draft_in(working_folder(store.path)))
        starts = self.subjects[[low for low, _ in self.bounds]]
        files = _BlockFiles(store, self._split, starts, folder, texts=self._texts)
        try:
            files.write()
        except OSError as error:
            raise StoreError(213, where=store.name, seen=error.strerror or "no reason") from error
        return files


class _BlockFiles:
    """One store's rows by block of people, in files.

    Args:
        store: The store.
        split: Whose rows.
        starts: [B] first subject of each block.
        folder: Where the files go.
        texts: Keep the events' texts, by which those of two stores are told apart.
    """

    def __init__(
        self, store: SiteStore, split: str | None, starts: Int64, folder: Path, *, texts: bool
    ) -> None:
        self._store, self._split, self._starts, self._folder = store, split, starts, folder
        self._columns = [*_EVENT_COLUMNS, "text_value"] if texts else list(_EVENT_COLUMNS)
        self._texts = texts
        self._everyone = store.subjects(split)
        self._book = CodeNumbers()
        self._waiting: dict[Path, list[pa.Table]] = {}
        self._bytes = 0

    def write(self) -> None:
        """Read every file of the store once, and lay its rows out."""
        for rows in self._store.event_parts(self._split):
            code = self._book.numbers(rows["code"], self._store.name)
            plain = rows.select(self._columns)
            at = plain.column_names.index("code")
            self._lay("events", plain.set_column(at, "code", pa.array(code)))
        for device in self._store.devices:
            for rows in self._store.wearable_parts(device, self._split):
                self._lay(f"{WEARABLE_FOLDER}-{device}", rows)
        self._flush()

    def view(self, number: int, people: Int64) -> SiteStore:
        """Return the view of a block's people, as far as the store has them.

        Args:
            number: Which block.
            people: Its people, ascending.
        """
        own = np.intersect1d(people, self._everyone, assume_unique=True)
        tables = list(read_rows(self._file("events", number)))
        if tables:
            events = sort_events(named(pa.concat_tables(tables), self._book.names))
            events = with_plain_codes(events).cast(EVENTS) if self._texts else events
        else:
            events = EVENTS.empty_table()
        wearables = {}
        for device in self._store.devices:
            tables = list(read_rows(self._file(f"{WEARABLE_FOLDER}-{device}", number)))
            if tables:
                wearables[device] = sort_wearable(pa.concat_tables(tables)).cast(WEARABLE)
        return self._store.with_records(events, own, wearables)

    def _file(self, kind: str, number: int) -> Path:
        return self._folder / f"{kind}-{number}.arrows"

    def _lay(self, kind: str, rows: pa.Table) -> None:
        """Give every row to its block; rows of one person keep their order."""
        if not rows.num_rows:
            return
        block = np.searchsorted(self._starts, ids(rows), side="right") - 1
        if np.any(block[1:] < block[:-1]):
            order = np.argsort(block, kind="stable")
            rows, block = rows.take(pa.array(order)), block[order]
        starts = np.flatnonzero(np.diff(block, prepend=-1))
        for low, high in zip(starts, [*starts[1:], len(block)], strict=True):
            file = self._file(kind, int(block[low]))
            self._waiting.setdefault(file, []).append(rows.slice(low, high - low))
        self._bytes += rows.nbytes
        if self._bytes >= BYTES_IN_MEMORY:
            self._flush()

    def _flush(self) -> None:
        for file, tables in self._waiting.items():
            append_rows(file, pa.concat_tables(tables).combine_chunks())
        self._waiting, self._bytes = {}, 0


def _joined(members: Sequence[SiteStore]) -> StoreView:
    return members[0] if len(members) == 1 else JoinedStores(members)


def _wearable_files(store: SiteStore) -> list[Path]:
    return [f for device in store.devices for f in in_order(store.path / WEARABLE_FOLDER / device)]


def _size(store: SiteStore, split: str | None) -> int:
    """Return the events and samples in a store's files, as far as their footers tell."""
    rows = sum(layer.rows_in(file) for file, layer in event_files(store.path, split))
    files = _wearable_files(store)
    return rows + round(sum(_row_size(f) * pq.read_metadata(f).num_rows for f in files))


def _sizes(store: SiteStore, split: str | None, subjects: Int64) -> Int64:
    """Return [S] about how much a store has of each of some people."""
    sizes = np.zeros(len(subjects), np.float64)
    for rows in store.event_parts(split, only_people=True):
        _count(sizes, subjects, ids(rows), 1.0)
    for file in _wearable_files(store):
        _count(sizes, subjects, ids(pq.read_table(file, columns=["subject_id"])), _row_size(file))
    return np.ceil(sizes).astype(np.int64)


def _count(sizes: np.ndarray, subjects: Int64, found: Int64, each: float) -> None:
    """Add so much for each row of the people found, whose rows stand together for the most part."""
    if not len(found):
        return
    starts = np.flatnonzero(np.append(True, found[1:] != found[:-1]))
    rows = np.diff(np.append(starts, len(found)))
    who = found[starts]
    at = np.minimum(np.searchsorted(subjects, who), max(0, len(subjects) - 1))
    known = subjects[at] == who if len(subjects) else np.zeros(len(who), np.bool_)
    np.add.at(sizes, at[known], rows[known] * each)


def _row_size(file: Path) -> float:
    """Return the samples of a row of a wearable's file, on average, as events."""
    return samples_a_row(file, file.name) / _SAMPLES
