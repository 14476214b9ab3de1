"""Rows that were set aside once are not kept again when an update brings them again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader
from healthfm_core.data.store.rejected_files import reason_and_kind
from healthfm_core.data.store.store_files import in_order, read_parquet, write_parquet


def drop_known(before: Path, folder: Path) -> int:
    """Take out of a folder's new files what its other files have already.

    Of equal rows there are then as many as there were, or as many as came at once.

    Args:
        before: The folder as it was; files of the same name are as they were, or have lost rows.
        folder: The folder with the new files.

    Returns:
        How many rows of the new files are left.

    Raises:
        StoreError: A file cannot be read (HF-209).
    """
    there = {file.name for file in in_order(before)}
    files = in_order(folder)
    known, left = [file for file in files if file.name in there], 0
    for file in (file for file in files if file.name not in there):
        kind = reason_and_kind(file)
        same = [one for one in known if reason_and_kind(one) == kind]
        rows = _new(read_parquet(file, file.name), same)
        file.unlink()
        if rows.num_rows:
            write_parquet(rows, file)
            left += rows.num_rows
    return left


def _new(rows: pa.Table, known: Sequence[Path]) -> pa.Table:
    """Return the rows that files do not have, in an order of their own."""
    if not known:
        return rows
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in known)
    reader = DuckDBReader()
    reader.connection.register("given", rows)
    query = f"FROM given EXCEPT ALL FROM read_parquet([{listed}]) ORDER BY ALL"
    tables = list(reader.batches(query, known[0]))
    return pa.concat_tables([rows.slice(0, 0), *(table.cast(rows.schema) for table in tables)])
