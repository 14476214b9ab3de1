"""A store's events as its updates left them: its own files, then those of each update.

`ingest --update` writes no file of ``data/`` again, since the people of a day are scattered over
all of them. What an update brings lies under ``updates/<n>/data/<split>``; whose earlier events it
replaces is in ``updates/<n>/replaced.parquet``. An event is in one layer only: an update adds none
that the store has, and of somebody who is replaced the earlier ones do not count.
`compacted_store.compact` puts all of them under ``data/`` again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.store_files import DATA, in_order, read_parquet

UPDATES_FOLDER: Final = "updates"
REPLACED_FILE: Final = "replaced.parquet"
_SUBJECT: Final = "subject_id"


@dataclass(frozen=True)
class StoreLayer:
    """A store's own files of events, or those of one update.

    Attributes:
        folder: What ``data/`` is in.
        replaced: Whose events here do not count, ascending: a later update has all of theirs.
    """

    folder: Path
    replaced: Int64

    def files(self, split: str | None = None) -> list[Path]:
        """Return the files of events, of one split or of all."""
        data = self.folder / DATA
        return in_order(data if split is None else data / split)

    def current(self, rows: pa.Table) -> pa.Table:
        """Return the rows of a file that count."""
        if not len(self.replaced):
            return rows
        return rows.filter(pc.invert(pc.is_in(rows[_SUBJECT], pa.array(self.replaced))))

    def rows_in(self, file: Path) -> int:
        """Return how many rows of a file count; its footer tells where all do.

        Raises:
            StoreError: It cannot be read (HF-209).
        """
        if not len(self.replaced):
            return int(pq.read_metadata(file).num_rows)
        return int(self.current(read_parquet(file, file.name, [_SUBJECT])).num_rows)


def update_folders(store: Path) -> list[Path]:
    """Return the folders of a store's updates, the earliest first."""
    inside = (store / UPDATES_FOLDER).glob("*")
    folders = [folder for folder in inside if folder.is_dir() and folder.name.isdigit()]
    return sorted(folders, key=lambda folder: int(folder.name))


def layers_of(store: Path) -> list[StoreLayer]:
    """Return a store's own layer and those of its updates, the earliest first.

    Raises:
        StoreError: A list of people cannot be read (HF-209).
    """
    layers, replaced = list[StoreLayer](), np.zeros(0, np.int64)
    for folder in reversed([store, *update_folders(store)]):
        layers.insert(0, StoreLayer(folder, replaced))
        if folder != store:
            replaced = np.union1d(replaced, replaced_by(folder))
    return layers


def replaced_by(update: Path) -> Int64:
    """Return whose earlier events an update replaces.

    Raises:
        StoreError: The list cannot be read (HF-209).
    """
    file = update / REPLACED_FILE
    if not file.is_file():
        return np.zeros(0, np.int64)
    return ids(read_parquet(file, REPLACED_FILE, [_SUBJECT]))


def event_files(store: Path, split: str | None = None) -> Iterator[tuple[Path, StoreLayer]]:
    """Yield every file of a store's events with the layer that it is of.

    Raises:
        StoreError: A list of people cannot be read (HF-209).
    """
    for layer in layers_of(store):
        for file in layer.files(split):
            yield file, layer
