from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.errors import IngestError


@pytest.fixture
def store(ingested):
    (store,) = ingested("chf_actigraphy", "chf_actigraphy")
    return store


@pytest.mark.realdata
def test_a_week_of_minutes_per_patient(store, shared_data):
    minutes = store.wearable("activity_minute")
    assert (minutes.num_rows, len(store.subjects())) == (47 * 7, 47)
    raw = f"'{shared_data}/chf_actigraphy/chf_minutes.parquet'"
    total = duckdb.sql(f"select sum(list_sum(log_activity::float[])) from {raw}").fetchall()[0][0]
    flat = pc.list_flatten(minutes["value"]).to_numpy()
    assert len(flat) == 47 * 7 * 1440
    assert flat.sum(dtype=np.float64) == pytest.approx(total, rel=1e-6)


@pytest.mark.realdata
def test_minutes_worn_and_events_of_each_kind(store, shared_data):
    raw = f"'{shared_data}/chf_actigraphy/chf_minutes.parquet'"
    worn, people, weights = duckdb.sql(
        "select sum(len(list_filter(log_activity::float[], lambda x: x is not null)))::int, "
        f"count(distinct id), count(distinct id) filter (bmi is not null) from {raw}"
    ).fetchall()[0]
    assert pc.sum(pc.list_flatten(store.wearable()["mask"])).as_py() == worn
    code = "regexp_replace(code, '//.*', '')"
    sql = f"select {code}, count(*) from '{store.path}/data/*/*.parquet' group by 1"
    found = dict(duckdb.sql(sql).fetchall())
    hours = people * 7 * 24
    wanted = {"MEDS_BIRTH": people, "Gender": people, "BMI": weights, "WEARABLE": hours}
    assert found == wanted


@pytest.mark.realdata
def test_weeks_start_on_a_monday(store):
    start = store.wearable()["start"]
    assert pc.min(start).as_py().strftime("%A") == "Monday"
    assert sorted(set(pc.day_of_week(start).to_pylist())) == list(range(7))


@pytest.mark.realdata
def test_outcomes_come_after_the_week(store, shared_data):
    raw = f"'{shared_data}/chf_actigraphy/chf_minutes.parquet'"
    sql = f"select event_type, count(distinct id) from {raw} group by 1"
    of = dict(duckdb.sql(sql).fetchall())
    count = {task: pc.sum(store.labels(task)["boolean_value"]).as_py() for task in store.tasks}
    counted = {"hospitalisation": of["Hospitalization"], "emergency_room": of["Emergency Room"]}
    assert count == counted == {"hospitalisation": 9, "emergency_room": 8}
    assert pc.max(store.events()["time"]) == store.labels("hospitalisation")["prediction_time"][0]


@pytest.mark.realdata
def test_hourly_means_agree_with_the_minutes(store):
    events = store.events()
    rows = events.filter(pc.starts_with(events["code"], "WEARABLE//"))
    assert rows.num_rows == 47 * 7 * 24
    one = store.wearable().slice(0, 1)
    first = rows.filter(pc.equal(rows["subject_id"], one["subject_id"][0]))
    means = np.array(one["value"][0].as_py()).reshape(24, 60).mean(1)
    np.testing.assert_allclose(first["numeric_value"].to_numpy()[:24], means, rtol=1e-5)


def days(**columns) -> pa.Table:
    plain = {
        "id": [1, 1],
        "gender": ["Male", "Male"],
        "age": [60, 60],
        "bmi": [25, 25],
        "event_type": [".", "."],
        "day": ["Tue", "Mon"],
        "log_activity": pa.FixedSizeListArray.from_arrays(
            pa.array([1.0, None, 3.0, 4.0], pa.float32()), 2
        ),
    }
    return pa.table(plain | columns)


def test_a_missing_minute_is_masked(tmp_path):
    pq.write_table(days(), tmp_path / "chf_minutes.parquet")
    from healthfm_core.data.store.site_store import SiteStore

    (path,) = ingest("chf_actigraphy", tmp_path, tmp_path / "out")
    rows = SiteStore.open(path).wearable()
    assert rows["value"].to_pylist() == [[3.0, 4.0], [1.0, 0.0]]
    assert rows["mask"].to_pylist() == [[True, True], [True, False]]


def test_a_day_that_is_none_is_refused(tmp_path):
    pq.write_table(days(day=["Mon", "Dienstag"]), tmp_path / "chf_minutes.parquet")
    with pytest.raises(IngestError, match=r"HF-308.*days of the week"):
        ingest("chf_actigraphy", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
