"""A small sound source of every reader, as files by name: what hostile inputs are made from."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_client.ingest import ingest
from healthfm_client.ingest.readers import nhanes
from tests.ingest.conftest import warehouse
from tests.ingest.fit_file import SAMPLE
from tests.ingest.raw_accelerometer_files import cwa, geneactiv, gt3x, lying
from tests.ingest.test_devices import HEALTH
from tests.ingest.test_fhir import RESOURCES

CDM = Path(__file__).with_name("omop_cdm")
DAY = datetime(2020, 1, 2)
Content = pa.Table | bytes


@dataclass(frozen=True)
class Source:
    """What one reader reads.

    Attributes:
        reader: Its name.
        files: Path below the source's folder → a table, to be written as Parquet, or bytes.
        alone: Whether the reader wants its first file and not the folder.
        options: Of the reader.
    """

    reader: str
    files: Mapping[str, Content]
    alone: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def omop() -> Source:
    return Source("omop", {file.name: file.read_bytes() for file in sorted(CDM.glob("*.csv"))})


def fhir_lines() -> Source:
    return Source("fhir", {"all.ndjson": "\n".join(map(json.dumps, RESOURCES)).encode()})


def fhir_bundle() -> Source:
    entries = [{"resource": one, "fullUrl": "urn:uuid:1"} for one in RESOURCES]
    return Source(
        "fhir", {"one.json": json.dumps({"resourceType": "Bundle", "entry": entries}).encode()}
    )


def event_table() -> Source:
    return Source("event_table", {"events.parquet": warehouse()})


def one_site() -> Source:
    table = warehouse().append_column("text_value", pa.array(["a", None, "b", "", "c"]))
    return Source(
        "event_table", {"events.parquet": table.drop_columns(["site"])}, options={"site_column": ""}
    )


def fitbit() -> Source:
    head = "Id,Date,ActivityHour," + ",".join(f"Steps{n:02d}" for n in range(60))
    row = "7,13-04-2016,1:00:00 AM," + ",".join("1" * 60)
    texts = {
        "hr.csv": "datetime,person_id,heart_rate_value\n"
        "2020-01-02T08:00:00,7,60\n2020-01-02T08:01:00,8,50\n",
        "sleep.csv": "person_id,level,start_datetime,duration_in_min\n"
        "7,light,2020-01-02T23:59:00,2\n",
        "wide.csv": f"{head}\n{row}\n{row}\n",
        "days.csv": "Id,SleepDay,TotalMinutesAsleep\n7,4/13/2016,300\n",
    }
    return Source("fitbit", {name: text.encode() for name, text in texts.items()})


def daily() -> Source:
    lines = [
        "id,date,steps,rhr,kg",
        "7,2020-01-02,5000,61,70",
        "8,2020-01-03,,60,",
        "7,2020-01-05,3,,",
    ]
    return Source("daily_table", {"days.csv": "\n".join(lines).encode()}, alone=True)


def apple() -> Source:
    return Source("apple_health", {"export.xml": HEALTH.format(entity="").encode()}, alone=True)


def cgm() -> Source:
    head = "Index,Timestamp (YYYY-MM-DDThh:mm:ss),Event Type,a,b,c,d,Glucose Value (mg/dL),e"
    rows = [f"{n},2020-03-14T08:{n:02d}:00,EGV,,,,,{100 + n},," for n in range(0, 30, 5)]
    libre = "Device,Serial,Device Timestamp,Record Type,Historic Glucose mmol/L,Scan Glucose mmol/L"
    scans = [f'a,b,14-03-2020 08:{n:02d},{n % 2},"5,{n % 10}",6' for n in range(0, 60, 15)]
    record = {"type": "cbg", "value": 5.5, "units": "mmol/L", "deviceTime": "2020-03-14T08:00:00"}
    utc = {**record, "deviceTime": None, "time": "2020-03-14T08:05:00Z", "timezoneOffset": 60}
    return Source(
        "cgm",
        {
            "1/clarity.csv": "\n".join([head, "1,,FirstName,,A,,,,", *rows]).encode(),
            "2.csv": "\n".join(["Glucose Data,,,,", libre, *scans]).encode(),
            "3.json": json.dumps([record, utc, {"type": "smbg"}]).encode(),
        },
    )


def takeout() -> Source:
    heart = [
        {"dateTime": f"03/14/20 08:00:{n:02d}", "value": {"bpm": 60 + n, "confidence": n % 3}}
        for n in range(0, 60, 5)
    ]
    night = {
        "logId": 1,
        "dateOfSleep": "2020-03-14",
        "minutesAsleep": 2,
        "levels": {
            "summary": {"deep": {"minutes": 1}},
            "data": [{"dateTime": "2020-03-14T01:00:00.000", "level": "deep", "seconds": 60}],
            "shortData": [{"dateTime": "2020-03-14T01:00:30.000", "level": "wake", "seconds": 30}],
        },
    }
    of_day = [{"dateTime": "03/14/20 00:00:00", "value": "30"}]
    resting = [{"dateTime": "03/14/20 00:00:00", "value": {"date": "03/14/20", "value": 61.5}}]
    files = {
        "heart_rate": heart,
        "sleep": [night],
        "steps": of_day,
        "calories": of_day,
        "very_active_minutes": of_day,
        "resting_heart_rate": resting,
        "exercise": [{}],
    }
    below = "7/Takeout/Fitbit/Global Export Data"
    texts = {
        f"{below}/{kind}-2020-03-14.json": json.dumps(of).encode() for kind, of in files.items()
    }
    profile = b"id,timezone\nA,Europe/Vienna\n"
    return Source("fitbit_takeout", {**texts, "7/Takeout/Fitbit/Your Profile/Profile.csv": profile})


def withings() -> Source:
    at = "2020-03-14T08:00:00+01:00"
    texts = {
        "raw_tracker_steps.csv": f'start,duration,value\n{at},"[60,60]","[12,30]"\n{at},[60],[1]\n',
        "raw_hr_hr.csv": f"start,duration,value\n{at},[60],[61]\n",
        "raw_tracker_sleep-state.csv": f'start,duration,value\n{at},"[60,60,60]","[0,1,2]"\n',
        "aggregates_steps.csv": "date,value\n2020-03-14,5000\n",
        "sleep.csv": 'from,to,"light (s)","deep (s)","rem (s)","awake (s)"\n'
        "2020-03-14T00:00:00Z,2020-03-14T06:00:00Z,60,60,,0\n",
        "weight.csv": 'Date,"Weight (kg)"\n"2020-03-14 08:00:00",70\n',
        "bp.csv": "Date,Heart rate,Systolic,Diastolic\n2020-03-14 08:00:00,60,120,80\n",
        "height.csv": 'Date,"Height (m)"\n2020-03-14,1.7\n',
    }
    return Source("withings", {f"7/{name}": text.encode() for name, text in texts.items()})


def oura() -> Source:
    at = "2020-03-14T00:00:00+01:00"
    series = '"{""interval"": 300, ""items"": [60, null]}"'
    night = f"long_sleep;2020-03-14;{at};4321;1200;{series}"
    texts = {
        "sleepmodel.csv": "type;day;bedtime_start;sleep_phase_5_min;total_sleep_duration;"
        f"heart_rate\n{night}\n",
        "dailyactivity.csv": f"day;timestamp;steps;high_activity_time\n2020-03-14;{at};500;600\n",
        "heartrate.csv": "timestamp;bpm;source\n2020-03-14T08:00:00Z;70;awake\n",
        "dailyspo2.csv": 'day;spo2_percentage\n2020-03-14;"{""average"": 97}"\n',
    }
    return Source("oura", {f"7/App Data/{name}": text.encode() for name, text in texts.items()})


def oura_json() -> Source:
    night = {"summary_date": "2020-03-14", "bedtime_start": "2020-03-14T00:00:00+01:00"}
    night |= {"hypnogram_5min": "4321", "total": 900, "hr_5min": [60, 0], "is_longest": 1}
    day = {"day": "2020-03-14", "class_5_min": "1", "steps": 10, "met": {"interval": 60.0}}
    day |= {"timestamp": "2020-03-14T04:00:00+01:00", "met_1min": [1.5, 2]}
    heart = [{"timestamp": "2020-03-14T08:00:00Z", "bpm": 70}]
    whole = {"sleep": [night], "daily_activity": {"data": [day]}, "heartrate": heart, "tag": [1]}
    return Source("oura", {"7.json": json.dumps(whole).encode()})


def garmin() -> Source:
    return Source("garmin", {f"7/{name}": text for name, text in SAMPLE.items()})


def raw_accelerometer() -> Source:
    files = {
        "5_90001_0_0.cwa": cwa(lying(40, 25), 25),
        "6/a.gt3x": gt3x(lying(40, 30)),
        "7.bin": geneactiv(lying(12, 25), 25),
    }
    return Source("accelerometer", files)


def pgs() -> Source:
    lines = ["sampleset,IID,PGS,SUM,Z_norm2", *(f"a,{n},PGS1,{n},{n / 9}" for n in range(9))]
    return Source("pgsc_calc", {"s.csv": "\n".join(lines).encode()}, alone=True)


def plink2() -> Source:
    return Source("sscore", {"a.sscore": b"#IID\tA_SUM\tB_AVG\n1\t1\t2\n2\t2\t1\n"})


def aouprs() -> Source:
    return Source("sscore", {"height.csv": b"s,sum_weights\n1,0.5\n2,0.25\n3,-1\n"})


def wide_scores() -> Source:
    lines = ["IID,ward,PGS1,PGS2,PC1", *(f"{n},{n % 2},{n * n},{n % 3},{n % 5}" for n in range(20))]
    text = "\n".join(lines).encode()
    return Source("score_table", {"s.csv": text}, alone=True, options={"site_column": "ward"})


@cache
def meds() -> Source:
    """A store of ours, which is a MEDS dataset."""
    with tempfile.TemporaryDirectory() as folder:
        write(event_table(), Path(folder) / "in")
        (store, _) = ingest("event_table", Path(folder) / "in", Path(folder) / "out")
        files = [file for file in sorted(store.rglob("*")) if file.is_file()]
        return Source("meds", {str(f.relative_to(store)): f.read_bytes() for f in files})


def chf() -> Source:
    days = {
        "id": [1, 1, 2],
        "gender": ["M", "M", "F"],
        "age": [60.0, 60.0, 70.0],
        "bmi": [22.5, 22.5, None],
        "event_type": ["Hospitalization", "Hospitalization", None],
        "day": ["Mon", "Tue", "Sun"],
        "log_activity": pa.array(np.ones((3, 1440), np.float32).tolist(), pa.list_(pa.float32())),
    }
    return Source("chf_actigraphy", {"chf_minutes.parquet": pa.table(days)})


def mapped() -> Source:
    mapping = """
a:
  join: {input_prefix: b, left_on: stay, right_on: stay, columns_from_right: [start, subject_id]}
  lab: {code: [LAB, col(item)], time: $start + $minute::minutes, numeric_value: n, unit: u}
  said: {code: 'f"S//{$item}"', time: col(at), time_format: "%d.%m.%Y", text_value: n, other: u}
c/d:
  _table: {join: {b: {key: subject_id, cols: {start: min}}}}
  birth: {code: MEDS_BIRTH, time: $year::year}
  seen: {code: SEEN, time: 'coalesce($start, $year::"%Y")', numeric_value: $year - 1}
"""
    stays = {
        "stay": ["x", "y", "z"],
        "start": pa.array([DAY, None, DAY], pa.timestamp("us", "UTC")),
        "subject_id": pa.array([1.0, 2.0, None]),
    }
    lines = ["stay,item,minute,n,u,at", "x,1,5,<2,mg/dL,01.01.2020", "y,2,,7,K,", "x,3,0,a,,1.1.20"]
    files = {
        "events.yaml": mapping.encode(),
        "a.csv": "\n".join(lines).encode(),
        "b.parquet": pa.table(stays),
        "c/d.tsv": b"subject_id\tyear\n1\t1950\n2\t1960\n",
        "e.csv": b"x\n1\n",
    }
    return Source("tables", files)


def eicu() -> Source:
    stays = {
        "subject_id": [1, 2, 3],
        "patientunitstayid": [11, 12, 13],
        "site": [10, 10, 9],
        "unit_admit": pa.array([DAY] * 3, pa.timestamp("us")),
        "hosp_disch": pa.array([datetime(2020, 1, 9)] * 3, pa.timestamp("us")),
        "hospital_death": [False, True, None],
        "apacheIVa_predictedhospitalmortality": [0.1, -1.0, None],
        "split": ["train", "tuning", "held_out"],
    }
    places = {"site": [9, 10], "region": ["South", None]}
    files = {"events": warehouse(), "stays": pa.table(stays), "sites": pa.table(places)}
    return Source("eicu_demo", {f"{name}.parquet": table for name, table in files.items()})


def physionet() -> Source:
    stays = {
        "subject_id": [1, 2, 3],
        "set": ["a", "b", "c"],
        "icu_type": ["MICU", "MICU", "CCU"],
        "hospital_death": [False, True, False],
        "saps1": [1, 2, 3],
    }
    files = {"events.parquet": warehouse().drop_columns(["site"]), "stays.parquet": pa.table(stays)}
    return Source("physionet2012", files)


def nhanes_week() -> Source:
    kinds = {"INTEGER": [1, 2, 3], "NUMBER": [1.0, 40.0, None], "TEXT": ["Yes", None, "No"]}
    columns = {name: kinds.get(kind.name, [True, False, True]) for name, kind in people().items()}
    columns |= {"SDDSRVYR": [3, 4, 4], "eligstat_2015": [1, 1, 2], "mortstat_2015": [0.0, 1.0, 1.0]}
    wear = {
        "subject_id": [1, 2],
        "day_index": [1, 7],
        "wear": pa.array([[1] * 1440, [255] * 1440], pa.list_(pa.uint8())),
    }
    files = {"subjects_2003_2006": columns, "wear_minutes_2003_2006": wear}
    return Source(
        "nhanes",
        {f"{name}.parquet": pa.table(columns) for name, columns in files.items()},
        options={"wear_minutes": True, "groups": 2},
    )


def nhanes_minutes() -> Source:
    long = "SEQN,PAXN,PAXINTEN,PAXCAL,PAXSTAT\n" + "".join(f"7,{n},{n},1,1\n" for n in range(1, 9))
    counts = pa.array([[0, 5, 9] * 480, [1] * 1440], pa.list_(pa.int16()))
    days = {"subject_id": [1, 2], "day_index": [1, 2], "counts": counts}
    return Source("nhanes_minutes", {"paxraw_d.csv": long.encode(), "days.parquet": pa.table(days)})


def ukb() -> Source:
    first = "acceleration (mg) - 2014-05-07 13:29:50 - 2014-05-07 13:30:20 - samplerate = 5 seconds"
    stated = "\n".join([f"{first},imputed", "10,0", "20,0", "30,1", *["5.5,0"] * 4, ""])
    timed = "time,acc\n2014-05-07 13:29:50,12\n2014-05-07 13:29:55,x\n"
    files = {"12_90004_0_0.csv": stated.encode(), "13_90001_0_0-timeSeries.csv": timed.encode()}
    return Source("ukb_accelerometer", files)


def people() -> Mapping[str, Any]:
    """Return NHANES's columns of people and their kinds."""
    return nhanes._SUBJECTS


SOURCES = (
    omop,
    fhir_lines,
    fhir_bundle,
    event_table,
    one_site,
    fitbit,
    daily,
    apple,
    cgm,
    takeout,
    withings,
    oura,
    oura_json,
    garmin,
    raw_accelerometer,
    pgs,
    plink2,
    aouprs,
    wide_scores,
    meds,
    chf,
    eicu,
    physionet,
    nhanes_week,
    nhanes_minutes,
    ukb,
    mapped,
)


def write(source: Source, folder: Path) -> None:
    """Write the files of a source."""
    for name, content in source.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else parquet(content))


def parquet(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()
