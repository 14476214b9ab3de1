"""Days of any wearable as a table, and a person's means over days."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.joined_stores import join_stores
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError, IngestError
from healthfm_core.tokens.wearing import channel_moments, wearing_spans
from tests.ingest.test_devices import days

TABLE = """participant_id,date,steps,Resting Heart Rate,weight,device
7,2020-01-01,5000,61,70,ring
7,2020-01-03,6000,,71,ring
8,2020-03-01,0,300,,watch
8,2020-03-01,900,,,watch
,2020-03-02,1,,,
8,2999-01-01,4,,,
8,2020-03-04,many,,,
"""


def one(tmp_path: Path, text: str = TABLE, source: str = "daily_table", **options) -> SiteStore:
    file = tmp_path / "days.csv"
    file.write_text(text)
    (out,) = ingest(source, file, tmp_path / "out", overwrite=True, **options)
    store = SiteStore.open(out)
    store.check()
    return store


def test_a_table_of_days_is_a_wearable_with_a_sample_a_day(tmp_path):
    store = one(tmp_path, source="auto")
    assert days(store) == {
        (7, "STEPS_DAY"): {"2020-01-01": 5000, "2020-01-03": 6000},
        (7, "RESTING_HR_DAY"): {"2020-01-01": 61},
        (8, "STEPS_DAY"): {"2020-03-01": 0},
    }
    assert store.devices == ("per_day",)
    assert store.modalities == {"wearable"}
    assert store.wearable().to_pylist()[1]["mask"] == [True, False, True]


def test_what_a_table_of_days_holds_besides_is_counted_and_told(tmp_path):
    told: list[str] = []
    store = one(tmp_path, notify=told.append)
    assert store.rejected == {"impossible_day": 4, "repeated_day": 1}
    assert store.not_read == {"weight": 2, "device": 4}
    assert told == [
        "These columns were not read: device, weight. Name those that are wanted with --columns."
    ]


def test_a_site_names_what_its_columns_are(tmp_path):
    options = {"columns": ("weight=body weight".replace(" ", "_"), "STEPS")}
    assert sorted({channel for _, channel in days(one(tmp_path, **options))}) == [
        "BODY_WEIGHT_DAY",
        "STEPS_DAY",
    ]


def test_a_day_is_read_as_the_site_writes_it_or_not_at_all(tmp_path):
    european = "who,am,steps\n7,04/05/2020,10\n7,31/05/2020,20\n"
    named = {"subject_column": "who", "day_column": "am"}
    with pytest.raises(IngestError, match=r'HF-308.*"am".*--date-format'):
        one(tmp_path, european, **named)
    with pytest.raises(IngestError, match=r"HF-308"):
        one(tmp_path, european, **named, date_format="%m/%d/%Y")
    store = one(tmp_path, european, **named, date_format="%d/%m/%Y")
    assert days(store) == {(7, "STEPS_DAY"): {"2020-05-04": 10, "2020-05-31": 20}}


def test_a_person_s_means_stand_at_the_day_by_which_they_were_known(tmp_path):
    store = one(tmp_path, "subject_id,steps\n7,5432.5\n8,100\n", as_of="2020-02-01")
    assert days(store) == {
        (7, "STEPS_MEAN"): {"2020-02-01": 5432.5},
        (8, "STEPS_MEAN"): {"2020-02-01": 100},
    }
    store = one(tmp_path, "subject_id,date,steps\n7,2020-03-01,5432.5\n", means=True)
    assert days(store) == {(7, "STEPS_MEAN"): {"2020-03-01": 5432.5}}


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("subject_id,steps\n7,1\n", {}, "HF-307.*--as-of"),
        ("who,date,steps\n7,2020-01-01,1\n", {}, "HF-307.*--subject-column"),
        ("id,date,km\n7,2020-01-01,1\n", {}, "HF-307.*no column's name is known.*--columns"),
        ("id,date,steps\n7,2020-01-01,1\n", {"columns": ("km",)}, 'HF-307.*"km"'),
        ("id,date,steps,step_count\n7,2020-01-01,1,2\n", {}, "HF-307.*one quantity"),
        ("id,date,steps\n7,2020-01-01,\n", {}, "HF-306"),
    ],
)
def test_a_table_that_says_too_little_is_refused_with_the_option_that_says_it(
    tmp_path, text, options, said
):
    with pytest.raises(IngestError, match=said):
        one(tmp_path, text, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["days.csv"]


def test_options_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"HF-102.*not both"):
        one(tmp_path, as_of="2020-01-01", day_column="date")
    with pytest.raises(ConfigError, match=r"HF-102.*COLUMN=QUANTITY"):
        one(tmp_path, columns=("a=b=c",))


def test_a_date_far_off_costs_no_room(tmp_path):
    store = one(tmp_path, "id,date,steps\n7,1981-01-01,1\n7,2020-01-01,2\n7,2020-02-01,3\n")
    assert [len(row["value"]) for row in store.wearable().to_pylist()] == [1, 32]


def test_a_fitbit_s_day_and_any_other_device_s_are_one_channel(tmp_path):
    first, second = tmp_path / "fitbit", tmp_path / "other"
    first.mkdir(), second.mkdir()
    (first / "a.csv").write_text("Id,ActivityDate,TotalSteps\n7,4/12/2016,9000\n")
    (fitbit,) = ingest("fitbit", first, tmp_path / "a")
    other = one(second, "id,date,steps\n8,2016-04-12,8000\n")
    assert [store.devices for store in (SiteStore.open(fitbit), other)] == [("per_day",)] * 2
    assert days(SiteStore.open(fitbit)) | days(other) == {
        (7, "STEPS_DAY"): {"2016-04-12": 9000},
        (8, "STEPS_DAY"): {"2016-04-12": 8000},
    }


def test_a_study_reads_days_as_tokens_of_a_day(tmp_path):
    """Known at the day's end; the first sample of a token is its own day's."""
    (view,) = join_stores([one(tmp_path)])
    moments = channel_moments(view, None, None)
    assert moments.channels == (("per_day", "RESTING_HR_DAY"), ("per_day", "STEPS_DAY"))
    assert moments.sum.tolist() == [61, 5500]
    assert wearing_spans("per_day", float(moments.hz[0]), TokensConfig()) == (86_400, 86_400)


def test_days_in_parquet_are_read_by_their_types(tmp_path):
    day = pa.array([datetime.date(2020, 1, 2)], pa.date32())
    table = {"subject_id": pa.array([7]), "day": day, "hrv": pa.array([40], pa.int16())}
    pq.write_table(pa.table(table), tmp_path / "days.parquet")
    (out,) = ingest("auto", tmp_path / "days.parquet", tmp_path / "out")
    assert days(SiteStore.open(out)) == {(7, "HRV_DAY"): {"2020-01-02": 40}}


@pytest.mark.realdata
def test_daily_totals_of_real_people_are_those_of_fitbit_s_own_reader(tmp_path, shared_data):
    file = shared_data / "formats" / "fitbit_csv" / "dailyActivity_merged.csv"
    options = {"day_column": "ActivityDate", "date_format": "%d-%m-%Y"}
    stores = [
        SiteStore.open(path)
        for path in (
            *ingest("daily_table", file, tmp_path / "a", columns=("TotalSteps",), **options),
            *ingest("fitbit", file, tmp_path / "b"),
        )
    ]
    ours, fitbit = (
        {person: of for (person, channel), of in days(store).items() if channel == "STEPS_DAY"}
        for store in stores
    )
    month_first = fitbit[1503960366].pop("2016-04-15")  # written 04-15-2016, of 940 days this one
    assert month_first == 9762
    assert ours == fitbit
    assert stores[0].rejected == {"impossible_day": 1}
