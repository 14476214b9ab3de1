"""Hostile inputs of every reader: a code or a sound store, never a crash, nothing left behind."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from healthfm_client.ingest import ingest
from healthfm_client.ingest.reader_registry import readers
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from tests.ingest.hostile import attempt, outcome
from tests.ingest.hostile_sources import SOURCES, Source, eicu, parquet, write
from tests.ingest.hostile_tables import attempt_source, hostile


def test_every_reader_has_a_sound_source_to_spoil():
    assert {make().reader for make in SOURCES} == set(readers())


@pytest.mark.parametrize("make", SOURCES)
def test_what_is_not_spoilt_becomes_a_store(tmp_path, make):
    write(make(), tmp_path / "in" / "source")
    assert outcome(make(), tmp_path / "in" / "source", tmp_path) == "stored"


@pytest.mark.parametrize("block", range(4))
def test_spoilt_bytes_end_in_a_code_or_a_sound_store(tmp_path, block):
    outcomes = []
    for seed in range(block * 25, block * 25 + 25):
        place = tmp_path / str(seed)
        place.mkdir()
        outcomes.append(attempt(seed, place))
    assert "stored" in outcomes
    assert set(outcomes) - {"stored"}


@settings(max_examples=100, derandomize=True, suppress_health_check=list(HealthCheck))
@given(hostile())
def test_odd_contents_end_in_a_code_or_a_sound_store(source: Source):
    attempt_source(source)


def test_a_stay_without_a_number_is_refused(tmp_path):
    source = eicu()
    stays = source.files["stays.parquet"]
    source.files["stays.parquet"] = stays.set_column(
        1, "patientunitstayid", pa.array([11, None, 13], pa.int64())
    )
    write(source, tmp_path / "in" / "source")
    assert outcome(source, tmp_path / "in" / "source", tmp_path) == "HF-305"


def refused(tmp_path, table: pa.Table) -> str:
    pq.write_table(table, tmp_path / "events.parquet")
    with pytest.raises(IngestError) as caught:
        ingest("event_table", tmp_path / "events.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_an_id_that_does_not_fit_is_refused_and_does_not_wrap_around(tmp_path, table):
    wide = pa.array([2**64 - 1] * table.num_rows, pa.uint64())
    assert 'column "subject_id" holds what does not fit' in refused(
        tmp_path, table.set_column(0, "subject_id", wide)
    )


def test_a_time_that_does_not_fit_is_refused_and_does_not_wrap_around(tmp_path, table):
    late = pa.array([2**62] * table.num_rows, pa.timestamp("ms"))
    assert 'column "time" holds what does not fit' in refused(
        tmp_path, table.set_column(1, "time", late)
    )


def test_a_column_that_is_there_twice_is_refused(tmp_path, table):
    assert 'two columns are called "code"' in refused(
        tmp_path, table.append_column("code", table["code"])
    )


def test_a_date_that_stands_for_none_is_set_aside(tmp_path, table):
    first = pa.array([-62_135_596_800_000_000, *[0] * 4], pa.timestamp("us"))
    pq.write_table(table.set_column(1, "time", first), tmp_path / "events.parquet")
    stores = ingest("event_table", tmp_path / "events.parquet", tmp_path / "out", site_column="")
    assert SiteStore.open(stores[0]).rejected == {"before_1850": 1, "duplicate": 1}


def test_a_small_file_of_endless_rows_is_refused(tmp_path, table):
    many = table.slice(0, 1).take(pa.array(np.zeros(1_000_000, np.int64)))
    assert "HF-310" in refused(tmp_path, many)


def test_column_names_that_are_no_text_are_refused(tmp_path, table):
    raw = parquet(table.rename_columns(["xxxx_xx", "time", "code", "numeric_value", "site"]))
    (tmp_path / "s.parquet").write_bytes(raw.replace(b"xxxx_xx", b"\xff\xfexx_xx"))
    for reader in ("event_table", "fitbit"):
        with pytest.raises(IngestError, match=r"HF-30[36]"):
            ingest(reader, tmp_path / "s.parquet", tmp_path / "out")
