"""Whom a model is asked about, as of when: a MEDS label file, or labels of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.data.store.events import ids, repeated, times_us
from healthfm_core.data.store.schemas import LABELS, conform
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import UNREADABLE, in_order
from healthfm_core.errors import IngestError, StoreError

_COLUMNS: Final = ("subject_id", "prediction_time", "boolean_value")


def asked_moments(given: Path, store: SiteStore, *, outcomes: bool = False) -> pa.Table:
    """Return subject_id, prediction_time and, where it has them, boolean_value.

    Args:
        given: A Parquet file, a folder of them, or the name of a label table of the store.
        store: The store.
        outcomes: Whether each row has to have an outcome.

    Raises:
        IngestError: It cannot be read, lacks a column, asks twice about one person at one time, or
            about nobody of the store (HF-350).
    """
    table = _read(given, store)
    try:
        table = conform(table, LABELS, str(given), extra=True)
    except StoreError as error:
        raise _unusable(given, error.seen) from error
    table = table.select([name for name in _COLUMNS if name in table.column_names])
    if repeated([ids(table), times_us(table, "prediction_time")]).any():
        raise _unusable(given, "it asks twice about one person at one time")
    if not np.isin(ids(table), store.subjects()).any():
        raise _unusable(given, f"the store {store.name} has none of its people")
    if outcomes:
        known = "boolean_value" in table.column_names and not table["boolean_value"].null_count
        if not known:
            raise _unusable(given, "boolean_value is missing or has nulls")
    return table


def _read(given: Path, store: SiteStore) -> pa.Table:
    if not given.exists() and given.name in store.tasks and given.parent == Path():
        return store.labels(given.name)
    files = in_order(given) if given.is_dir() else [given]
    try:
        tables = [pq.read_table(file, partitioning=None) for file in files]
        return pa.concat_tables(tables, promote_options="default")
    except (*UNREADABLE, ValueError) as error:
        raise _unusable(given, "there is no file" if not files else "it cannot be read") from error


def _unusable(given: Path, seen: str) -> IngestError:
    return IngestError(350, where=str(given), seen=seen)
