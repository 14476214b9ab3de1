"""Counts against DuckDB on the raw files."""

from __future__ import annotations

from collections import Counter

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from healthfm_client.ingest.codes.shared_spellings import shared_spelling

pytestmark = pytest.mark.realdata
TASK = "in_hospital_mortality"

FIRST = """
    select * from (
        select *, row_number() over (partition by subject_id
                                     order by unit_admit, patientunitstayid) as nth
        from {stays}
    ) where nth = 1 and hospital_death is not null
        and hosp_disch > unit_admit + interval 24 hour
"""


@pytest.fixture
def regions(ingested):
    return ingested("eicu_demo", "eicu_demo", sites="region")


@pytest.fixture
def first(shared_data):
    stays = f"'{shared_data}/eicu_demo/stays.parquet'"
    return f"({FIRST.format(stays=stays)})"


def labels_of(stores) -> pa.Table:
    return pa.concat_tables(store.labels(TASK) for store in stores)


def test_there_are_five_regions_or_186_hospitals(regions, ingested, shared_data):
    assert [s.name for s in regions] == ["midwest", "northeast", "south", "unknown", "west"]
    hospitals = ingested("eicu_demo", "eicu_demo")
    assert len(hospitals) == 186
    counted = duckdb.sql(
        "select 'hospital-' || site, count(distinct subject_id) "
        f"from '{shared_data}/eicu_demo/stays.parquet' group by 1"
    ).fetchall()
    assert sorted((s.name, len(s.subjects())) for s in hospitals) == sorted(counted)


def test_every_event_is_kept_or_counted(regions, shared_data):
    raw = f"'{shared_data}/eicu_demo/events.parquet'"
    rows, distinct = duckdb.sql(
        f"select count(*), count(distinct (subject_id, time, code, numeric_value, site)) from {raw}"
    ).fetchall()[0]
    summaries = [store.summary() for store in regions]
    assert sum(s["events"] for s in summaries) + sum(
        sum(s["rejected"].values()) for s in summaries
    ) == (rows)
    assert sum(s["rejected"]["duplicate"] for s in summaries) == rows - distinct
    assert (rows, rows - distinct) == (1_423_062, 9150)


def test_every_code_is_counted(regions, shared_data):
    folder = regions[0].path.parent
    found = duckdb.sql(
        f"select code, count(*) from (select code from '{folder}/*/data/*/*.parquet' union all "
        f"select code from '{folder}/*/rejected/*.parquet') group by 1"
    ).fetchall()
    raw = f"'{shared_data}/eicu_demo/events.parquet'"
    counted: Counter[str] = Counter()
    for code, rows in duckdb.sql(f"select code, count(*) from {raw} group by 1").fetchall():
        counted[shared_spelling(code)] += rows
    assert dict(found) == counted
    assert (counted["Gender//F"], counted["Race//5"]) == (867, 1713)
    assert len(found) == 7622


def test_labels_are_of_first_stays_still_in_hospital(regions, first):
    total, deaths, scored = duckdb.sql(
        "select count(*), sum(hospital_death::int)::int, "
        f"count(*) filter (apacheIVa_predictedhospitalmortality >= 0) from {first}"
    ).fetchall()[0]
    labels = labels_of(regions)
    assert (labels.num_rows, sum(labels["boolean_value"].to_pylist())) == (total, deaths)
    assert labels["reference_score"].is_valid().to_pylist().count(True) == scored
    assert len(labels["subject_id"].unique()) == total


def test_reference_scores_are_apaches(regions, first):
    labels = labels_of(regions)  # noqa: F841  (DuckDB reads it by name)
    off = duckdb.sql(
        "select max(abs(reference_score - apacheIVa_predictedhospitalmortality)) "
        f"from labels join {first} using (subject_id) where reference_score is not null"
    ).fetchall()[0][0]
    assert off < 1e-6


def test_nobody_with_a_label_has_the_outcome_on_record_by_then(regions):
    for store in regions:
        events, labels = store.events(), store.labels(TASK)
        outcome = pc.or_(
            pc.equal(events["code"], "MEDS_DEATH"),
            pc.starts_with(events["code"], "HOSPITAL_DISCHARGE"),
        )
        rows = events.filter(outcome).join(labels, "subject_id", join_type="inner")
        early = rows.filter(pc.less_equal(rows["time"], rows["prediction_time"]))
        assert early.num_rows == 0


def test_one_persons_stays_are_on_one_side(regions, shared_data):
    splits = pa.concat_tables(  # noqa: F841  (DuckDB reads it by name)
        pa.table(
            {"subject_id": store.subjects(split), "split": [split] * len(store.subjects(split))}
        )
        for store in regions
        for split in ("train", "tuning", "held_out")
    )
    torn = duckdb.sql(
        "select count(*) from (select uniquepid from splits "
        f"join '{shared_data}/eicu_demo/stays.parquet' using (subject_id) "
        "group by 1 having count(distinct splits.split) > 1)"
    ).fetchall()[0][0]
    assert torn == 0
