"""Where things lie in a site store, and how its files are opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from meds import (
    code_metadata_filepath,
    data_subdirectory,
    dataset_metadata_filepath,
    subject_splits_filepath,
)

from healthfm_core.errors import StoreError

DATA: Final = data_subdirectory
SPLITS_FILE: Final = subject_splits_filepath
CODES_FILE: Final = code_metadata_filepath
SOURCE_CODES_FILE: Final = "metadata/source_codes.parquet"
"""Which codes of the source stand behind those that a mapping put in their place."""
QUALITY_FILE: Final = "metadata/quality.json"
"""What ``check --quality`` found; a store that replaces this one is compared with it."""
MARKER_FILE: Final = dataset_metadata_filepath
"""Written last: a store without it is half-written."""
WEARABLE_FOLDER: Final = "wearable"
LABELS_FOLDER: Final = "labels"
REJECTED_FOLDER: Final = "rejected"
UNREADABLE: Final = (OSError, UnicodeDecodeError, pa.ArrowException)
"""What reading a damaged Parquet file raises; column names may be no UTF-8."""
OWN_KEY: Final = "healthfm"
"""Key of HealthFM's own facts in dataset.json, which allows further ones."""


def in_order(folder: Path) -> list[Path]:
    """Return the Parquet files below `folder`, ``2.parquet`` before ``10.parquet``."""
    files = [path for path in folder.rglob("*.parquet") if path.is_file()]
    return sorted(files, key=lambda path: (path.parent.as_posix(), len(path.stem), path.stem))


def read_schema(file: Path, where: str) -> pa.Schema:
    """Return the schema in a Parquet file's footer.

    Raises:
        StoreError: HF-209.
    """
    try:
        return pq.read_schema(file)
    except UNREADABLE as error:
        raise _unreadable(where) from error


def read_parquet(
    file: Path, where: str, columns: list[str] | None = None, coded: tuple[str, ...] = ()
) -> pa.Table:
    """Return a Parquet file as it is.

    Args:
        file: The file.
        where: Named in an error.
        columns: Only these.
        coded: Text columns to read as dictionaries.

    Raises:
        StoreError: HF-209.
    """
    try:
        return pq.ParquetFile(file, read_dictionary=list(coded)).read(columns=columns)
    except UNREADABLE as error:
        raise _unreadable(where) from error


def read_batches(
    file: Path, where: str, rows: int, columns: list[str] | None = None, coded: tuple[str, ...] = ()
) -> Iterator[pa.Table]:
    """Yield a Parquet file as it is, so many rows at a time.

    Args:
        file: The file.
        where: Named in an error.
        rows: Of each part but the last.
        columns: Only these.
        coded: Text columns to read as dictionaries.

    Raises:
        StoreError: HF-209.
    """
    try:
        opened = pq.ParquetFile(file, read_dictionary=list(coded))
        for batch in opened.iter_batches(batch_size=rows, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch])
    except UNREADABLE as error:
        raise _unreadable(where) from error


def may_hold(file: Path, where: str, subjects: pa.Array) -> bool:
    """Return whether a file's own statistics leave it open that one of `subjects` is in it.

    Raises:
        StoreError: HF-209.
    """
    try:
        footer = pq.read_metadata(file)
    except UNREADABLE as error:
        raise _unreadable(where) from error
    column = footer.schema.names.index("subject_id")
    for group in range(footer.num_row_groups):
        statistics = footer.row_group(group).column(column).statistics
        if statistics is None or not statistics.has_min_max:
            return True
        inside = pc.and_(
            pc.greater_equal(subjects, statistics.min), pc.less_equal(subjects, statistics.max)
        )
        if pc.any(inside).as_py():
            return True
    return False


def samples_a_row(file: Path, where: str) -> float:
    """Return the samples of a row of a wearable's file, on average.

    Raises:
        StoreError: HF-209.
    """
    try:
        footer = pq.read_metadata(file)
    except UNREADABLE as error:
        raise _unreadable(where) from error
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(at) for group in groups for at in range(group.num_columns)]
    samples = sum(one.num_values for one in columns if one.path_in_schema.startswith("value"))
    return float(samples / max(1, footer.num_rows))


def files_version(store: Path) -> str:
    """Return what tells a store from what it was before: its files' names, sizes and times."""
    files = sorted(file for file in store.rglob("*") if file.is_file())
    known = [(file.relative_to(store).as_posix(), file.stat()) for file in files]
    facts = [(name, found.st_size, found.st_mtime_ns) for name, found in known]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_marker(store: Path) -> dict[str, Any]:
    """Return dataset.json.

    Raises:
        StoreError: HF-207 where it is missing or cut off, HF-208 where `store` is no store at all.
    """
    if not store.is_dir() or not any((store / name).is_dir() for name in (DATA, "metadata")):
        raise StoreError(
            208,
            where=store.name,
            seen="there is no folder with data/ and metadata/" if store.is_dir() else "not there",
        )
    try:
        marker = json.loads((store / MARKER_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        marker = None
    except (OSError, ValueError) as error:
        raise _half_written(store, "cannot be read") from error
    if not isinstance(marker, dict):
        raise _half_written(store, "is missing" if marker is None else "is not an object")
    return marker


def write_marker(store: Path, marker: Mapping[str, Any]) -> None:
    """Write dataset.json; what the file's name was linked to stays as it is."""
    file = store / MARKER_FILE
    file.unlink(missing_ok=True)
    file.write_text(json.dumps(marker, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def keep_quality(store: Path, draft: Path) -> None:
    """Give a store in the making what the last check found in the one that it replaces."""
    if (store / QUALITY_FILE).is_file():
        (draft / QUALITY_FILE).write_bytes((store / QUALITY_FILE).read_bytes())


def stores_below(path: Path) -> list[Path]:
    """Return the store itself, or the stores that a folder holds, by name.

    Raises:
        StoreError: HF-208 where there is none.
    """
    inside = [path] if (path / DATA).is_dir() or (path / "metadata").is_dir() else []
    if not inside and path.is_dir():
        below = (child for child in path.iterdir() if not child.name.startswith("."))
        inside = sorted(child for child in below if (child / "metadata").is_dir())
    if not inside:
        read_marker(path)
    return inside


def write_parquet(table: pa.Table, file: Path) -> None:
    """Write a table so that equal tables give equal bytes.

    What the file's name was linked to stays as it is.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    pq.write_table(table, file, compression="zstd", row_group_size=1 << 20)


def write_shards(table: pa.Table, folder: Path, rows_per_file: int) -> None:
    """Write a table that is sorted by subject as ``0.parquet``, ``1.parquet`` …

    A subject is in one file; a file ends with the subject that fills it.
    """
    subject = np.asarray(table["subject_id"].to_numpy())
    ends = np.append(np.flatnonzero(subject[1:] != subject[:-1]) + 1, len(subject))
    start = number = 0
    while start < len(subject):
        full = np.searchsorted(ends, min(start + rows_per_file, len(subject)))
        end = int(ends[full])
        write_parquet(table.slice(start, end - start), folder / f"{number}.parquet")
        start, number = end, number + 1


def _unreadable(where: str) -> StoreError:
    return StoreError(209, where=where, seen="the file cannot be read")


def _half_written(store: Path, what: str) -> StoreError:
    return StoreError(207, where=store.name, seen=f"{MARKER_FILE}, which is written last, {what}")
