"""Wearables: Fitbit in both forms, Apple Health."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.wearables import hours_worn
from healthfm_core.errors import ConfigError, IngestError

HEALTH = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE HealthData [<!ELEMENT HealthData ANY>{entity}]>
<HealthData locale="en_GB">
 <Record type="HKQuantityTypeIdentifierHeartRate" unit="count/min" value="60"
  startDate="2020-01-02 08:00:10 +0100" endDate="2020-01-02 08:00:10 +0100"/>
 <Record type="HKQuantityTypeIdentifierHeartRate" unit="count/min" value="80"
  startDate="2020-01-02 08:00:40 +0100" endDate="2020-01-02 08:00:40 +0100"/>
 <Record type="HKQuantityTypeIdentifierHeartRate" unit="count/min" value="900"
  startDate="2020-01-02 08:01:00 +0100" endDate="2020-01-02 08:01:00 +0100"/>
 <Record type="HKQuantityTypeIdentifierStepCount" unit="count" value="90"
  startDate="2020-01-02 09:00:00 +0100" endDate="2020-01-02 09:03:00 +0100"/>
 <Record type="HKQuantityTypeIdentifierStepCount" unit="count" value="5"
  startDate="2020-01-02 09:02:00 +0100" endDate="2020-01-02 09:03:00 +0100"/>
 <Record type="HKQuantityTypeIdentifierBodyMass" unit="lb" value="150"
  startDate="2020-01-02 07:00:00 +0100" endDate="2020-01-02 07:00:00 +0100"/>
 <Record type="HKQuantityTypeIdentifierBodyMass" unit="kg" value="70"
  startDate="2020-01-03 07:00:00 +0100" endDate="2020-01-02 07:00:00 +0100"/>
 <Workout/>
</HealthData>"""


def minutes(store: SiteStore, channel: str, device: str | None = None) -> dict[str, float]:
    """Minute → value, of those with a reading."""
    table = store.wearable(device)
    found = {}
    for row in table.filter(pc.equal(table["channel"], channel)).to_pylist():
        for n, (value, seen) in enumerate(zip(row["value"], row["mask"], strict=True)):
            if seen:
                at = row["start"].replace(hour=n // 60, minute=n % 60)
                found[at.isoformat(sep=" ", timespec="minutes")] = value
    return found


def one(path, tmp_path, **options) -> SiteStore:
    (out,) = ingest("auto", path, tmp_path / "out", **options)
    store = SiteStore.open(out)
    store.check()
    return store


def test_the_tables_of_all_of_us(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "renamed_since.csv").write_text(
        "datetime,person_id,heart_rate_value\n2020-01-02T08:00:00,7,60\n2020-01-02T08:00:00,8,500\n"
        "2020-01-02T08:01:00,7,62\n,7,62\n"
    )
    (folder / "steps.csv").write_text("datetime,steps,person_id\n2020-01-02 23:59:00,30,7\n")
    (folder / "sleep_level.csv").write_text(
        "person_id,sleep_date,is_main_sleep,level,start_datetime,duration_in_min\n"
        "7,2020-01-02,true,light,2020-01-02T23:59:00,2\n7,2020-01-02,true,deep,2020-01-03,1\n"
        "7,2020-01-02,true,light,2020-01-04,-5\n"
    )
    (folder / "activity_summary.csv").write_text("date,person_id,steps\n2020-01-02,7,9000\n")
    store = one(folder, tmp_path)
    assert store.subjects().tolist() == [7]
    assert minutes(store, "HR") == {"2020-01-02 08:00": 60, "2020-01-02 08:01": 62}
    assert minutes(store, "STEPS") == {"2020-01-02 23:59": 30}
    assert minutes(store, "SLEEP") == {"2020-01-02 23:59": 1, "2020-01-03 00:00": 2}
    assert days(store) == {(7, "STEPS_DAY"): {"2020-01-02": 9000}}
    assert not store.events().num_rows
    assert store.rejected == {"renamed_since_impossible": 2}


def days(store: SiteStore) -> dict[tuple[int, str], dict[str, float]]:
    """(Person, channel) → day → value, of those with a reading."""
    found: dict[tuple[int, str], dict[str, float]] = {}
    for row in store.wearable("per_day").to_pylist():
        mine = found.setdefault((row["subject_id"], row["channel"]), {})
        for n, (value, seen) in enumerate(zip(row["value"], row["mask"], strict=True)):
            if seen:
                mine[f"{row['start'] + timedelta(days=n):%Y-%m-%d}"] = value
    return found


def test_fitbit_s_naps_add_up_and_what_is_in_no_known_table_is_counted(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "sleep_daily_summary.csv").write_text(
        "person_id,sleep_date,is_main_sleep,minute_asleep,minute_deep,efficiency\n"
        "7,2020-01-02,true,400,60,90\n7,2020-01-02,true,400,60,90\n7,2020-01-02,false,30,,80\n"
        "7,2020-01-05,true,1500,70,\n"
    )
    (folder / "device.csv").write_text("person_id,model\n7,Charge\n8,Versa\n")
    store = one(folder, tmp_path)
    assert days(store) == {
        (7, "ASLEEP_DAY"): {"2020-01-02": 430},
        (7, "DEEP_SLEEP_DAY"): {"2020-01-02": 60, "2020-01-05": 70},
    }
    assert store.rejected == {"sleep_daily_summary_impossible": 1}
    assert store.not_read == {"efficiency of sleep_daily_summary": 3, "rows of device": 2}


def test_hours_that_lost_their_half_of_the_day_are_told_by_their_order(tmp_path):
    values = ",".join(["1"] + ["0"] * 59)
    hours = ["12:00:00 PM", *(f"{n}:00:00 AM" for n in range(1, 12))] * 2
    hours_next = ["12:00:00 PM", "1:00:00 AM"]
    lines = [f"7,13-04-2016,{hour},{values}" for hour in hours]
    lines += [f"7,14-04-2016,{hour},{values}" for hour in hours_next]
    lines += [f"7,05-01-2016 00:00,12:00:00 PM,{values}"]
    head = "Id,Date,ActivityHour," + ",".join(f"Steps{n:02d}" for n in range(60))
    (tmp_path / "minuteStepsWide_merged.csv").write_text("\n".join([head, *lines]))
    store = one(tmp_path / "minuteStepsWide_merged.csv", tmp_path)
    walked = sorted(at for at, steps in minutes(store, "STEPS").items() if steps)
    assert walked[:24] == [f"2016-04-13 {n:02d}:00" for n in range(24)]
    assert walked[24:] == ["2016-04-14 00:00", "2016-04-14 01:00", "2016-05-01 12:00"]


def test_apple_health_keeps_the_clock_and_the_units_one(tmp_path):
    (tmp_path / "export.xml").write_text(HEALTH.format(entity=""))
    store = one(tmp_path / "export.xml", tmp_path, person="42")
    assert minutes(store, "HR") == {"2020-01-02 08:00": 70}
    steps = {"2020-01-02 09:00": 30, "2020-01-02 09:01": 30, "2020-01-02 09:02": 35}
    assert minutes(store, "STEPS") == steps
    (event,) = store.events().to_pylist()
    assert event["subject_id"] == 42
    assert event["code"] == "HK//BodyMass//kg"
    assert event["numeric_value"] == pytest.approx(68.0389, abs=1e-3)
    assert store.rejected == {"impossible_hr": 1, "unreadable_record": 1}


WATCH = 'sourceName="Ann\'s Apple\xa0Watch" device="&lt;&lt;HKDevice: 0x1&gt;, model:Watch&gt;"'
PHONE = 'sourceName="Ann\'s iPhone" device="&lt;&lt;HKDevice: 0x2&gt;, model:iPhone&gt;"'
BAND = 'sourceName="A band" device=""'


def record(kind: str, start: str, end: str, value: object, unit: str, source: str = WATCH) -> str:
    of = "Category" if kind == "SleepAnalysis" else "Quantity"
    return (
        f'<Record type="HK{of}TypeIdentifier{kind}" {source} unit="{unit}" value="{value}" '
        f'startDate="2020-01-02 {start} +0100" endDate="2020-01-02 {end} +0100"/>'
    )


def export(tmp_path, *records: str, **options) -> SiteStore:
    text = f'<?xml version="1.0" encoding="UTF-8"?><HealthData>{"".join(records)}</HealthData>'
    (tmp_path / "export.xml").write_text(text, encoding="utf-8")
    return one(tmp_path / "export.xml", tmp_path, overwrite=True, **options)


def steps(start: str, end: str, value: int, source: str) -> str:
    return record("StepCount", f"09:{start}", f"09:{end}", value, "count", source)


def test_apple_s_steps_of_two_devices_at_one_time_are_those_of_the_watch(tmp_path):
    store = export(
        tmp_path,
        steps("00:00", "04:00", 400, PHONE),
        steps("01:00", "02:30", 120, WATCH),
        steps("02:00", "02:10", 7, PHONE),
        steps("03:00", "05:00", 500, BAND),
    )
    took = {"09:00": 100, "09:01": 80, "09:02": 40 + 50, "09:03": 100, "09:04": 250}
    assert minutes(store, "STEPS") == {f"2020-01-02 {at}": value for at, value in took.items()}
    assert store.not_read == {"StepCount of a second source": 1}


def test_a_person_says_which_device_apple_prefers(tmp_path):
    counted = [steps("00:00", "01:00", 70, PHONE), steps("00:00", "01:00", 60, WATCH)]
    store = export(tmp_path, *counted, sources=("Ann's iPhone",))
    assert minutes(store, "STEPS") == {"2020-01-02 09:00": 70}
    with pytest.raises(ConfigError, match=r"HF-102.*no record is of My iPhone.*Ann's iPhone"):
        export(tmp_path, *counted, sources=("My iPhone",))


def test_apple_s_other_counts_are_of_one_device_too_and_no_record_counts_twice(tmp_path):
    far = record("DistanceWalkingRunning", "09:00:00", "09:10:00", 1.0, "km", WATCH)
    near = record("DistanceWalkingRunning", "09:05:00", "09:15:00", 0.8, "km", PHONE)
    inside = record("DistanceWalkingRunning", "09:01:00", "09:02:00", 0.1, "km", PHONE)
    pressure = record("BloodPressureSystolic", "10:00:00", "10:00:00", 120, "mmHg")
    store = export(
        tmp_path, far, far, near, inside, pressure, f"<Correlation>{pressure}</Correlation>"
    )
    found = {(event["code"], event["numeric_value"]) for event in store.events().to_pylist()}
    assert len(store.events()) == len(found) == 3
    assert found == {
        ("HK//DistanceWalkingRunning//cm", 100_000.0),
        ("HK//DistanceWalkingRunning//cm", 40_000.0),
        ("HK//BloodPressureSystolic//mm[Hg]", 120.0),
    }
    assert store.not_read == {"DistanceWalkingRunning of a second source": 1}


@pytest.mark.parametrize(
    ("kind", "unit", "value", "code", "wanted"),
    [
        ("BloodGlucose", "mmol&lt;180.1558800000541&gt;/L", 5.5, "BloodGlucose//mg/dL", 99.0857),
        ("BloodGlucose", "mg/dL", 99, "BloodGlucose//mg/dL", 99.0),
        ("OxygenSaturation", "%", 0.97, "OxygenSaturation//%", 97.0),
        ("BodyFatPercentage", "%", 0.25, "BodyFatPercentage//%", 25.0),
        ("DietaryEnergyConsumed", "Cal", 350, "DietaryEnergyConsumed//kcal", 350.0),
        ("BodyMass", "st", 11, "BodyMass//kg", 69.8532),
        ("BodyTemperature", "degF", 98.6, "BodyTemperature//Cel", 37.0),
        ("VO2Max", "mL/min·kg", 41.5, "VO2Max//mL/min/kg", 41.5),
        ("ElectrodermalActivity", "mcS", 3, "ElectrodermalActivity//uS", 3.0),
    ],
)
def test_apple_s_units_are_healthkit_s(tmp_path, kind, unit, value, code, wanted):
    store = export(tmp_path, record(kind, "09:00:00", "09:00:00", value, unit))
    (event,) = store.events().to_pylist()
    assert event["code"] == f"HK//{code}"
    assert event["numeric_value"] == pytest.approx(wanted, rel=1e-5)


def sleep(start: str, end: str, stage: str, source: str = WATCH) -> str:
    value = f"HKCategoryValueSleepAnalysis{stage}"
    return record("SleepAnalysis", f"23:{start}", f"23:{end}", value, "", source)


def test_apple_s_sleep_is_levels_as_fitbit_s_of_one_device(tmp_path):
    store = export(
        tmp_path,
        sleep("00:00", "59:00", "InBed", PHONE),
        sleep("01:00", "02:00", "AsleepCore"),
        sleep("02:00", "02:30", "AsleepDeep"),
        sleep("02:30", "03:00", "Awake"),
        sleep("03:00", "04:00", "AsleepREM"),
        sleep("01:00", "05:00", "AsleepUnspecified", PHONE),
    )
    levels = {"23:01": 1, "23:02": 1.5, "23:03": 2, "23:04": 2}
    assert minutes(store, "SLEEP") == {f"2020-01-02 {at}": value for at, value in levels.items()}
    assert store.not_read == {"SleepAnalysis other than asleep or awake": 1}


def test_apple_s_person_and_workouts_are_read_and_the_rest_is_counted(tmp_path, capsys):
    me = (
        '<Me HKCharacteristicTypeIdentifierDateOfBirth="1980-05-06" '
        'HKCharacteristicTypeIdentifierBiologicalSex="HKBiologicalSexFemale"/>'
    )
    run = (
        '<Workout workoutActivityType="HKWorkoutActivityTypeRunning" duration="30" '
        'durationUnit="min" startDate="2020-01-02 18:00:00 +0100" '
        'endDate="2020-01-02 18:30:00 +0100"><WorkoutStatistics type="x"/></Workout>'
    )
    stand = '<Record type="HKCategoryTypeIdentifierAppleStandHour" value="x"/>'
    store = export(tmp_path, "<ExportDate/>", me, run, stand * 2, "<ActivitySummary/>")
    rows = [(str(e["time"]), e["code"], e["numeric_value"]) for e in store.events().to_pylist()]
    assert rows == [
        ("None", "Gender//F", None),
        ("1980-05-06 00:00:00", "MEDS_BIRTH", None),
        ("2020-01-02 18:30:00", "HK//Workout:Running//s", 1800.0),
    ]
    assert store.not_read == {"ActivitySummary": 1, "AppleStandHour": 2}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (HEALTH.format(entity='<!ENTITY a "lol">'), 310),
        (HEALTH.format(entity='<!ENTITY a SYSTEM "file:///etc/passwd">'), 310),
        (HEALTH.format(entity="")[:900], 303),
        ('<?xml version="1.0" encoding="UTF-99"?><HealthData/>', 303),
        ("<HealthData/>", 306),
    ],
)
def test_what_is_no_export_is_refused(tmp_path, text, number):
    (tmp_path / "export.xml").write_text(text)
    with pytest.raises(IngestError, match=f"HF-{number}"):
        ingest("apple_health", tmp_path / "export.xml", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["export.xml"]


def test_a_folder_without_an_export_of_apple_s_is_told_so_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IngestError, match=rf"HF-301\]: {tmp_path.name}: there is no export.xml"):
        ingest("apple_health", Path(), tmp_path / "out")


@pytest.mark.realdata
def test_a_fitabase_export(tmp_path, shared_data):
    """Every hour of the file has its place, and every step is counted."""
    folder = shared_data / "formats" / "fitbit_csv"
    store = one(folder, tmp_path)
    assert len(store.subjects()) == 33
    table = store.wearable()
    for channel, start in (("STEPS", "Steps"), ("INTENSITY", "Intensity")):
        ours = table.filter(pc.equal(table["channel"], channel))
        total = " + ".join(f"{start}{n:02d}::bigint" for n in range(60))
        file = f"read_csv('{folder}/minute{channel.title()}*Wide_merged.csv.gz', all_varchar=true)"
        if channel == "INTENSITY":
            file = file.replace("Intensity*", "Intensities*")
        hours, amount = duckdb.sql(f"select count(*), sum({total}) from {file}").fetchall()[0]
        assert hours_worn(ours) == hours == 21_645
        assert pc.sum(pc.list_flatten(ours["value"]).cast(pa.float64())).as_py() == amount
    dates, nights = (
        duckdb.sql(f"select count(distinct ({keys})) from '{folder}/{name}'").fetchall()[0][0]
        for name, keys in (
            ("dailyActivity_merged.csv", "Id, ActivityDate"),
            ("sleepDay_merged.csv", "Id, SleepDay"),
        )
    )
    readings = {}
    for (_, channel), of in days(store).items():
        readings[channel] = readings.get(channel, 0) + len(of)
    of_days = ("STEPS", "ENERGY", "VERY_ACTIVE", "FAIRLY_ACTIVE", "LIGHTLY_ACTIVE", "SEDENTARY")
    wanted = {f"{quantity}_DAY": dates for quantity in of_days}
    assert readings == wanted | {"ASLEEP_DAY": nights, "IN_BED_DAY": nights}
    assert (dates, nights) == (940, 410)
    assert not store.events().num_rows
