from __future__ import annotations

import signal
import subprocess
import sys
from datetime import date

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.readers import event_table
from healthfm_client.ingest.tables import parquet_columns as source_module
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError, IngestError

OPTIONS = {"today": "2024-06-01"}


def test_each_site_becomes_a_store_sorted_and_rid_of_what_cannot_be(source, tmp_path):
    paths = ingest("event_table", source, tmp_path / "out", **OPTIONS)
    assert [path.name for path in paths] == ["10", "9"]
    ten, nine = (SiteStore.open(path) for path in paths)
    assert ten.events()["code"].to_pylist() == ["A", "B"]
    assert ten.rejected == {"duplicate": 1}
    assert nine.subjects().tolist() == [3]
    assert nine.rejected == {"after_today": 1}
    aside = pq.read_table(paths[1] / "rejected" / "after_today.parquet")
    assert aside["subject_id"].to_pylist() == [2]
    for path in paths:
        SiteStore.open(path).check()


def test_reading_again_gives_the_same_store(source, tmp_path):
    first = ingest("event_table", source, tmp_path / "a", today=date(2024, 6, 1))
    again = ingest("event_table", source, tmp_path / "b", **OPTIONS)
    for one, other in zip(first, again, strict=True):
        files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
        assert files == sorted(p.relative_to(other) for p in other.rglob("*") if p.is_file())
        assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_without_a_site_column_the_output_is_the_store(source, tmp_path):
    assert ingest("event_table", source, tmp_path / "out", site_column="") == [tmp_path / "out"]
    assert SiteStore.open(tmp_path / "out").subjects().tolist() == [1, 3]


def test_labels_and_splits_come_along(source, tmp_path):
    duckdb.sql(
        "copy (select 1::bigint subject_id, timestamp '2020-02-01' prediction_time, "
        f"true boolean_value) to '{tmp_path}/death.parquet'"
    )
    duckdb.sql(f"copy (select 1::bigint subject_id, 'tuning' split) to '{tmp_path}/s.parquet'")
    paths = ingest(
        "event_table",
        source,
        tmp_path / "out",
        labels=[tmp_path / "death.parquet"],
        splits=tmp_path / "s.parquet",
        site_column="",
    )
    store = SiteStore.open(paths[0])
    assert store.labels("death")["subject_id"].to_pylist() == [1]
    assert store.subjects("tuning").tolist() == [1]


def test_views_of_texts_are_texts(source, table, tmp_path):
    """As Polars writes them."""
    view = pa.string_view()
    table = table.set_column(2, "code", table["code"].cast(pa.string()).cast(view))
    table = table.set_column(4, "site", pa.array(["a", "b", "b", "b", "a"], view))
    pq.write_table(table.append_column("text_value", pa.array([*"vwxyz"], view)), source)
    splits = pa.table({"subject_id": [1, 3], "split": pa.array(["tuning", "train"], view)})
    pq.write_table(splits, tmp_path / "s.parquet")
    paths = ingest("event_table", source, tmp_path / "out", splits=tmp_path / "s.parquet")
    stores = [SiteStore.open(path) for path in paths]
    assert [store.events()["text_value"].to_pylist() for store in stores] == [
        ["v"],
        ["x", "w", "y"],
    ]
    assert [store.subjects("tuning").tolist() for store in stores] == [[], [1]]
    kind = source_module.ColumnKind.TEXT
    read = source_module.read_columns(tmp_path / "s.parquet", {"split": kind})
    assert read.take(pa.array([1]))["split"].to_pylist() == ["train"]


def refused(source, tmp_path, number: int) -> str:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(IngestError) as caught:
        ingest("event_table", source, tmp_path / "out")
    assert caught.value.code == f"HF-{number}"
    assert sorted(tmp_path.iterdir()) == before
    return str(caught.value)


@pytest.mark.parametrize("column", ["subject_id", "time", "code", "numeric_value", "site"])
def test_a_missing_column_is_refused(source, table, tmp_path, column):
    pq.write_table(table.drop_columns([column]), source)
    assert f'there is no column "{column}"' in refused(source, tmp_path, 307)


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("subject_id", pa.string()),
        ("time", pa.string()),
        ("numeric_value", pa.string()),
        ("site", pa.float64()),
    ],
)
def test_a_wrong_dtype_is_refused(source, table, tmp_path, column, kind):
    at = table.column_names.index(column)
    pq.write_table(table.set_column(at, column, table[column].cast(kind)), source)
    assert f'column "{column}" is {kind}' in refused(source, tmp_path, 308)


@pytest.mark.parametrize("column", ["subject_id", "site"])
def test_an_event_of_nobody_or_nowhere_is_refused(source, table, tmp_path, column):
    at = table.column_names.index(column)
    kind = table.schema.field(column).type
    holed = pa.array([None, 1, 1, 1, 2], pa.int64()).cast(kind)
    pq.write_table(table.set_column(at, column, holed), source)
    assert "empty in 1 rows" in refused(source, tmp_path, 305)


def test_an_empty_table_is_refused(source, table, tmp_path):
    pq.write_table(table.slice(0, 0), source)
    refused(source, tmp_path, 306)


def test_a_site_whose_every_event_is_impossible_leaves_no_store_at_all(source, table, tmp_path):
    pq.write_table(table.slice(4, 1), source)
    refused(source, tmp_path, 306)


def test_a_file_cut_off_is_refused(source, tmp_path):
    source.write_bytes(source.read_bytes()[:-9])
    refused(source, tmp_path, 303)


def test_numbers_of_other_widths_and_finer_times_are_taken(source, table, tmp_path):
    table = table.set_column(0, "subject_id", table["subject_id"].cast(pa.int32()))
    fine = table["time"].cast(pa.timestamp("ns"), safe=False)
    table = table.slice(0, 4).set_column(1, "time", fine.slice(0, 4))
    at = table.column_names.index("numeric_value")
    table = table.set_column(at, "numeric_value", table["numeric_value"].cast(pa.float64()))
    pq.write_table(table, source)
    assert len(ingest("event_table", source, tmp_path / "out")) == 2


def test_two_sites_of_one_folder_name_are_refused(source, table, tmp_path):
    names = pa.array(["St Mary", "st mary", "x", "x", "x"])
    pq.write_table(table.set_column(4, "site", names), source)
    assert "two sites" in refused(source, tmp_path, 304)


@pytest.mark.parametrize(
    ("options", "code"), [({"sitecolumn": "x"}, "HF-101"), ({"today": "soon"}, "HF-102")]
)
def test_a_wrong_option_is_named(source, tmp_path, options, code):
    with pytest.raises(ConfigError, match=code):
        ingest("event_table", source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("group_rows", [1 << 14, 1 << 19])
def test_what_was_read_is_not_kept(tmp_path, monkeypatch, group_rows):
    """However the file is cut; pyarrow itself keeps every byte it read of it."""
    monkeypatch.setattr(source_module, "ROWS_AT_ONCE", 1 << 14)
    monkeypatch.setattr(source_module, "READ_BYTES", 1 << 14)
    rng, rows = np.random.default_rng(0), 1 << 19
    columns = {
        "subject_id": rng.integers(0, 1 << 40, rows),
        "time": pa.array(rng.integers(0, 1 << 50, rows)).cast(pa.timestamp("us")),
        "code": pa.array(["A", "B"]).take(pa.array(rng.integers(0, 2, rows))),
        "numeric_value": rng.random(rows),
    }
    file = tmp_path / "events.parquet"
    layout = {"row_group_size": group_rows, "data_page_size": 1 << 14, "use_dictionary": ["code"]}
    pq.write_table(pa.table(columns), file, **layout)
    del columns
    before = pa.total_allocated_bytes()
    batches = source_module.read_batches(file, event_table.COLUMNS, coded=("code",))
    seen = [pa.total_allocated_bytes() - before for _ in batches]
    assert len(seen) == rows >> 14
    assert max(seen) < 3_000_000 < file.stat().st_size / 2


KILLED = """
import os, signal, sys
from pathlib import Path
from healthfm_client.ingest import ingest
from healthfm_client.ingest.readers import event_table
whole = event_table._tables
def tables(file, site, zone):
    if file.name == "b.parquet":
        yield next(whole(file, site, zone)).slice(0, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    yield from whole(file, site, zone)
event_table._tables = tables
ingest("event_table", Path(sys.argv[1]), Path(sys.argv[2]), resume=True)
"""


def test_sites_of_one_stream_are_taken_up_again_after_a_kill(table, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, rows in (("a", table.slice(0, 2)), ("b", table.slice(2, 2)), ("c", table.slice(4))):
        pq.write_table(rows, folder / f"{name}.parquet")
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(tmp_path / "out")])
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    read: list[str] = []
    whole = event_table._tables

    def tables(file, site, zone):
        read.append(file.name)
        yield from whole(file, site, zone)

    monkeypatch.setattr(event_table, "_tables", tables)
    resumed = ingest("event_table", folder, tmp_path / "out", resume=True)
    assert read == ["b.parquet", "c.parquet"]
    assert not list(tmp_path.glob(".out.work-*"))
    for one, other in zip(resumed, ingest("event_table", folder, tmp_path / "again"), strict=True):
        assert SiteStore.open(one).events().equals(SiteStore.open(other).events())
        assert SiteStore.open(one).rejected == SiteStore.open(other).rejected
