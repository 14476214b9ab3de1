"""Withings and Oura: what an account gives of itself, in folders or archives of a person each."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError
from tests.ingest.test_devices import days, minutes


def read(path: Path, notify=None, **options) -> SiteStore:
    said = {} if notify is None else {"notify": notify}
    (store,) = ingest("auto", path, path.parent / "out", overwrite=True, **said, **options)
    found = SiteStore.open(store)
    found.check()
    return found


def device_of(store: SiteStore) -> str:
    return next(device for device in store.devices if device != "per_day")


def export(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def raw(*rows: tuple[str, Sequence[object], Sequence[object]]) -> str:
    lines = [f'{at},"{json.dumps(lasts)}","{json.dumps(values)}"' for at, lasts, values in rows]
    return "\n".join(["start,duration,value", *lines]) + "\n"


NIGHTS = 'from,to,"light (s)","deep (s)","rem (s)","awake (s)","wake up",Notes\n'


def test_withings_lists_are_spread_over_their_minutes(tmp_path):
    files = {
        "raw_tracker_steps.csv": raw(
            ("2020-03-01T08:00:30+01:00", [60, 120], [30, 20]),
            ("2020-03-01T08:00:40+01:00", [10], [9]),
            ("2020-03-01T09:00:00+01:00", [7200], [9]),
            ("2020-03-01T10:00:00+01:00", [60], [9, 9]),
            ("no time", [60], [9]),
        ),
        "raw_hr_hr.csv": raw(("2020-03-01T08:00:00+01:00", [120, 7200, 60], [60, 70, 999])),
        "raw_tracker_sleep-state.csv": raw(
            ("2020-03-01T23:59:00+01:00", [60, 60], [0, 1]),
            ("2020-03-02T00:01:00+01:00", [60, 60, 60], [2, 3, 7]),
        ),
        "raw_bed_sleep-state.csv": raw(("2020-03-01T23:59:00+01:00", [60], [1])),
        "raw_tracker_distance.csv": raw(("2020-03-01T08:00:00+01:00", [60], [9])),
        "aggregates_steps.csv": "date,value\n2020-03-01,5000\n2020-03-02,x\n",
    }
    store = read(export(tmp_path / "31", files))
    assert store.subjects().tolist() == [31]
    walked = {"08:00": 15, "08:01": 15 + 5, "08:02": 10, "08:03": 5}
    assert minutes(store, "STEPS", device_of(store)) == {
        f"2020-03-01 {at}": n for at, n in walked.items()
    }
    assert minutes(store, "HR", device_of(store)) == {
        "2020-03-01 08:00": 60,
        "2020-03-01 08:01": 60,
        "2020-03-01 08:02": 70,
    }
    assert minutes(store, "SLEEP", device_of(store)) == {
        "2020-03-01 23:59": 0,
        "2020-03-02 00:00": 1,
        "2020-03-02 00:01": 3,
        "2020-03-02 00:02": 2,
    }
    assert days(store) == {(31, "STEPS_DAY"): {"2020-03-01": 5000}}
    assert store.rejected == {"impossible_hr": 1}
    assert store.not_read == {
        "STEPS counted over more than an hour": 1,
        "STEPS counted twice": 1,
        "reading without a number or a time": 3,
        "records of distance": 1,
        "sleep that overlaps a longer one": 1,
        "stages of sleep that cannot be": 1,
    }


def test_withings_nights_weights_and_pressures_are_found_by_place_and_unit(tmp_path):
    files = {
        "aggregates_steps.csv": "date,value\n",
        "sleep.csv": NIGHTS
        + "2020-03-01T23:00:00+01:00,2020-03-02T06:00:00+01:00,600,1200,300,60,0,\n" * 2
        + "2020-03-02T14:00:00+01:00,2020-03-02T15:00:00+01:00,60,0,,0,0,\n",
        "weight.csv": 'Datum,"Gewicht (lb)","Fettmasse (lb)",Kommentare\n'
        '"2020-03-02 08:15:00",150,30,\n"2020-03-02 08:15:00",150,30,\n,150,,\n',
        "bp.csv": 'Date,"Heart rate",Systolic,Diastolic,Comments\n'
        '"2020-03-03 08:00:00",60,120,80,\n'
        '"2020-03-03 09:00:00",60,,,\n',
    }
    store = read(export(tmp_path / "31", files))
    assert days(store) == {
        (31, "ASLEEP_DAY"): {"2020-03-02": 36},
        (31, "LIGHT_SLEEP_DAY"): {"2020-03-02": 11},
        (31, "DEEP_SLEEP_DAY"): {"2020-03-02": 20},
        (31, "REM_SLEEP_DAY"): {"2020-03-02": 5},
        (31, "AWAKE_DAY"): {"2020-03-02": 1},
    }
    found = {(e["code"], str(e["time"])): e["numeric_value"] for e in store.events().to_pylist()}
    assert found == {
        ("LOINC//29463-7//kg", "2020-03-02 08:15:00"): pytest.approx(68.0389, abs=1e-3),
        ("LOINC//8480-6//mm[Hg]", "2020-03-03 08:00:00"): 120,
        ("LOINC//8462-4//mm[Hg]", "2020-03-03 08:00:00"): 80,
    }
    assert store.not_read == {
        "sleep that is there twice": 1,
        "measurement without a number or a time": 1,
    }


def test_withings_times_are_brought_to_the_site_s_zone(tmp_path):
    steps = raw(("2020-03-01T08:00:00+01:00", [60], [5]))
    folder = export(tmp_path / "31", {"raw_tracker_steps.csv": steps})
    assert set(minutes(read(folder), "STEPS")) == {"2020-03-01 08:00"}
    assert set(minutes(read(folder, time_zone="Asia/Tokyo"), "STEPS")) == {"2020-03-01 16:00"}


def test_people_s_archives_are_read_as_they_are_and_one_that_is_cut_off_is_set_aside(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("31", "32"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as whole:
            whole.writestr(
                "raw_tracker_steps.csv", raw(("2020-03-01T08:00:00+01:00", [60], [int(name)]))
            )
    whole = (folder / "32.zip").read_bytes()
    export(folder / "33", {"raw_hr_hr.csv": raw(("2020-03-01T08:00:00Z", [60], [60]))})
    (folder / "33" / "old.zip").write_bytes(whole[:-30])
    store = read(folder)
    assert store.subjects().tolist() == [31, 32, 33]
    assert store.rejected == {"unreadable_file": 1}


NIGHT = {
    "id": "a",
    "type": "long_sleep",
    "day": "2020-03-02",
    "bedtime_start": "2020-03-01T23:50:00.000+01:00",
    "sleep_phase_5_min": "4213",
    "total_sleep_duration": 900,
    "time_in_bed": 1200,
    "awake_time": 300,
    "light_sleep_duration": 300,
    "deep_sleep_duration": 300,
    "rem_sleep_duration": 300,
    "average_hrv": 40,
    "lowest_heart_rate": 50,
    "average_breath": 14.5,
    "heart_rate": {
        "interval": 300.0,
        "items": [None, 60.0, 0],
        "timestamp": "2020-03-01T23:50:00.000+01:00",
    },
}
DAY = {
    "id": "b",
    "day": "2020-03-01",
    "timestamp": "2020-03-01T04:00:00+01:00",
    "steps": 8421,
    "active_calories": 520,
    "total_calories": 2450,
    "sedentary_time": 36000,
    "high_activity_time": 600,
    "class_5_min": "012",
    "met": {"interval": 60.0, "items": [0.1, 1.2, 9], "timestamp": "2020-03-01T04:00:00+01:00"},
}
HEART = [
    {"timestamp": "2020-03-01T08:00:00.000Z", "bpm": 70, "source": "awake"},
    {"timestamp": "2020-03-01T22:55:00Z", "bpm": 99, "source": "sleep"},
    {"timestamp": "2020-03-02T08:00:00Z", "bpm": None},
]
SPO2 = {"day": "2020-03-02", "spo2_percentage": {"average": 97}}
FEWER = {"id": "c", "type": "deleted", "day": "2020-03-02", "bedtime_start": "2020-03-02T14:00:00Z"}


def csv_of(*records: Mapping[str, object]) -> str:
    names = list(dict.fromkeys(name for record in records for name in record))
    lines = [";".join(names)]
    lines += [";".join(cell(record.get(name)) for name in names) for record in records]
    return "\n".join(lines) + "\n"


def cell(value: object) -> str:
    if isinstance(value, dict | list):
        return '"' + json.dumps(value).replace('"', '""') + '"'
    return "" if value is None else str(value)


def as_csv(folder: Path) -> Path:
    return export(
        folder,
        {
            "App Data/sleepmodel.csv": csv_of(NIGHT, FEWER),
            "App Data/dailyactivity.csv": csv_of(DAY),
            "App Data/heartrate.csv": csv_of(*HEART),
            "App Data/dailyspo2.csv": csv_of(
                {"day": "2020-03-02", "spo2_percentage": {"average": 97}}
            ),
            "App Data/dailysleep.csv": csv_of({"day": "2020-03-02", "score": 80}),
        },
    )


def as_json(folder: Path) -> Path:
    whole = {
        "sleep": [NIGHT, FEWER],
        "daily_activity": {"data": [DAY]},
        "heartrate": HEART,
        "daily_spo2": [SPO2],
        "daily_sleep": [{"score": 80}],
    }
    return export(folder, {"oura.json": json.dumps(whole)})


@pytest.mark.parametrize("form", [as_csv, as_json])
def test_oura_s_nights_days_and_minutes(tmp_path, form):
    said: list[str] = []
    store = read(form(tmp_path / "31"), said.append)
    assert store.subjects().tolist() == [31]
    phases = [f"2020-03-01 23:{n}" for n in range(50, 60)]
    phases += [f"2020-03-02 00:{n:02d}" for n in range(10)]
    levels = [0] * 5 + [1] * 5 + [3] * 5 + [2] * 5
    assert minutes(store, "SLEEP", device_of(store)) == dict(zip(phases, levels, strict=True))
    asleep = {f"2020-03-01 23:{n}": 60 for n in range(55, 60)}
    assert minutes(store, "HR", device_of(store)) == {"2020-03-01 09:00": 70, **asleep}
    assert minutes(store, "MET", device_of(store)) == {
        "2020-03-01 04:01": pytest.approx(1.2),
        "2020-03-01 04:02": 9,
    }
    assert days(store) == {
        (31, "STEPS_DAY"): {"2020-03-01": 8421},
        (31, "ACTIVE_ENERGY_DAY"): {"2020-03-01": 520},
        (31, "ENERGY_DAY"): {"2020-03-01": 2450},
        (31, "SEDENTARY_DAY"): {"2020-03-01": 600},
        (31, "VERY_ACTIVE_DAY"): {"2020-03-01": 10},
        (31, "ASLEEP_DAY"): {"2020-03-02": 15},
        (31, "IN_BED_DAY"): {"2020-03-02": 20},
        **{
            (31, f"{name}_DAY"): {"2020-03-02": 5}
            for name in ("AWAKE", "LIGHT_SLEEP", "DEEP_SLEEP", "REM_SLEEP")
        },
        (31, "HRV_DAY"): {"2020-03-02": 40},
        (31, "RESTING_HR_DAY"): {"2020-03-02": 50},
        (31, "RESPIRATORY_RATE_DAY"): {"2020-03-02": 14.5},
        (31, "SPO2_DAY"): {"2020-03-02": 97},
    }
    assert store.not_read == {
        "sleep that Oura took back": 1,
        "records of dailysleep": 1,
        "reading without a number or a time": 1,
        "minutes in which the ring was not worn": 1,
    }
    assert not any("UTC" in line for line in said)


def test_oura_s_first_names_and_two_exports_that_overlap(tmp_path):
    night = {
        "summary_date": "2020-03-02",
        "bedtime_start": "2020-03-01T23:50:00+01:00",
        "hypnogram_5min": "41",
        "total": 300,
        "hr_5min": [0, 61],
        "rmssd": 44,
        "is_longest": 1,
    }
    nap = {**night, "bedtime_start": "2020-03-02T14:00:00+01:00", "rmssd": 9, "is_longest": 0}
    day = {"summary_date": "2020-03-02", "day_start": "2020-03-02T04:00:00+01:00"}
    day |= {"steps": 10, "inactive": 600, "cal_total": 2000, "met_1min": [1.5]}
    folder = tmp_path / "in" / "31"
    for name in ("first.json", "second.json"):
        export(folder, {name: json.dumps({"sleep": [night, nap], "activity": [day]})})
    store = read(tmp_path / "in")
    assert minutes(store, "MET", device_of(store)) == {"2020-03-02 04:00": 1.5}
    assert set(minutes(store, "HR", device_of(store))) == {
        *(f"2020-03-01 23:{n}" for n in range(55, 60)),
        *(f"2020-03-02 14:0{n}" for n in range(5, 10)),
    }
    found = days(store)
    assert found[31, "ASLEEP_DAY"] == {"2020-03-02": 10}
    assert found[31, "HRV_DAY"] == {"2020-03-02": 44}
    assert found[31, "SEDENTARY_DAY"] == {"2020-03-02": 600}
    assert store.not_read == {"record without a day, or there twice": 3}


def test_oura_s_heart_rates_alone_are_utc_s_and_that_is_said(tmp_path):
    said: list[str] = []
    folder = export(tmp_path / "31", {"heartrate.csv": csv_of(*HEART)})
    assert "2020-03-01 08:00" in minutes(read(folder, said.append), "HR")
    assert any("heartrate.csv, timestamp are UTC's" in line for line in said)
    store = read(folder, time_zone="Europe/Vienna")
    assert "2020-03-01 09:00" in minutes(store, "HR", device_of(store))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("raw_tracker_steps.csv", "start,duration,value\n"),
        ("raw_tracker_steps.csv", "start,start\n1,2\n"),
        ("raw_tracker_steps.csv", 'start,duration,value\n2020-03-01T08:00:00Z,"[1e999]","[5]"\n'),
        ("sleepmodel.csv", "day;bedtime_start\nx;y\n"),
        ("a.json", '{"sleep": [{"bedtime_start": "2020-03-01T23:50:00Z"'),
    ],
)
def test_what_holds_nothing_is_refused_in_a_sentence(tmp_path, name, text):
    with pytest.raises(IngestError, match="HF-306"):
        read(export(tmp_path / "31", {name: text}))
    assert [p.name for p in tmp_path.iterdir()] == ["31"]
