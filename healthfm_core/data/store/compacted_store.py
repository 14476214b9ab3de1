"""Putting a store's updates together, into its own files or into one update.

After the first every event is under ``data/`` again; the second costs as little as they are small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.data.store.draft_folder import draft_beside, link_file
from healthfm_core.data.store.event_spool import EventSpool
from healthfm_core.data.store.event_stream import EventStream, SourcePart
from healthfm_core.data.store.integrity import read_splits
from healthfm_core.data.store.rejected_files import put_rejected_together
from healthfm_core.data.store.store_draft import StoreDraft
from healthfm_core.data.store.store_files import (
    DATA,
    REJECTED_FOLDER,
    read_parquet,
    write_parquet,
)
from healthfm_core.data.store.store_layers import (
    REPLACED_FILE,
    UPDATES_FOLDER,
    StoreLayer,
    event_files,
    layers_of,
    replaced_by,
    update_folders,
)
from healthfm_core.data.store.stream_stages import read_into, sorted_and_cleaned
from healthfm_core.errors import StoreError

SPOOL: Final = ".spool"
_NEVER_US: Final = int(np.iinfo(np.int64).max)


def share_in_updates(store: Path) -> float:
    """Return the rows in the files of a store's updates by those in its own; 0 without updates."""
    rows = dict.fromkeys((store, *update_folders(store)), 0)
    for file, layer in event_files(store):
        rows[layer.folder] += pq.read_metadata(file).num_rows
    own = rows.pop(store)
    return sum(rows.values()) / max(1, own)


def link_all(store: Path, draft: Path, *, but: tuple[str, ...] = ()) -> None:
    """Give every file of a store its place in a draft.

    Args:
        store: The store.
        draft: A folder beside it.
        but: Files and folders at the store's top that are left out.
    """
    for file in sorted(store.rglob("*")):
        place = file.relative_to(store)
        if file.is_file() and place.parts[0] not in but:
            (draft / place).parent.mkdir(parents=True, exist_ok=True)
            link_file(file, draft / place)


def compact(store: Path, draft: Path) -> None:
    """Write a store without updates: its events are those of all layers, the rest is linked.

    Args:
        store: It stays as it is.
        draft: A new folder beside it, which becomes a store.

    Raises:
        StoreError: HF-204 where two layers have the same event, HF-2xx where it cannot be read.
    """
    link_all(store, draft, but=(DATA, UPDATES_FOLDER, REJECTED_FOLDER))
    put_rejected_together(store / REJECTED_FOLDER, draft / REJECTED_FOLDER)
    _write_events(store, layers_of(store), draft, draft)


def merge_updates(store: Path, draft: Path) -> None:
    """Write a store whose updates are one; its own files are linked.

    Args:
        store: It stays as it is.
        draft: A new folder beside it, which becomes a store.

    Raises:
        StoreError: As `compact`.
    """
    link_all(store, draft, but=(UPDATES_FOLDER, REJECTED_FOLDER))
    put_rejected_together(store / REJECTED_FOLDER, draft / REJECTED_FOLDER)
    _, *updates = layers_of(store)
    one = draft / UPDATES_FOLDER / "1"
    replaced = [replaced_by(layer.folder) for layer in updates]
    people = pa.array(np.unique(np.concatenate([np.zeros(0, np.int64), *replaced])))
    if len(people):
        write_parquet(pa.table({"subject_id": people}), one / REPLACED_FILE)
    _write_events(store, updates, draft, one)


def _write_events(store: Path, layers: Sequence[StoreLayer], draft: Path, place: Path) -> None:
    """Write the events of some layers that count below `place`."""
    stream = EventStream(tuple(_parts(store, layers)), _NEVER_US)
    with closing(StoreDraft(draft, store.name, read_splits(store), place)) as writer:
        spool = EventSpool(draft / SPOOL, store.name, expected=stream.rows)
        for _ in read_into(spool, stream, keep=False):
            pass
        for group in sorted_and_cleaned(spool, stream):
            if group.rejected:
                raise _not_sound(store, sum(rows.num_rows for rows in group.rejected.values()))
            if group.events.num_rows:
                writer.write_group(group.events, texts=spool.has_text)
        spool.remove()


@contextmanager
def compacted(store: Path) -> Iterator[Path]:
    """Give a store whose files have every event: itself, or where it has updates a compacted copy.

    The copy lies beside the store, and goes at the end.

    Raises:
        StoreError: As `compact`.
    """
    if not update_folders(store):
        yield store
        return
    with draft_beside(store) as draft:
        compact(store, draft)
        yield draft


def _parts(store: Path, layers: Sequence[StoreLayer]) -> Iterator[SourcePart]:
    for layer in layers:
        for file in layer.files():
            where = file.relative_to(store).as_posix()
            yield SourcePart(where, pq.read_metadata(file).num_rows, _rows(file, where, layer))


def _rows(file: Path, where: str, layer: StoreLayer) -> Iterator[pa.Table]:
    yield layer.current(read_parquet(file, where, coded=("code",)))


def _not_sound(store: Path, rows: int) -> StoreError:
    return StoreError(
        204,
        where=store.name,
        seen=f"{rows} events of its updates equal another, or cannot be true",
        wanted="what an update adds is new and true",
        do="Ingest the source again with --overwrite; nothing was changed",
    )
