"""Rows set aside again are not kept again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_client.ingest.tables.known_rows import drop_known


def file(folder: Path, name: str, *rows: int | None, column: str = "raw") -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({column: pa.array(rows, pa.int64())}), folder / f"{name}.parquet")


def rows(folder: Path) -> dict[str, list[int | None]]:
    return {f.stem: pq.read_table(f).column(0).to_pylist() for f in sorted(folder.iterdir())}


def test_what_other_files_of_the_reason_have_goes_as_often_as_they_have_it(tmp_path: Path) -> None:
    before, now = tmp_path / "before", tmp_path / "now"
    file(before, "before_1850", 1, None)
    file(before, "before_1850-2", 2, 2)
    file(before, "no_date", 9)
    shutil.copytree(before, now)
    file(now, "before_1850-3", 3, None, 2, 1, 2, 2, 9)
    file(now, "before_1850-4", 1, column="other")
    file(now, "no_date-2", 9)
    file(now, "no_code", 1, 1)
    assert drop_known(before, now) == 6
    assert rows(now) == {
        **rows(before),
        "before_1850-3": [2, 3, 9],
        "before_1850-4": [1],
        "no_code": [1, 1],
    }


def test_where_nothing_was_set_aside_before_everything_is_new(tmp_path: Path) -> None:
    file(tmp_path / "now", "no_code", 1)
    assert drop_known(tmp_path / "before", tmp_path / "now") == 1
    assert drop_known(tmp_path / "before", tmp_path / "neither") == 0
