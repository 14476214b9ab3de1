"""UK Biobank's accelerometer: both forms of the time series."""

from __future__ import annotations

import gzip
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.wearables import hours_worn
from healthfm_core.errors import IngestError
from tests.ingest.test_devices import minutes

HEADER = "acceleration (mg) - {start} - {end} - sampleRate = 5 seconds"
START = datetime(2014, 5, 7, 13, 29, 50)


def series(folder: Path, name: str, rows: list[str], *, stated: int | None = None) -> Path:
    """A file with a first line, a row each five seconds."""
    end = START + timedelta(seconds=5 * ((stated or len(rows)) - 1))
    text = "\n".join([HEADER.format(start=START, end=end) + ",imputed", *rows, ""])
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(gzip.compress(text.encode()) if ".gz" in name else text.encode())
    return folder / name


def one(path: Path, tmp_path: Path, **options) -> SiteStore:
    (out,) = ingest("auto", path, tmp_path / "out", overwrite=True, **options)
    store = SiteStore.open(out)
    store.check()
    return store


def test_minutes_are_means_of_what_was_read_and_not_imputed(tmp_path):
    rows = ["10,", "20,", "30,", "50,1", *["60,1"] * 11, "9000,", "40,"]
    series(tmp_path / "in", "1234567_90004_0_0.csv.gz", rows)
    store = one(tmp_path / "in", tmp_path)
    assert store.subjects().tolist() == [1234567]
    assert minutes(store, "ACCELERATION") == {
        "2014-05-07 13:29": 15.0,
        "2014-05-07 13:30": 30.0,
        "2014-05-07 13:31": 40.0,
    }
    assert hours_worn(store.wearable()) == pytest.approx(3 / 60)
    assert store.rejected == {"impossible_reading": 1}
    events = store.events().to_pylist()
    assert [(str(e["time"]), e["code"], e["numeric_value"]) for e in events] == [
        ("2014-05-07 14:00:00", "WEARABLE//ACCELERATION//MEAN//mg", pytest.approx(85 / 3))
    ]


def test_rows_with_their_own_times_keep_the_clock_of_the_wall(tmp_path):
    rows = ["time,acc,imputed,sleep", "2020-10-25 01:59:55.000000+0100 [Europe/London],10,0,1"]
    rows += ["2020-10-25 01:00:00.000000+0000 [Europe/London],30,0,1"]
    rows += ["2020-10-25 01:00:05.000000+0000 [Europe/London],50,1,1"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "7_90001_0_0-timeSeries.csv").write_text("\n".join(rows))
    store = one(tmp_path / "in", tmp_path, summaries=False)
    assert minutes(store, "ACCELERATION") == {"2020-10-25 01:59": 10.0, "2020-10-25 01:00": 30.0}
    assert store.events().num_rows == 0


def test_a_persons_weeks_come_together_and_a_file_may_be_named(tmp_path):
    for name in ("12_90004_0_0.csv", "12_90004_1_0.csv", "13_90004_0_0.csv"):
        series(tmp_path / "in", name, ["10,", "20,"])
    store = one(tmp_path / "in", tmp_path)
    assert store.subjects().tolist() == [12, 13]
    assert store.wearable().num_rows == 2
    file = series(tmp_path / "other", "week.csv", ["10,"])
    assert one(file, tmp_path, person="99").subjects().tolist() == [99]


@pytest.mark.parametrize(
    ("name", "change", "number"),
    [
        ("week.csv", {}, 305),
        ("12_a.csv", {"stated": 3}, 303),
        ("12_a.csv.gz", {"cut": True}, 303),
        ("12_a.csv", {"rows": ["9001,"]}, 306),
    ],
)
def test_what_cannot_be_taken_is_refused(tmp_path, name, change, number):
    rows = change.get("rows", ["10,", "20,"])
    file = series(tmp_path / "in", name, rows, stated=change.get("stated"))
    if "cut" in change:
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(IngestError, match=f"HF-{number}") as caught:
        one(tmp_path / "in", tmp_path)
    assert "12_a" not in str(caught.value).partition(":")[0]
    assert not (tmp_path / "out").exists()
