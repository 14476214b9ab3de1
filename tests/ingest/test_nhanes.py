"""Counts against DuckDB on the raw files."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from healthfm_client.ingest import ingest
from healthfm_client.ingest.readers.nhanes import SUMMARIES
from healthfm_core.data.store.site_store import SiteStore

pytestmark = pytest.mark.realdata


@pytest.fixture
def stores(ingested):
    return ingested("nhanes", "nhanes_2003_2006")


@pytest.fixture
def subjects(shared_data):
    return f"'{shared_data}/nhanes_2003_2006/subjects_2003_2006.parquet'"


def test_sixty_clusters_fold_into_ten_groups(stores, subjects):
    assert len(stores) == 10
    assert sum(len(store.subjects()) for store in stores) == 20_470
    where = {s: n for n, store in enumerate(stores) for s in store.subjects().tolist()}
    groups: dict[int, set[int]] = {}
    for subject, cluster in duckdb.sql(f"select subject_id, site_psu from {subjects}").fetchall():
        groups.setdefault(cluster, set()).add(where[subject])
    assert len(groups) == 60
    assert all(len(group) == 1 for group in groups.values())


def test_five_year_death_is_297_of_the_2978(stores):
    labels = pa.concat_tables(store.labels("five_year_death") for store in stores)
    assert (labels.num_rows, pc.sum(labels["boolean_value"]).as_py()) == (2978, 297)


@pytest.mark.parametrize(
    ("task", "months"), [("five_year_death_all", 60), ("nine_year_death_all", 108)]
)
def test_death_of_every_adult_followed_so_long(stores, subjects, task, months):
    counted = duckdb.sql(
        f"select count(*), sum((mortstat_2015 = 1 and permth_exm_2015 <= {months})::int)::int "
        f"from {subjects} where eligstat_2015 = 1 and permth_exm_2015 is not null "
        f"and (permth_exm_2015 >= {months} or mortstat_2015 = 1)"
    ).fetchall()[0]
    labels = pa.concat_tables(store.labels(task) for store in stores)
    assert (labels.num_rows, pc.sum(labels["boolean_value"]).as_py()) == counted


def test_clinical_covariates_come_through(stores, subjects):
    events = pa.concat_tables(store.events() for store in stores)
    found = dict(zip(*np.unique(events["code"].to_pylist(), return_counts=True), strict=True))
    for code, where in {
        "DIABETES//Yes": "Diabetes = 'Yes'",
        "Gender//F": "Gender = 'Female'",
        "SYS": "smirnova_SYS is not null",
        "BMI": "BMI is not null",
        "EDUCATION//College graduate or above": "EducationAdult = 'College graduate or above'",
    }.items():
        count = duckdb.sql(f"select count(*) from {subjects} where {where}").fetchall()[0][0]
        assert found[code] == count, code
    assert found["MEDS_BIRTH"] == found["AGE_YEARS"] == 20_470


def test_age_and_activity_are_the_published_ones(stores, subjects):
    watch = pa.concat_tables(store.wearable("activity_daily") for store in stores)
    assert watch.num_rows == 2978 * len(SUMMARIES)
    steps = watch.filter(pc.equal(watch["channel"], "TAC"))
    tac = dict(zip(steps["subject_id"].to_pylist(), steps["value"].to_pylist(), strict=True))
    events = pa.concat_tables(store.events() for store in stores)
    ages = events.filter(pc.equal(events["code"], "AGE_YEARS"))
    age = dict(zip(ages["subject_id"].to_pylist(), ages["numeric_value"].to_pylist(), strict=True))
    query = f"select subject_id, smirnova_TAC, smirnova_Age from {subjects} where in_smirnova"
    for subject, wanted, years in duckdb.sql(query).fetchall():
        assert tac[subject] == [np.float32(wanted)]
        assert age[subject] == pytest.approx(years, rel=1e-6)


def test_nothing_known_is_later_than_the_prediction(stores):
    for store in stores:
        at = pc.min_max(store.labels("five_year_death_all")["prediction_time"]).as_py()
        assert pc.max(store.events()["time"]).as_py() < at["max"]
        assert pc.max(store.wearable()["start"]).as_py() < at["max"]


def test_a_site_may_show_only_one_of_its_two_modalities(stores):
    clinic = SiteStore.open(stores[0].path, modalities=["ehr"])
    assert clinic.modalities == {"ehr"}
    assert clinic.wearable().num_rows == 0
    watch = SiteStore.open(stores[0].path, modalities=["wearable"])
    assert watch.events().num_rows == 0


def test_wear_flags_of_each_minute_are_kept_on_request(shared_data, tmp_path):
    for file in (shared_data / "nhanes_2003_2006").glob("subjects_*.parquet"):
        (tmp_path / file.name).symlink_to(file)
    file = f"{shared_data}/nhanes_2003_2006/wear_minutes_2003_2006.parquet"
    holed = "list_contains(wear::utinyint[], 255)"
    some = f"select * from '{file}' where {holed} or subject_id < 21020"
    duckdb.sql(f"copy ({some}) to '{tmp_path}/wear_minutes_2003_2006.parquet' (format parquet)")
    rows = f"'{tmp_path}/wear_minutes_2003_2006.parquet'"
    paths = ingest("nhanes", tmp_path, tmp_path / "out", wear_minutes=True)
    stores = [SiteStore.open(path) for path in paths]
    assert all(store.devices == ("activity_daily", "wear_minute") for store in stores)
    days = pa.concat_tables(store.wearable("wear_minute") for store in stores)
    counted = duckdb.sql(
        f"select count(*), sum(wear_minutes)::int, "
        f"sum(len(list_filter(wear::utinyint[], lambda w: w <= 1)))::int from {rows}"
    ).fetchall()[0]
    found = (days.num_rows, pc.sum(pc.list_flatten(days["value"])).as_py())
    assert (*found, pc.sum(pc.list_flatten(days["mask"])).as_py()) == counted
    assert counted[2] < counted[0] * 1440
