"""Rows that were set aside, kept beside a store's data: a Parquet file per reason."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


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
