"""Writing a site store from tables in memory: all of it, checked, or nothing."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from healthfm_core.data.store.draft_folder import draft_beside, publish, refuse_existing
from healthfm_core.data.store.events import ids, sort_events
from healthfm_core.data.store.genetics import DECLARED_Z, score_events
from healthfm_core.data.store.integrity import read_splits
from healthfm_core.data.store.labels import check_labels
from healthfm_core.data.store.schemas import CODES, EVENTS, WEARABLE, conform
from healthfm_core.data.store.store_draft import Splits, StoreDraft
from healthfm_core.data.store.store_files import (
    CODES_FILE,
    LABELS_FOLDER,
    WEARABLE_FOLDER,
    write_parquet,
)
from healthfm_core.data.store.wearables import sort_wearable
from healthfm_core.errors import IngestError


class StoreWriter:
    """Collects a site's tables; `write` sorts, writes and checks them.

    Events and wearable rows may come in any order and in several calls. The store appears when
    every row has passed the check; after an exception (an interruption too) nothing of it is left.

    Args:
        path: The store's folder.
        dataset_name: The site's name.
        overwrite: Replace a store that is there; without it that is an error.

    Raises:
        IngestError: HF-304 where the folder exists.
    """

    def __init__(self, path: Path, *, dataset_name: str, overwrite: bool = False) -> None:
        refuse_existing(path, overwrite)
        self._path = path
        self._name = dataset_name
        self._overwrite = overwrite
        self._events: list[pa.Table] = [EVENTS.empty_table()]
        self._wearables: dict[str, list[pa.Table]] = {}
        self._labels: dict[str, pa.Table] = {}
        self._splits: Splits = None
        self._codes = CODES.empty_table()
        self._scores = ""

    def add_events(self, table: pa.Table) -> None:
        """Add events (MEDS columns; rows in any order; a duplicate is refused at the end)."""
        self._events.append(conform(table, EVENTS, f"{self._name}: events"))

    def add_wearable(self, device: str, table: pa.Table) -> None:
        """Add rows of `WEARABLE` under the device's name."""
        rows = conform(table, WEARABLE, f"{self._name}: {WEARABLE_FOLDER}/{device}")
        self._wearables.setdefault(device, []).append(rows)

    def add_scores(self, table: pa.Table, *, normalisation: str = DECLARED_Z) -> None:
        """Add polygenic scores (subject_id, score, z), of one normalisation (see `genetics`)."""
        self._events.append(score_events(table, f"{self._name}: polygenic scores"))
        self._scores = normalisation

    def set_labels(self, task: str, table: pa.Table) -> None:
        """Set the labels of a task (MEDS label columns; further columns are kept)."""
        self._labels[task] = table

    def set_splits(self, splits: Splits) -> None:
        """Set which subject is used for what."""
        self._splits = splits

    def set_codes(self, table: pa.Table) -> None:
        """Set what is known of codes (code, description, parent_codes); the rest is completed."""
        self._codes = conform(table, CODES, f"{self._name}: {CODES_FILE}")

    def write(self) -> None:
        """Write the store.

        Raises:
            IngestError: HF-304 where the folder exists by now.
            StoreError: HF-201 to HF-211.
        """
        refuse_existing(self._path, self._overwrite)
        with (
            draft_beside(self._path) as folder,
            closing(StoreDraft(folder, self._name, self._splits)) as draft,
        ):
            wearables = {d: sort_wearable(pa.concat_tables(t)) for d, t in self._wearables.items()}
            draft.write_events(sort_events(pa.concat_tables(self._events)))
            for device, rows in wearables.items():
                draft.write_wearable(device, rows)
            draft.write_splits()
            for task, labels in self._labels.items():
                draft.write_labels(task, labels)
            draft.write_codes(self._codes, self._scores)
            draft.check_and_mark(self._scores)
            publish(folder, self._path)


def add_labels(store: Path, task: str, table: pa.Table, *, overwrite: bool = False) -> None:
    """Add a task's labels to a finished store, whole or not at all.

    Args:
        store: The store's folder.
        task: The file's name.
        table: MEDS label columns; further columns are kept.
        overwrite: Replace labels of that name.

    Raises:
        IngestError: HF-304 where the task has labels already.
        StoreError: HF-201, HF-202, HF-204, HF-210.
    """
    where = f"{LABELS_FOLDER}/{task}.parquet"
    file = store / where
    if file.exists() and not overwrite:
        raise IngestError(
            304,
            where=where,
            seen="the task has labels already",
            do="Name the task otherwise, or give --overwrite",
        )
    checked = check_labels(table, ids(read_splits(store)), where)
    partial = file.with_name(f".{task}.partial-{secrets.token_hex(4)}")
    try:
        write_parquet(checked, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
