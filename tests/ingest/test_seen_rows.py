"""What of a store may equal or contradict an update's rows is found, and little beside it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import seen_rows
from healthfm_client.ingest.seen_rows import SeenRows
from healthfm_core.data.store.store_layers import StoreLayer

DAY = datetime(2020, 1, 1)
Row = tuple[int, datetime | None, str, float | None]


def rows(*given: Row, text: str | None = None) -> pa.Table:
    who, when, what, value = zip(*given, strict=True)
    columns = {
        "subject_id": pa.array(who, pa.int64()),
        "time": pa.array(when, pa.timestamp("us")),
        "code": pa.array(what, pa.string()),
        "numeric_value": pa.array(value, pa.float32()),
    }
    return pa.table(columns | ({"text_value": pa.array([text] * len(who))} if text else {}))


def found(
    tmp_path: Path, new: pa.Table, old: pa.Table, replaced: tuple[int, ...] = ()
) -> list[Any] | None:
    """Return which rows of a file may equal those of an update, as (person, code, value)."""
    pq.write_table(old, tmp_path / "0.parquet")
    seen = SeenRows()
    seen.note(new)
    layer = StoreLayer(tmp_path, np.array(replaced, np.int64))
    table = seen.among(tmp_path / "0.parquet", layer, seen.everyone)
    return None if table is None else [tuple(row.values()) for row in table.to_pylist()]


def test_only_rows_of_the_same_person_time_and_code_are_compared(tmp_path: Path) -> None:
    old = rows(
        (1, DAY, "A", 1.0),
        (1, DAY, "A", 2.0),
        (1, DAY, "B", 1.0),
        (1, DAY + timedelta(days=1), "A", 1.0),
        (1, None, "A", 1.0),
        (2, DAY, "A", 1.0),
        (3, DAY, "A", 1.0),
    )
    new = rows((1, DAY, "A", 9.0), (3, DAY + timedelta(days=2), "B", 1.0))
    assert found(tmp_path, new, old) == [(1, DAY, "A", 1.0), (1, DAY, "A", 2.0)]


def test_births_and_deaths_of_the_same_people_count_whenever_they_were(tmp_path: Path) -> None:
    birth, death = datetime(1950, 1, 1), datetime(2030, 1, 1)
    old = rows(
        (1, birth, "MEDS_BIRTH", None), (2, birth, "MEDS_BIRTH", None), (1, death, "MEDS_DEATH", 7)
    )
    new = rows((1, DAY, "A", 1.0))
    assert found(tmp_path, new, old) == [
        (1, birth, "MEDS_BIRTH", None),
        (1, death, "MEDS_DEATH", None),
    ]
    assert found(tmp_path, rows((1, birth, "MEDS_BIRTH", None)), old) is not None


def test_rows_without_a_time_are_compared_with_such_rows(tmp_path: Path) -> None:
    old = rows((1, None, "G", 1.0), (1, DAY, "G", 1.0), text="seen")
    assert found(tmp_path, rows((1, None, "G", 1.0)), old) == [(1, None, "G", 1.0, "seen")]
    assert found(tmp_path, rows((1, DAY, "G", 1.0)), old) == [(1, DAY, "G", 1.0, "seen")]


def test_who_a_later_update_replaced_is_not_compared(tmp_path: Path) -> None:
    old = rows((1, DAY, "A", 1.0), (2, DAY, "A", 1.0))
    assert found(tmp_path, old, old, replaced=(1,)) == [(2, DAY, "A", 1.0)]
    assert found(tmp_path, old, old, replaced=(1, 2)) is None


def test_no_equal_row_is_missed_among_many_and_few_others_are_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, rng = 100_000, np.random.default_rng(0)
    who, day = rng.integers(-(2**40), 2**40, count), rng.integers(-30_000, 30_000, count)
    whole = pa.table(
        {
            "subject_id": pa.array(who),
            "time": pa.array(day * 86_400_000_000, pa.timestamp("us")),
            "code": pa.array([f"C{n}" for n in range(50)]).take(pa.array(day % 50)),
            "numeric_value": pa.array(np.zeros(count, np.float32)),
        }
    )
    new = pa.concat_tables([whole.slice(0, 1000), _a_day_later(whole.slice(1000))])
    for bits, most in ((seen_rows.MARK_BITS, 3000), (2, count)):
        monkeypatch.setattr(seen_rows, "MARK_BITS", bits)
        kept = found(tmp_path, new, whole) or []
        assert {row[0] for row in kept} >= set(who[:1000].tolist())
        assert len(kept) <= most


def _a_day_later(table: pa.Table) -> pa.Table:
    times = pa.array(table["time"].cast(pa.int64()).to_numpy() + 86_400_000_000)
    return table.set_column(1, "time", times.cast(pa.timestamp("us")))
