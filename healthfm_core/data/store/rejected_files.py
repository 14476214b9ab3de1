"""Rows that were set aside, kept beside a store's data: a Parquet file per reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.data.store.draft_folder import link_file
from healthfm_core.data.store.store_files import in_order, read_parquet, read_schema


class RejectedFiles:
    """The files of rejected rows, one per reason and kind of row, written as the rows come.

    Args:
        folder: Where they lie; made with the first.

    Attributes:
        counts: Reason → rows written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, list[pq.ParquetWriter]] = {}
        self.counts: dict[str, int] = {}

    def append(self, reason: str, rows: pa.Table) -> None:
        """Write rows behind those of their reason."""
        self.counts[reason] = self.counts.get(reason, 0) + rows.num_rows
        writers = self._writers.setdefault(reason, [])
        writer = next((w for w in writers if w.schema.equals(rows.schema)), None)
        if writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            writer = pq.ParquetWriter(self._new_file(reason), rows.schema, compression="zstd")
            writers.append(writer)
        writer.write_table(rows)

    def close(self) -> None:
        """End the files; rows of the same reason that come later get a file of their own."""
        for writers in self._writers.values():
            for writer in writers:
                writer.close()
        self._writers = {}

    def _new_file(self, reason: str) -> Path:
        names = (reason if not n else f"{reason}-{n + 1}" for n in count())
        return next(f for name in names if not (f := self._folder / f"{name}.parquet").exists())


def rejected_by_reason(folder: Path, reasons: Iterable[str]) -> dict[str, int]:
    """Return reason → rows in a folder's files, of those that have any."""
    named, found = list(reasons), dict[str, int]()
    for file in in_order(folder):
        for reason in [reason for reason in named if _is_of(file.stem, reason)][:1]:
            found[reason] = found.get(reason, 0) + pq.read_metadata(file).num_rows
    return found


def reason_and_kind(file: Path) -> tuple[str, pa.Schema]:
    """Return of which reason a file's rows are, and of which kind.

    Raises:
        StoreError: It cannot be read (HF-209).
    """
    return re.sub(r"-\d+$", "", file.stem), read_schema(file, file.name)


def put_rejected_together(folder: Path, place: Path) -> None:
    """Write a folder's rejected rows so that those of one reason and kind are one file.

    Args:
        folder: It stays as it is.
        place: The folder in a store in the making; a file that stays one is linked.

    Raises:
        StoreError: HF-209.
    """
    alike: list[tuple[tuple[str, pa.Schema], list[Path]]] = []
    for file in in_order(folder):
        kind = reason_and_kind(file)
        files = next((files for known, files in alike if known == kind), None)
        if files is None:
            alike.append((kind, [file]))
        else:
            files.append(file)
    for (_, schema), files in alike:
        place.mkdir(parents=True, exist_ok=True)
        if len(files) == 1:
            link_file(files[0], place / files[0].name)
            continue
        with pq.ParquetWriter(place / files[0].name, schema, compression="zstd") as writer:
            for file in files:
                writer.write_table(read_parquet(file, file.name))


def _is_of(stem: str, reason: str) -> bool:
    """Return whether a file of rejected rows is of a reason: its name, or that and a number."""
    return stem == reason or (stem.startswith(f"{reason}-") and stem[len(reason) + 1 :].isdigit())
