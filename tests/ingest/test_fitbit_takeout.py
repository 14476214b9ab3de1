"""Fitbit from Google Takeout: files of JSON, in folders or archives of a person each."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from healthfm_client.ingest import ingest, ingest_into, update_store
from healthfm_core.data.store import store_draft, wearable_shards
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from tests.ingest.test_devices import days, minutes

GLOBAL = "Takeout/Fitbit/Global Export Data"
Files = Mapping[str, object]


def row(at: str, value: object) -> dict[str, object]:
    return {"dateTime": at, "value": value}


def heart(at: str, bpm: object, confidence: int = 2) -> dict[str, object]:
    return row(at, {"bpm": bpm, "confidence": confidence})


def sleep(log: int, day: str, *pieces: tuple[str, str, int], short=(), **said) -> dict:
    data = [{"dateTime": at, "level": level, "seconds": s} for at, level, s in pieces]
    wakes = [{"dateTime": at, "level": "wake", "seconds": s} for at, s in short]
    levels = {"summary": said.pop("summary", {}), "data": data, "shortData": wakes}
    return {"logId": log, "dateOfSleep": day, "type": "stages", "levels": levels, **said}


def takeout(folder: Path, files: Files, below: str = GLOBAL) -> Path:
    for name, content in files.items():
        file = folder / below / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def zipped(file: Path, files: Files, below: str = GLOBAL) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as whole:
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            whole.writestr(f"{below}/{name}", text)
    return file


def profile(zone: str) -> str:
    return f"id,full_name,timezone,sleep_tracking\nA,Ann,{zone},classic\n"


def read(path: Path, notify=None, **options) -> SiteStore:
    said = {} if notify is None else {"notify": notify}
    out = path.parent / "out"
    (store,) = ingest("auto", path, out, overwrite=True, **said, **options)
    found = SiteStore.open(store)
    found.check()
    return found


STEPS = {"steps-2020-03-01.json": [row("03/01/20 08:00:00", "12"), row("03/01/20 08:01:00", "0")]}


def test_readings_by_the_minute_and_totals_of_days(tmp_path):
    files = {
        **STEPS,
        "heart_rate-2020-03-01.json": [
            heart("03/01/20 08:00:05", 60),
            heart("03/01/20 08:00:10", 64),
            heart("03/01/20 08:01:00", 70, confidence=0),
            heart("03/01/20 08:02:00", 500),
            heart("03/01/20", 60),
        ],
        "resting_heart_rate-2020-03-01.json": [
            row("03/01/20 00:00:00", {"date": "03/01/20", "value": 58.5, "error": 6.7}),
            row("03/02/20 00:00:00", {"date": None, "value": 0.0, "error": 0.0}),
        ],
        "sedentary_minutes-2020-03-01.json": [
            row("03/01/20 00:00:00", "700"),
            row("03/02/20 00:00:00", "1440"),
        ],
        "very_active_minutes-2020-03-01.json": [row("03/01/20 00:00:00", "30")],
        "calories-2020-03-01.json": [
            *(row(f"03/01/20 {n // 60:02d}:{n % 60:02d}:00", "1.5") for n in range(1440)),
            row("03/02/20 00:00:00", "1.5"),
        ],
    }
    store = read(takeout(tmp_path / "31", files))
    assert store.subjects().tolist() == [31]
    assert minutes(store, "STEPS") == {"2020-03-01 08:00": 12, "2020-03-01 08:01": 0}
    assert minutes(store, "HR") == {"2020-03-01 08:00": 62}
    assert days(store) == {
        (31, "RESTING_HR_DAY"): {"2020-03-01": 58.5},
        (31, "SEDENTARY_DAY"): {"2020-03-01": 700},
        (31, "VERY_ACTIVE_DAY"): {"2020-03-01": 30},
        (31, "ENERGY_DAY"): {"2020-03-01": 2160},
    }
    assert store.rejected == {"impossible_hr": 1}
    assert store.not_read == {
        "heart rate of confidence 0": 1,
        "reading without a number or a time": 1,
        "days of resting_heart_rate without wearing": 1,
        "days of sedentary_minutes without wearing": 1,
        "days of calories that are not whole": 1,
    }


def test_a_night_s_short_times_awake_hold_against_its_stages_and_naps_add_up(tmp_path):
    night = sleep(
        1,
        "2020-03-01",
        ("2020-03-01T01:00:00.000", "light", 120),
        ("2020-03-01T01:02:00.000", "deep", 60),
        ("2020-03-01T01:03:00.000", "rem", 60),
        ("2020-03-01T01:04:00.000", "wake", 60),
        short=[("2020-03-01T01:01:00.000", 30)],
        minutesAsleep=4,
        timeInBed=5,
        summary={"light": {"count": 1, "minutes": 2}, "deep": {"minutes": 1}},
    )
    nap = sleep(2, "2020-03-01", ("2020-03-01T14:00:00.000", "asleep", 60), minutesAsleep=1)
    inside = sleep(3, "2020-03-02", ("2020-03-01T01:01:00.000", "deep", 60))
    odd = sleep(4, "2020-03-03", ("2020-03-03T01:01:00.000", "deep", 10**9))
    files = {"sleep-2020-03-01.json": [night, nap], "sleep-2020-03-02.json": [night, inside, odd]}
    store = read(takeout(tmp_path / "31", files))
    assert minutes(store, "SLEEP") == {
        "2020-03-01 01:00": 1,
        "2020-03-01 01:01": 0.5,
        "2020-03-01 01:02": 3,
        "2020-03-01 01:03": 2,
        "2020-03-01 01:04": 0,
        "2020-03-01 14:00": 2,
    }
    assert days(store) == {
        (31, "ASLEEP_DAY"): {"2020-03-01": 5},
        (31, "IN_BED_DAY"): {"2020-03-01": 5},
        (31, "LIGHT_SLEEP_DAY"): {"2020-03-01": 2},
        (31, "DEEP_SLEEP_DAY"): {"2020-03-01": 1},
    }
    assert store.not_read == {
        "sleep that is there twice": 1,
        "sleep without stages": 1,
        "sleep that overlaps a longer one": 1,
    }


def test_exports_that_overlap_count_once(tmp_path):
    first = {
        "steps-2020-03-01.json": [row("03/01/20 08:00:00", "12"), row("03/01/20 08:01:00", "7")],
        "calories-2020-03-01.json": [
            row(f"03/01/20 {n // 60:02d}:{n % 60:02d}:00", "1") for n in range(1440)
        ],
    }
    later = {
        "steps-2020-03-01.json": [row("03/01/20 08:01:00", "7"), row("03/01/20 08:02:00", "9")],
        "calories-2020-03-01.json": first["calories-2020-03-01.json"],
    }
    zipped(tmp_path / "in" / "31" / "takeout-20200302T000000Z-001.zip", first)
    zipped(tmp_path / "in" / "31" / "takeout-20200402T000000Z-001.zip", later)
    store = read(tmp_path / "in")
    assert minutes(store, "STEPS") == {
        "2020-03-01 08:00": 12,
        "2020-03-01 08:01": 7,
        "2020-03-01 08:02": 9,
    }
    assert days(store) == {(31, "ENERGY_DAY"): {"2020-03-01": 1440}}


def test_times_of_utc_are_brought_to_the_site_s_zone_else_to_the_person_s_else_that_is_said(
    tmp_path,
):
    said: list[str] = []
    folder = takeout(tmp_path / "31", STEPS)
    assert set(minutes(read(folder, said.append), "STEPS")) == {
        "2020-03-01 08:00",
        "2020-03-01 08:01",
    }
    assert any("steps-….json, dateTime are UTC's and were kept so" in line for line in said)
    said.clear()
    takeout(folder, {"Profile.csv": profile("America/New_York")}, "Takeout/Fitbit/Your Profile")
    assert "2020-03-01 03:00" in minutes(read(folder, said.append), "STEPS")
    store = read(folder, said.append, time_zone="Asia/Tokyo")
    assert "2020-03-01 17:00" in minutes(store, "STEPS")
    assert not any("UTC" in line for line in said)


def test_an_hour_that_autumn_repeats_is_the_mean_of_both(tmp_path):
    steps = [row("10/25/20 00:30:00", "10"), row("10/25/20 01:30:00", "30")]
    store = read(
        takeout(tmp_path / "31", {"steps-2020-10-25.json": steps}), time_zone="Europe/Vienna"
    )
    assert minutes(store, "STEPS") == {"2020-10-25 02:30": 20}


def whose(store: SiteStore) -> dict[int, float]:
    """Person → what was counted."""
    rows = store.wearable("fitbit").to_pylist()
    return {row["subject_id"]: sum(row["value"]) for row in rows}


def walked(count: int) -> Files:
    return {"steps-2020-03-01.json": [row("03/01/20 08:00:00", str(count))]}


def test_a_person_is_a_folder_or_an_archive_and_no_two_become_one(tmp_path):
    folder, said = tmp_path / "in", []
    takeout(folder / "31", walked(1))
    zipped(folder / "32" / "a-001.zip", walked(2))
    zipped(folder / "33.zip", walked(3), f"33/{GLOBAL}")
    zipped(folder / "34-001.zip", walked(4))
    zipped(folder / "34-002.zip", {"steps-2020-03-02.json": [row("03/02/20 08:00:00", "4")]})
    takeout(folder / "35", walked(5), "MyFitbitData/AnnLee/Physical Activity")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("x")
    store = read(folder, said.append)
    assert whose(store) == {31: 1, 32: 2, 33: 3, 34: 4, 35: 5}
    assert any("Each of the 2 archives that lie side by side" in line for line in said)
    assert store.not_read == {"files of nobody": 1}
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as whole:
        for name, count in (("31", 1), ("32", 2)):
            ((file, text),) = walked(count).items()
            whole.writestr(f"{name}/{GLOBAL}/{file}", json.dumps(text))
            whole.writestr(f"{name}/{GLOBAL}/exercise-0.json", "[1]")
        whole.writestr("README.txt", "x")
    assert whose(read(tmp_path / "all.zip")) == {31: 1, 32: 2}
    assert whose(read(zipped(tmp_path / "36.zip", walked(6)))) == {36: 6}
    own = zipped(tmp_path / "37.zip", walked(7))
    assert whose(read(own, person="38")) == {38: 7}
    assert whose(read(takeout(tmp_path / "39", walked(9)) / "Takeout", person="40")) == {40: 9}


def test_what_is_not_read_is_counted_by_its_kind(tmp_path):
    folder = takeout(
        tmp_path / "31",
        {
            **STEPS,
            "exercise-2020-03-01.json": [{"a": 1}, {"a": 2}],
            "a_new_kind-2020-03-01.json": [1],
            "heart_rate-2020-03-02.json": '[{"dateTime": "03/02/20 08:00:00", "val',
        },
    )
    takeout(folder, {"steps_2020-03-01.csv": "a,b"}, "Takeout/Fitbit/Physical Activity_GoogleData")
    store = read(folder)
    assert store.not_read == {
        "records of exercise": 2,
        "records of another kind": 1,
        "files in physical activity_googledata": 1,
    }
    assert store.rejected == {"unreadable_file": 1}


def test_people_are_read_one_after_the_other_into_files_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(store_draft, "WearableShards", small_shards)
    written: list[tuple[str, int]] = []
    monkeypatch.setattr(
        wearable_shards,
        "write_parquet",
        lambda t, f: written.append((f.name, len(t))) or plain(t, f),
    )
    for name in range(1, 6):
        takeout(tmp_path / "in" / str(name), walked(name))
    seen: list[tuple[int, int]] = []
    progress = {"show_progress": lambda what, done, of: seen.append((done, len(written)))}
    (out,) = ingest("fitbit_takeout", tmp_path / "in", tmp_path / "out", **progress)
    assert written == [("0.parquet", 2), ("1.parquet", 2), ("2.parquet", 1)]
    assert seen == [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]
    assert whose(SiteStore.open(out)) == {n: n for n in range(1, 6)}


plain = wearable_shards.write_parquet


def small_shards(folder: Path) -> wearable_shards.WearableShards:
    return wearable_shards.WearableShards(folder, samples_per_file=2 * 1440)


def test_a_later_export_goes_into_the_store_and_who_was_forgotten_stays_out(tmp_path):
    store = tmp_path / "store"
    folder = tmp_path / "in"
    for name in ("31", "32"):
        takeout(folder / name, walked(int(name)))
    ingest("fitbit_takeout", folder, store, key=tmp_path / "key")
    later = {"steps-2020-04-01.json": [row("04/01/20 08:00:00", "5")]}
    takeout(folder / "31", later)
    update_store("fitbit_takeout", folder, store, "rows", key=tmp_path / "key")
    assert len(SiteStore.open(store).wearable("fitbit")) == 3
    shutil.rmtree(folder / "32")
    ingest_into("fitbit_takeout", folder, store, key=tmp_path / "key")
    assert len(SiteStore.open(store).wearable("fitbit")) == 3


@pytest.mark.parametrize(
    ("files", "number"),
    [
        ({"steps-2020-03-01.json": "[]"}, 306),
        ({"steps-2020-03-01.json": '[{"dateTime":'}, 306),
        ({"steps-2020-03-01.json": [row("03/01/70 08:00:00", "7")]}, 306),
    ],
)
def test_what_holds_nothing_is_refused_in_a_sentence(tmp_path, files, number):
    with pytest.raises(IngestError, match=f"HF-{number}"):
        read(takeout(tmp_path / "31", files))
    assert [p.name for p in tmp_path.iterdir()] == ["31"]


def test_an_archive_that_would_fill_the_machine_is_refused(tmp_path):
    bomb = {**STEPS, "heart_rate-2020-03-01.json": " " * 80_000_000}
    with pytest.raises(IngestError, match=r"HF-310.*200 times its size"):
        read(zipped(tmp_path / "31.zip", bomb))
