"""A device's files in a store, written as its rows come: a few people's samples are in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.data.store.store_files import write_parquet
from healthfm_core.data.store.wearables import sort_wearable

SAMPLES_PER_FILE: Final = 50_000_000


class WearableShards:
    """Writes ``0.parquet``, ``1.parquet`` … of one device.

    Args:
        folder: The device's.
        samples_per_file: With how many samples a file is full.
    """

    def __init__(self, folder: Path, samples_per_file: int = SAMPLES_PER_FILE) -> None:
        self._folder = folder
        self._full = samples_per_file
        self._waiting: list[pa.Table] = []
        self._samples = 0
        self._files = 0

    def add(self, rows: pa.Table) -> None:
        """Add all rows of some people, of whom none were added before."""
        samples = int(pc.sum(pc.list_value_length(rows["mask"])).as_py() or 0)
        if rows.num_rows:
            self._waiting.append(rows)
            self._samples += samples
        if self._samples >= self._full:
            self.end()

    def end(self) -> None:
        """Write what waits."""
        if self._waiting:
            table = sort_wearable(pa.concat_tables(self._waiting))
            write_parquet(table, self._folder / f"{self._files}.parquet")
            self._files += 1
        self._waiting, self._samples = [], 0
