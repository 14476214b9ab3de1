"""MEDS 0.4 datasets, and stores that `ingest` wrote: checked; tests in the store's units.

A store that `ingest` wrote comes through as it is. Of other datasets the codes of vocabularies that
every site has are brought to one spelling and one unit (`codes.written_units`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

from healthfm_client.ingest.codes.written_units import UNIT, described_as, in_store_units
from healthfm_client.ingest.reader_interface import Reader, ReaderOptions, Site
from healthfm_core.data.store.events import set_aside
from healthfm_core.data.store.integrity import (
    check_event_files,
    check_schemas,
    check_store,
    read_splits,
)
from healthfm_core.data.store.schemas import (
    CODES,
    EVENTS,
    SOURCE_CODES,
    SPLIT_NAMES,
    conform,
    is_text,
)
from healthfm_core.data.store.store_files import (
    CODES_FILE,
    DATA,
    LABELS_FOLDER,
    MARKER_FILE,
    SOURCE_CODES_FILE,
    SPLITS_FILE,
    WEARABLE_FOLDER,
    in_order,
    read_marker,
    read_parquet,
)
from healthfm_core.data.store.store_layers import event_files

TASKS_FOLDER: Final = "task_labels"


def site_of(path: Path, options: ReaderOptions) -> Site:
    """Return a MEDS dataset as a site, after the full check.

    Args:
        path: A folder with ``data/``, ``metadata/dataset.json`` and, where there are any,
            ``metadata/subject_splits.parquet``, ``labels/`` and ``wearable/``; labels may also
            lie as MEDS's tools write them, ``task_labels/<task>/….parquet``. Without splits, a
            dataset sharded as ``data/train`` … keeps those; another gets the keyed hash.
        options: What is later than today is set aside.

    Raises:
        StoreError: HF-201 to HF-210; a file out of order or with an event twice is refused, never
            repaired in silence.
    """
    marker = read_marker(path)
    if (path / SPLITS_FILE).is_file():
        check_store(path)
        splits = read_splits(path)
    else:
        check_schemas(path)
        check_event_files(in_order(path / DATA), path, None)
        splits = _splits_by_folder(path)
    events, changed = _events(path)
    kept, rejected = set_aside(events, now_us=options.now_us)
    wearables: dict[str, list[pa.Table]] = {}
    for file in in_order(path / WEARABLE_FOLDER):
        wearables.setdefault(file.parent.name, []).append(read_parquet(file, file.name))
    codes = path / CODES_FILE
    said = _table(codes, path, CODES) if codes.is_file() else None
    if changed:
        said = described_as(CODES.empty_table() if said is None else said, changed)
    return Site(
        name=None,
        title=str(marker.get("dataset_name") or path.name),
        events=kept,
        wearables={device: pa.concat_tables(tables) for device, tables in wearables.items()},
        labels=_labels(path),
        splits=splits,
        codes=said,
        rejected=rejected,
        source_codes=_source_codes(path),
    )


def _source_codes(path: Path) -> dict[tuple[str, str], int]:
    """Return what a mapping replaced when the store was made; a file of others' says nothing."""
    if not (path / SOURCE_CODES_FILE).is_file():
        return {}
    table = read_parquet(path / SOURCE_CODES_FILE, SOURCE_CODES_FILE)
    if not table.schema.equals(SOURCE_CODES):
        return {}
    code, source, rows = (table[name].to_pylist() for name in SOURCE_CODES.names)
    return dict(zip(zip(code, source, strict=True), rows, strict=True))


def _events(path: Path) -> tuple[pa.Table, dict[str, list[str]]]:
    """Return the events under the store's codes, in its units, and which codes those changed."""
    events, changed = [EVENTS.empty_table()], dict[str, list[str]]()
    for file, layer in event_files(path):
        where = file.relative_to(path).as_posix()
        raw = layer.current(read_parquet(file, where))
        beside = UNIT in raw.column_names and is_text(raw[UNIT].type)
        unit = raw[UNIT].cast(pa.string()) if beside else None
        rows, new = in_store_units(conform(raw, EVENTS, where), unit)
        events.append(conform(rows, EVENTS, where))
        for code, names in new.items():
            changed[code] = sorted({*changed.get(code, []), *names})
    return pa.concat_tables(events), changed


def _labels(path: Path) -> dict[str, pa.Table]:
    """Return task → its labels, from either folder."""
    files = {file: file.stem for file in in_order(path / LABELS_FOLDER)}
    shards = in_order(path / TASKS_FOLDER)
    files |= {f: f.relative_to(path / TASKS_FOLDER).parts[0].split(".")[0] for f in shards}
    by_task: dict[str, list[pa.Table]] = {}
    for file, task in files.items():
        by_task.setdefault(task, []).append(read_parquet(file, file.name))
    return {task: pa.concat_tables(t, promote_options="permissive") for task, t in by_task.items()}


def _table(file: Path, store: Path, wanted: pa.Schema) -> pa.Table:
    where = file.relative_to(store).as_posix()
    return conform(read_parquet(file, where), wanted, where)


def _splits_by_folder(path: Path) -> pa.Table | None:
    parts = []
    for name in SPLIT_NAMES:
        for file in in_order(path / DATA / name):
            subject = read_parquet(file, file.name, ["subject_id"])["subject_id"].unique()
            split = pa.array([name] * len(subject), pa.string())
            parts.append(pa.table({"subject_id": subject, "split": split}))
    return pa.concat_tables(parts) if parts else None


def read(path: Path, options: ReaderOptions) -> Iterator[Site]:
    """Yield the dataset as one site."""
    yield site_of(path, options)


def sniff(path: Path) -> bool:
    """Whether the folder has data/ and metadata/dataset.json."""
    return (path / DATA).is_dir() and (path / MARKER_FILE).is_file()


READER = Reader(
    name="meds",
    summary="a MEDS 0.4 dataset (native: checked, in the store's units)",
    reads=(
        "a dataset of MEDS 0.4 whole: events, codes, splits, labels; a store's wearables; units "
        "within codes of LOINC and SNOMED, or in a column `unit`"
    ),
    not_read="columns that MEDS does not define",
    tried_on="the samples of MEDS's own testing package; stores that `ingest` wrote",
    sniff=sniff,
    read=read,
)
