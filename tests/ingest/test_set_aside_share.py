"""A source of which most would be set aside is no store, and nobody is told that it is one."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.__main__ import main
from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError


def events(folder: Path, *, future: int, past: int, code: str = "LAB//K") -> Path:
    """So many events a hundred years from now, and so many of 2020, some twice."""
    folder.mkdir()
    day = [datetime(2150, 1, 1) + timedelta(days=n) for n in range(future)]
    day += [datetime(2020, 1, 1) + timedelta(hours=n) for n in range(past)]
    table = {
        "subject_id": pa.array(range(future + past), pa.int64()),
        "time": pa.array(day, pa.timestamp("us")),
        "code": pa.array([code] * future + ["LAB//K"] * past),
        "numeric_value": pa.array([1.0] * (future + past), pa.float32()),
    }
    pq.write_table(pa.table(table), folder / "events.parquet")
    return folder / "events.parquet"


def read(source: Path, out: Path, **options: object) -> SiteStore:
    (store,) = ingest("event_table", source, out, site_column="", **options)
    return SiteStore.open(store)


def test_a_source_shifted_into_the_future_is_refused_and_the_option_named(tmp_path):
    source = events(tmp_path / "raw", future=2000, past=100)
    with pytest.raises(IngestError) as caught:
        read(source, tmp_path / "out")
    assert caught.value.number == 315
    said = str(caught.value)
    assert "2,000 of 2,100 rows (95.2 %) are set aside: 2,000 after_today" in said
    assert "the latest of 2155-06-23" in said
    assert "--today 2155-12-31" in said
    assert "--max-set-aside 1" in said
    assert not (tmp_path / "out").exists()


def test_with_the_day_that_the_source_means_nothing_is_lost(tmp_path):
    source = events(tmp_path / "raw", future=2000, past=100)
    store = read(source, tmp_path / "out", today="2155-12-31")
    assert store.set_aside.kept == 2100
    assert store.set_aside.rows == 0


def test_a_share_just_within_is_kept_and_one_just_above_is_not(tmp_path):
    assert read(events(tmp_path / "a", future=50, past=950), tmp_path / "kept").rejected == {
        "after_today": 50
    }
    with pytest.raises(IngestError, match="HF-315"):
        read(events(tmp_path / "b", future=51, past=949), tmp_path / "out")
    assert read(
        events(tmp_path / "c", future=51, past=949), tmp_path / "all", max_set_aside=0.06
    ).rejected == {"after_today": 51}


def test_a_few_rows_are_no_reason_to_stop(tmp_path):
    assert read(events(tmp_path / "a", future=19, past=1), tmp_path / "out").rejected


def test_a_whole_kind_of_codes_is_not_lost_within_the_share(tmp_path):
    source = events(tmp_path / "raw", future=20, past=2000, code="RX//aspirin")
    with pytest.raises(IngestError, match="of RX nothing is left"):
        read(source, tmp_path / "out")


def test_doubles_are_nothing_lost(tmp_path):
    source = events(tmp_path / "raw", future=0, past=100)
    table = pq.read_table(source)
    pq.write_table(pa.concat_tables([table] * 5), source)
    assert read(source, tmp_path / "out").rejected == {"duplicate": 400}


def test_check_and_describe_say_what_was_kept_all_the_same(tmp_path, capsys):
    source = events(tmp_path / "raw", future=2000, past=100)
    read(source, tmp_path / "out", max_set_aside=1)
    capsys.readouterr()
    assert main(["check", str(tmp_path / "out")]) == 0
    assert "sound, but 2,000 of 2,100 rows (95.2 %) are set aside" in capsys.readouterr().out
    assert main(["describe", str(tmp_path / "out")]) == 0
    assert "95.2 % of all rows: look at how it was read in" in capsys.readouterr().out


def test_check_says_nothing_of_a_store_that_lost_little(tmp_path, capsys):
    read(events(tmp_path / "raw", future=50, past=950), tmp_path / "out")
    capsys.readouterr()
    assert main(["check", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.endswith(": sound\n")


def test_a_time_beyond_every_calendar_is_set_aside_and_not_a_crash(tmp_path):
    times = pa.array([0] * 60 + [1 << 62] * 3, pa.timestamp("us"))
    table = {
        "subject_id": pa.array(range(63), pa.int64()),
        "time": times,
        "code": ["A"] * 63,
        "numeric_value": pa.nulls(63, pa.float32()),
    }
    pq.write_table(pa.table(table), tmp_path / "events.parquet")
    (out,) = ingest("event_table", tmp_path / "events.parquet", tmp_path / "out", site_column="")
    assert SiteStore.open(out).rejected == {"after_today": 3}
