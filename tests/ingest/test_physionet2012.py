"""Counts against DuckDB on the raw files."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

pytestmark = pytest.mark.realdata
TASK = "in_hospital_mortality"


@pytest.fixture
def stores(ingested):
    return ingested("physionet2012", "physionet2012")


@pytest.fixture
def stays(shared_data):
    return f"'{shared_data}/physionet2012/stays.parquet'"


def test_sites_are_the_four_icu_types(stores, stays):
    counted = duckdb.sql(
        f"select lower(icu_type), count(*), sum(hospital_death)::int from {stays} group by 1"
    ).fetchall()
    found = [
        (
            s.name,
            len(s.subjects()),
            sum(s.labels(TASK)["boolean_value"].to_pylist()),
        )
        for s in stores
    ]
    assert sorted(found) == sorted(counted)
    assert {s.name for s in stores} == {"ccu", "csru", "micu", "sicu"}


def test_every_event_is_kept_or_counted(stores, shared_data):
    raw = duckdb.sql(f"select count(*) from '{shared_data}/physionet2012/events.parquet'")
    summaries = [store.summary() for store in stores]
    rejected = [sum(s["rejected"].values()) for s in summaries]
    assert sum(s["events"] for s in summaries) + sum(rejected) == raw.fetchall()[0][0] == 5_264_676
    assert sum(rejected) < 1000


def test_every_variable_is_counted(stores, shared_data):
    folder = stores[0].path.parent
    found = duckdb.sql(
        f"select code, count(*) from (select code from '{folder}/*/data/*/*.parquet' union all "
        f"select code from '{folder}/*/rejected/*.parquet') group by 1"
    ).fetchall()
    raw = f"'{shared_data}/physionet2012/events.parquet'"
    spelled = "replace(code, 'GENDER//', 'Gender//')"
    assert dict(found) == dict(
        duckdb.sql(f"select {spelled}, count(*) from {raw} group by 1").fetchall()
    )
    assert len(found) == 46


def test_set_c_is_held_out_and_the_rest_is_85_to_15(stores, stays):
    c = duckdb.sql(f"select subject_id from {stays} where set = 'c'").fetchnumpy()["subject_id"]
    held_out = np.concatenate([store.subjects("held_out") for store in stores])
    assert sorted(held_out) == sorted(c)
    train = sum(len(store.subjects("train")) for store in stores)
    tuning = sum(len(store.subjects("tuning")) for store in stores)
    assert train + tuning == 8000
    assert abs(tuning / 8000 - 0.15) < 0.01


def test_set_c_has_585_deaths(stores):
    deaths = 0
    for store in stores:
        labels = store.labels(TASK)
        of_c = pc.is_in(labels["subject_id"], pa.array(store.subjects("held_out")))
        deaths += sum(labels.filter(of_c)["boolean_value"].to_pylist())
    assert deaths == 585


def test_no_event_is_later_than_its_prediction(stores):
    for store in stores:
        at = store.labels(TASK)["prediction_time"].unique().to_pylist()
        assert len(at) == 1
        assert pc.max(store.events()["time"]).as_py() <= at[0]


def test_values_come_through_unchanged(stores, shared_data):
    store = stores[0]
    rows = store.events("tuning")  # noqa: F841  (DuckDB reads it by name)
    raw = f"'{shared_data}/physionet2012/events.parquet'"
    kept = duckdb.sql(
        f"select count(*) from rows join {raw} r on rows.subject_id = r.subject_id "
        "and rows.code = replace(r.code, 'GENDER//', 'Gender//') "
        "and rows.time is not distinct from r.time "
        "and rows.numeric_value is not distinct from r.numeric_value"
    ).fetchall()[0][0]
    assert kept == store.events("tuning").num_rows


def test_five_million_events_are_in_and_checked_within_a_minute(stores, seconds):
    assert seconds["physionet2012"] < 60
