"""Two people, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from healthfm_core.data.store.schemas import EVENTS
from healthfm_core.data.store.store_writer import StoreWriter

Row = tuple[Any, ...]

DAY = datetime(2020, 1, 1)
NOON = datetime(2020, 1, 1, 12)
ROWS: list[Row] = [
    (2, NOON, "LAB//K", 4.5, None),
    (1, None, "GENDER//F", None, None),
    (1, datetime(1950, 5, 5), "MEDS_BIRTH", None, None),
    (1, NOON, "LAB//K", 3.5, None),
    (1, DAY, "DX//I10", None, "as told"),
]


def table(rows: list[Row]) -> pa.Table:
    """Events from tuples in MEDS's order of columns."""
    columns = zip(*rows, strict=True) if rows else [[]] * len(EVENTS)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, EVENTS, strict=True)], EVENTS)


@pytest.fixture
def events() -> Callable[[list[Row]], pa.Table]:
    """`table`."""
    return table


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A sound store: subject 1 in train, subject 2 held out."""
    writer = StoreWriter(tmp_path / "site", dataset_name="site")
    writer.add_events(table(ROWS))
    writer.set_splits({1: "train", 2: "held_out"})
    writer.write()
    return tmp_path / "site"
