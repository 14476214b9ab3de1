"""Updates one after the other: few files, and what comes late is as if it had come in time."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_layers import update_folders
from tests.ingest.test_update_store import (
    BORN,
    DAY,
    FIRST,
    Row,
    held,
    table,
    update,
    update_module_of,
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight people; their updates are never put into the store's own files."""
    monkeypatch.setattr(update_module_of(), "MOST_IN_UPDATES", 9.0)
    first = table(tmp_path / "first.parquet", FIRST)
    (path,) = ingest("event_table", first, tmp_path / "store", site_column="")
    return path


def test_many_small_updates_are_made_one_and_no_more_files(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_module_of(), "MOST_UPDATES", 3)
    added, files = list[Row](), list[int]()
    for n in range(12):
        row: Row = (1 + n % 2, DAY + timedelta(days=600 + n), "E", float(n))
        added.append(row)
        wrong: Row = (1, datetime(2999, 1, 1 + n), "A", 7.0)
        update(table(tmp_path / f"{n}.parquet", [row, wrong]), store)
        if n == 5:  # of whom the layers before hold rows
            corrected: list[Row] = [(1, DAY, "Z", 1.0), (2, BORN, "MEDS_BIRTH", None)]
            update(table(tmp_path / "anew.parquet", corrected), store, "people")
            added = corrected
        files.append(len(list(store.rglob("*"))))
    assert max(files[6:]) <= max(files[:6]) + 1, "with one of replaced people"
    assert len(update_folders(store)) <= 3
    others = [row for row in FIRST if row[0] > 2]
    assert held(store) == sorted(repr(list(row)) for row in [*others, *added])
    assert SiteStore.open(store).rejected == {"after_today": 6}, "of 1 until then is replaced"
    assert len(list((store / "rejected").iterdir())) <= 4


def test_a_birth_that_comes_later_sets_aside_what_was_before_it(
    tmp_path: Path, store: Path
) -> None:
    early: list[Row] = [(30, datetime(1900, 1, 1), "A", 1.0), (30, DAY, "A", 1.0)]
    text = pq.read_table(table(tmp_path / "a.parquet", early))
    text = text.append_column("text_value", pa.array(["kept", "kept"]))
    pq.write_table(text, tmp_path / "a.parquet")
    update(tmp_path / "a.parquet", store)
    born: list[Row] = [(30, BORN, "MEDS_BIRTH", None), (30, DAY, "B", 1.0), (1, DAY, "B", 1.0)]
    said = update(table(tmp_path / "b.parquet", born), store, max_set_aside=1)
    assert said[1] == "3 rows are new; 0 the store had."
    rows = SiteStore.open(store).narrowed(subjects=[30]).events()
    assert rows["code"].to_pylist() == ["MEDS_BIRTH", "A", "B"]
    assert rows["text_value"].to_pylist() == [None, "kept", None]
    assert SiteStore.open(store).rejected == {"before_birth": 1}
    assert [row for row in held(store) if row.startswith("[1,")] == sorted(
        repr(list(row)) for row in [*FIRST, born[-1]] if row[0] == 1
    )
