"""The full check of a store's files: schemas, order, duplicates, one place per subject."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import check_events, ids, sort_events
from healthfm_core.data.store.labels import check_labels
from healthfm_core.data.store.schemas import (
    EVENTS,
    LABELS,
    SPLIT_NAMES,
    SPLITS,
    WEARABLE,
    check_schema,
    conform,
)
from healthfm_core.data.store.store_files import (
    DATA,
    LABELS_FOLDER,
    SPLITS_FILE,
    WEARABLE_FOLDER,
    in_order,
    may_hold,
    read_parquet,
    read_schema,
)
from healthfm_core.data.store.store_layers import (
    UPDATES_FOLDER,
    StoreLayer,
    event_files,
    layers_of,
)
from healthfm_core.data.store.wearables import check_wearable
from healthfm_core.errors import StoreError


def check_schemas(store: Path) -> None:
    """Check what the footers of the Parquet files say; reads no row.

    Raises:
        StoreError: HF-201, HF-202, HF-206, HF-209.
    """
    events = [file for file, _ in event_files(store)]
    wearable, labels = (in_order(store / folder) for folder in (WEARABLE_FOLDER, LABELS_FOLDER))
    for files, wanted in ((events, EVENTS), (wearable, WEARABLE), (labels, LABELS)):
        for file in files:
            where = file.relative_to(store).as_posix()
            check_schema(read_schema(file, where), wanted, where)
    if not events and not wearable:
        raise empty(store.name)


def empty(where: str) -> StoreError:
    """Return the error for a site without people."""
    return StoreError(206, where=where, seen="there is no subject with a single row")


def check_store(store: Path, *, rows: bool = True) -> None:
    """Check every row of a store (but for its finished marker).

    Args:
        store: The folder.
        rows: Read the events too; without it only what their files say of themselves.

    Raises:
        StoreError: HF-201 to HF-206, HF-209, HF-210, with the file and never a subject.
    """
    check_schemas(store)
    splits = read_splits(store)
    subjects = ids(splits)
    if not len(subjects):
        raise empty(store.name)
    if rows:
        layers = layers_of(store)
        for layer in layers:
            check_event_files(layer.files(), store, splits)
        _check_across(layers, store)
    for device in sorted(path for path in (store / WEARABLE_FOLDER).glob("*") if path.is_dir()):
        where = device.relative_to(store).as_posix()
        people: list[Int64] = []
        for file in in_order(device):
            table = conform(read_parquet(file, file.name), WEARABLE, file.name)
            check_wearable(table, where)
            _check_known(ids(table), subjects, where)
            people.append(np.unique(ids(table)))
        _check_one_place(people, where, "files")
    for file in in_order(store / LABELS_FOLDER):
        where = file.relative_to(store).as_posix()
        check_labels(read_parquet(file, where), subjects, where)


def read_splits(store: Path) -> pa.Table:
    """Return subject_splits, sorted by subject.

    Raises:
        StoreError: HF-201, HF-202, HF-205 for a subject in two splits, HF-207, HF-209.
    """
    file = store / SPLITS_FILE
    if not file.is_file():
        raise StoreError(207, where=store.name, seen=f"{SPLITS_FILE} is missing")
    table = conform(read_parquet(file, SPLITS_FILE), SPLITS, SPLITS_FILE)
    odd = set(table["split"].unique().to_pylist()) - set(SPLIT_NAMES)
    if odd:
        raise StoreError(
            202,
            where=SPLITS_FILE,
            seen=f"{len(odd)} split names are none of {', '.join(SPLIT_NAMES)}",
            wanted="MEDS's three sentinel names are wanted",
            do="Rename the splits",
        )
    subject = ids(table)
    twice = len(subject) - len(np.unique(subject))
    if twice:
        raise _two_places(SPLITS_FILE, twice, "splits")
    return table.take(pa.array(np.argsort(subject)))


def check_event_files(files: Iterable[Path], store: Path, splits: pa.Table | None) -> None:
    """Check the events of each file, and that no subject is in two of them or in a wrong split.

    Args:
        files: Parquet files of events.
        store: The folder they are named relative to.
        splits: The store's subject_splits; None where there are none to hold against.

    Raises:
        StoreError: HF-201 to HF-205, HF-209, HF-210.
    """
    seen: list[Int64] = []
    for file in files:
        where = file.relative_to(store).as_posix()
        table = conform(read_parquet(file, where, coded=("code",)), EVENTS, where)
        check_events(table, where)
        subjects = np.unique(ids(table))
        seen.append(subjects)
        if splits is not None:
            _check_known(subjects, ids(splits), where)
            _check_split(subjects, splits, file.parent.name, where)
    _check_one_place(seen, DATA, "files")


def _check_across(layers: Sequence[StoreLayer], store: Path) -> None:
    """Check that no event of the people whom updates added to is in two layers."""
    if len(layers) == 1:
        return
    files = [file for layer in layers[1:] for file in layer.files()]
    of_updates = [ids(read_parquet(file, file.name, ["subject_id"])) for file in files]
    people = pa.array(np.unique(np.concatenate([np.zeros(0, np.int64), *of_updates])))
    tables = [EVENTS.empty_table()]
    for layer in layers:
        for file in layer.files():
            where = file.relative_to(store).as_posix()
            if may_hold(file, where, people):
                rows = layer.current(conform(read_parquet(file, where), EVENTS, where))
                tables.append(rows.filter(pc.is_in(rows["subject_id"], people)))
    check_events(sort_events(pa.concat_tables(tables)), UPDATES_FOLDER)


def _check_split(subjects: Int64, splits: pa.Table, folder: str, where: str) -> None:
    if folder not in SPLIT_NAMES:
        return
    at = np.searchsorted(ids(splits), subjects)
    its = splits["split"].take(pa.array(at))
    elsewhere = sum(split != folder for split in its.to_pylist())
    if elsewhere:
        raise _two_places(where, elsewhere, "splits")


def _check_known(subject: Int64, subjects: Int64, where: str) -> None:
    unknown = len(np.setdiff1d(subject, subjects))
    if unknown:
        raise StoreError(
            210,
            where=where,
            seen=f"{unknown} subjects have no split",
            wanted=f"every subject_id is wanted in {SPLITS_FILE}",
        )


def _check_one_place(per_file: list[Int64], where: str, what: str) -> None:
    everyone = np.concatenate([np.unique(subject) for subject in per_file] or [np.zeros(0, int)])
    twice = len(everyone) - len(np.unique(everyone))
    if twice:
        raise _two_places(where, twice, what)


def _two_places(where: str, count: int, what: str) -> StoreError:
    return StoreError(205, where=where, seen=f"{count} subjects are in two {what}")
