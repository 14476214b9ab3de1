"""NHANES's minutes: each form gives the counts as they are."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError


def one(path, tmp_path) -> SiteStore:
    (out,) = ingest("auto", path, tmp_path / "out")
    store = SiteStore.open(out)
    store.check()
    return store


def test_a_row_per_minute_becomes_days(tmp_path):
    file = tmp_path / "paxraw_d.csv"
    rows = ["7,1,1,1,1,0,0,5", "7,1,1,1,2,0,1,32767", "7,1,1,2,1442,0,1,9", "7,1,1,1,10081,0,0,1"]
    rows += ["8,1,2,1,1,0,0,5", "9,1,1,1,3,0,2,"]
    head = "SEQN,PAXSTAT,PAXCAL,PAXDAY,PAXN,PAXHOUR,PAXMINUT,PAXINTEN"
    file.write_text("\n".join([head, *rows, ""]))
    store = one(file, tmp_path)
    assert store.rejected == {"beyond_the_week": 1, "not_reliable": 1}
    found = store.wearable("activity_minute").to_pylist()
    assert [(r["subject_id"], str(r["start"]), r["channel"]) for r in found] == [
        (7, "2006-01-02 00:00:00", "COUNTS"),
        (7, "2006-01-03 00:00:00", "COUNTS"),
    ]
    assert found[0]["value"][:3] == [5.0, 32767.0, 0.0]
    assert found[0]["mask"][:3] == [True, True, False]
    assert (found[1]["value"][1], sum(found[1]["mask"])) == (9.0, 1)


def test_a_row_per_day_becomes_the_same(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3000, (9, 1440))
    head = "SEQN,PAXCAL,PAXSTAT,WEEKDAY,SDDSRVYR," + ",".join(f"MIN{n}" for n in range(1, 1441))
    rows = [
        f"{7 if n < 8 else 8},1,{1 + (n == 8)},1,3," + ",".join(map(str, counts[n]))
        for n in range(9)
    ]
    (tmp_path / "PAXINTEN_C.csv").write_text("\n".join([head, *rows]))
    store = one(tmp_path / "PAXINTEN_C.csv", tmp_path)
    assert store.rejected == {"beyond_the_week": 1, "not_reliable": 1}
    table = store.wearable("activity_minute")
    assert table["subject_id"].to_pylist() == [7] * 7
    assert str(table["start"][0].as_py()) == "2004-01-02 00:00:00"
    assert np.array_equal(np.array(table["value"].to_pylist()), counts[:7])
    assert np.array(table["mask"].to_pylist()).all()


def test_a_day_without_counts_is_set_aside(tmp_path):
    counts = pa.array([[1] * 1440, None], pa.list_(pa.int16()))
    days = pa.table({"subject_id": [1, 2], "day_index": [1, 1], "counts": counts})
    pq.write_table(days, tmp_path / "days.parquet")
    store = one(tmp_path / "days.parquet", tmp_path)
    assert store.subjects().tolist() == [1]
    assert store.rejected == {"beyond_the_week": 1}


def test_rows_of_both_forms_are_set_aside_together(tmp_path):
    (tmp_path / "in").mkdir()
    counts = pa.array([[1] * 1440, None], pa.list_(pa.int16()))
    days = pa.table({"subject_id": [1, 2], "day_index": [1, 1], "counts": counts})
    pq.write_table(days, tmp_path / "in" / "days.parquet")
    minutes = "SEQN,PAXSTAT,PAXCAL,PAXN,PAXINTEN\n7,1,1,1,5\n7,1,1,10081,6\n"
    (tmp_path / "in" / "paxraw_d.csv").write_text(minutes)
    store = one(tmp_path / "in", tmp_path)
    assert store.rejected == {"beyond_the_week": 2}
    kept = pq.read_table(tmp_path / "out" / "rejected" / "beyond_the_week.parquet")
    assert kept["counts"].to_pylist() == [None, [6.0]]


def test_a_table_without_a_single_minute_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("SEQN,PAXN,PAXINTEN\n7,1,many\n")
    with pytest.raises(IngestError, match="HF-306"):
        one(tmp_path / "a.csv", tmp_path)


@pytest.mark.realdata
def test_the_minutes_of_fifty_people_come_through_unchanged(tmp_path, shared_data):
    folder = shared_data / "nhanes_2003_2006"
    file = folder / "minute_counts_50subjects_2003_2004.parquet"
    store = one(file, tmp_path)
    worn = store.wearable("activity_minute")
    differing = duckdb.sql(
        f"select count(*) from worn join '{file}' using (subject_id) where value <> counts::float[]"
    )
    sums = "count(*), sum(list_sum({0}::double[]))::bigint, sum(len({0}::float[]))::bigint"
    raw = duckdb.sql(f"select {sums.format('counts')} from '{file}'").fetchall()
    assert raw == [(50, 16_505_407, 72_000)]
    assert duckdb.sql(f"select {sums.format('value')} from worn").fetchall() == raw
    assert differing.fetchall() == [(0,)]
    assert all(all(mask) for mask in worn["mask"].to_pylist())
