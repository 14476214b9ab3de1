"""``ingest … --into STORE``: a person's records of several sources in one store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from healthfm_client.__main__ import main
from healthfm_client.ingest import ingest, ingest_into
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.wearables import put_together, stretches
from healthfm_core.errors import IngestError, StoreError
from tests.ingest.test_devices import days, minutes

FHIR_IDS = ("abc", "def", "ghi")
Clinic = Callable[..., Path]


def fhir(folder: Path) -> Path:
    """Patients with ids that are no numbers, a condition each."""
    folder.mkdir()
    lines = []
    for name in FHIR_IDS:
        lines.append(f'{{"resourceType": "Patient", "id": "{name}", "birthDate": "1950-03-02"}}')
        lines.append(
            f'{{"resourceType": "Condition", "id": "c{name}", "subject": {{"reference": '
            f'"Patient/{name}"}}, "code": {{"coding": [{{"system": "http://snomed.info/sct", '
            '"code": "44054006"}]}, "onsetDateTime": "2016-01-01"}'
        )
    (folder / "all.ndjson").write_text("\n".join(lines))
    return folder


def events(file: Path, rows: list[tuple[int, datetime | None, str, float | None]]) -> Path:
    columns = zip(*rows, strict=True)
    kinds = (pa.int64(), pa.timestamp("us"), pa.string(), pa.float32())
    names = ("subject_id", "time", "code", "numeric_value")
    arrays = [pa.array(list(of), kind) for of, kind in zip(columns, kinds, strict=True)]
    pq.write_table(pa.table(arrays, names=names), file)
    return file


def watches(folder: Path, ids: tuple[str, ...] = ("w1", "w2")) -> Path:
    folder.mkdir()
    lines = "".join(f"2016-04-12T08:00:00,{name},6{n}\n" for n, name in enumerate(ids))
    (folder / "hr.csv").write_text("datetime,person_id,heart_rate_value\n" + lines)
    daily = "".join(f"2016-04-12,{name},9000\n" for name in ids)
    (folder / "daily.csv").write_text("date,person_id,steps\n" + daily)
    return folder


@pytest.fixture
def clinic(tmp_path) -> Path:
    file = events(
        tmp_path / "clinic.parquet",
        [(n, datetime(1950, 1, n), "MEDS_BIRTH", None) for n in (1, 2, 3)]
        + [(n, datetime(2016, 1, 1), "LAB//K//mmol/L", 4.0) for n in (1, 2, 3)],
    )
    (store,) = ingest("event_table", file, tmp_path / "clinic", site_column="")
    return store


def linking(tmp_path: Path, text: str) -> Path:
    (tmp_path / "links.csv").write_text(text)
    return tmp_path / "links.csv"


def test_a_watch_and_a_clinic_of_one_person_are_one_store_by_the_linking_table(tmp_path, clinic):
    links = linking(tmp_path, "watch,subject_id\nw1,1\nw2,3\nw3,9\n")
    told: list[str] = []
    splits = {n: split_of(clinic, n) for n in (1, 2, 3)}
    path = ingest_into(
        "fitbit", watches(tmp_path / "in"), clinic, subjects=links, notify=told.append
    )
    store = SiteStore.open(path)
    store.check()
    assert path == clinic
    assert store.subjects().tolist() == [1, 2, 3]
    assert store.modalities == {"ehr", "wearable"}
    assert store.devices == ("fitbit", "per_day")
    assert days(store) == {(n, "STEPS_DAY"): {"2016-04-12": 9000} for n in (1, 3)}
    assert store.events().num_rows == 6
    assert {n: split_of(clinic, n) for n in (1, 2, 3)} == splits
    assert told == ["Of 2 people of the source the store had 2."]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("clinic", "clinic.parquet", "in", "links.csv")
    ]


def split_of(path: Path, subject: int) -> str:
    store = SiteStore.open(path)
    names = ("train", "tuning", "held_out")
    return next(name for name in names if subject in store.subjects(name))


@pytest.mark.parametrize("keyed", [True, False])
def test_the_table_may_name_the_ids_that_the_other_source_has(tmp_path, keyed):
    """Hashes of the clinic's ids, with the site's key or without, nobody can write into a table."""
    options = {"key": tmp_path / "key"} if keyed else {}
    (clinic,) = ingest("fhir", fhir(tmp_path / "fhir"), tmp_path / "clinic", **options)
    before = SiteStore.open(clinic).subjects().tolist()
    links = linking(tmp_path, "watch,same_as\nw1,abc\nw2,ghi\n")
    ingest_into("fitbit", watches(tmp_path / "in"), clinic, subjects=links, **options)
    store = SiteStore.open(clinic)
    assert store.subjects().tolist() == before
    worn = store.wearable("fitbit")["subject_id"].unique().to_pylist()
    assert len(worn) == 2
    assert store.modalities == {"ehr", "wearable"}


def test_a_source_of_nobody_in_the_store_is_refused_and_the_table_named(tmp_path, clinic):
    watch = watches(tmp_path / "in", ("7001", "7002"))
    with pytest.raises(IngestError, match=r"HF-316\]: clinic: it has none .* Give --subjects"):
        ingest_into("fitbit", watch, clinic)
    assert SiteStore.open(clinic).subjects().tolist() == [1, 2, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clinic", "clinic.parquet", "in"]


def test_a_table_that_gives_an_id_two_people_is_refused(tmp_path, clinic):
    links = linking(tmp_path, "watch,subject_id\nw1,1\nw1,2\nw2,3\n")
    with pytest.raises(IngestError, match=r"HF-305\]: links.csv: an id .* stands for two people"):
        ingest_into("fitbit", watches(tmp_path / "in"), clinic, subjects=links)


def test_a_source_of_several_sites_goes_into_no_store(tmp_path, clinic):
    table = pq.read_table(tmp_path / "clinic.parquet")
    table = table.append_column("site", pa.array([1, 2] * 3))
    pq.write_table(table, tmp_path / "wards.parquet")
    with pytest.raises(IngestError, match=r"HF-317\]: wards.parquet: it gives 2 sites"):
        ingest_into("event_table", tmp_path / "wards.parquet", clinic)


def test_of_what_both_say_one_remains_and_the_store_is_believed(tmp_path, clinic):
    more = events(
        tmp_path / "more.parquet",
        [
            (1, datetime(1950, 6, 1), "MEDS_BIRTH", None),
            (1, datetime(2016, 1, 1), "LAB//K//mmol/L", 4.0),
            (2, datetime(1949, 1, 1), "LAB//K//mmol/L", 5.0),
            (2, datetime(2017, 1, 1), "LAB//K//mmol/L", 6.0),
            (8, datetime(2017, 1, 1), "LAB//NA//mmol/L", 140.0),
        ],
    )
    ingest_into("event_table", more, clinic, site_column="", max_set_aside=1)
    store = SiteStore.open(clinic)
    store.check()
    rows = [(e["subject_id"], e["code"], e["numeric_value"]) for e in store.events().to_pylist()]
    lab = "LAB//K//mmol/L"
    assert rows == [
        *((1, "MEDS_BIRTH", None), (1, lab, 4.0)),
        *((2, "MEDS_BIRTH", None), (2, lab, 4.0), (2, lab, 6.0)),
        *((3, "MEDS_BIRTH", None), (3, lab, 4.0)),
        (8, "LAB//NA//mmol/L", 140.0),
    ]
    born = store.events().filter(pc.equal(store.events()["code"], "MEDS_BIRTH"))
    assert born["time"][0].as_py() == datetime(1950, 1, 1)
    assert store.rejected == {"duplicate": 1, "before_birth": 1}


def test_a_person_keeps_the_split_that_the_store_gave(tmp_path):
    rows = [(n, datetime(2016, 1, 1), "LAB//K//mmol/L", 4.0) for n in range(1, 10)]
    given = {"subject_id": list(range(1, 10)), "split": ["held_out"] * 9}
    pq.write_table(pa.table(given), tmp_path / "splits.parquet")
    (clinic,) = ingest(
        "event_table",
        events(tmp_path / "clinic.parquet", rows),
        tmp_path / "clinic",
        site_column="",
        splits=tmp_path / "splits.parquet",
    )
    ingest_into("fitbit", watches(tmp_path / "in", tuple("123456789")), clinic)
    assert SiteStore.open(clinic).subjects("held_out").tolist() == list(range(1, 10))


def test_people_who_cannot_be_the_same_change_nothing(tmp_path, clinic):
    other = events(tmp_path / "b.parquet", [(1, datetime(1990, 1, 1), "MEDS_BIRTH", None)])
    with pytest.raises(StoreError, match="HF-212"):
        ingest_into("event_table", other, clinic, site_column="")
    assert SiteStore.open(clinic).events().num_rows == 6


def test_a_second_export_of_a_watch_adds_the_days_that_it_has_more(tmp_path, clinic):
    first, second = (tmp_path / name / "days.csv" for name in ("a", "b"))
    first.parent.mkdir(), second.parent.mkdir()
    first.write_text("id,date,steps\n1,2016-04-12,10\n1,2016-04-13,20\n")
    second.write_text("id,date,steps\n1,2016-04-12,10\n1,2016-04-13,25\n1,2016-04-15,40\n")
    for file in (first, second):
        ingest_into("daily_table", file, clinic)
    store = SiteStore.open(clinic)
    assert days(store)[1, "STEPS_DAY"] == {"2016-04-12": 10, "2016-04-13": 20, "2016-04-15": 40}
    assert store.not_read == {"samples that the store has with other values": 1}


def test_what_a_store_was_told_of_codes_labels_and_rows_set_aside_stays(tmp_path):
    raw = events(
        tmp_path / "clinic.parquet",
        [(1, datetime(2016, 1, 1), "A", 1.0), (1, datetime(2990, 1, 1), "A", 1.0)],
    )
    label = {"subject_id": [1], "prediction_time": [datetime(2016, 2, 1)], "boolean_value": [True]}
    pq.write_table(pa.table(label), tmp_path / "dies.parquet")
    (tmp_path / "codes.csv").write_text("code,parent,description\nA,TOP,a thing\n")
    told = {"labels": (tmp_path / "dies.parquet",), "codes": tmp_path / "codes.csv"}
    (clinic,) = ingest("event_table", raw, tmp_path / "clinic", site_column="", **told)
    scores = tmp_path / "scores.csv"
    scores.write_text("IID,PGS000018\n1,0.5\n2,0.7\n")
    ingest_into("score_table", scores, clinic)
    (tmp_path / "days.csv").write_text("id,date,steps\n1,2016-04-12,10\n")
    ingest_into("daily_table", tmp_path / "days.csv", clinic)
    store = SiteStore.open(clinic)
    store.check()
    assert store.modalities == {"ehr", "genomics", "wearable"}
    assert store.labels("dies")["boolean_value"].to_pylist() == [True]
    assert store.parents() == {"A": ["TOP"]}
    assert store.rejected == {"after_today": 1}


def test_samples_fill_each_other_s_gaps_and_the_first_s_stay():
    one, other = np.array([[1, 0, 3]], np.float32), np.array([[9, 2, 3, 4]], np.float32)
    who, start = np.array([7]), np.array([0])
    first = stretches(who, start, "HR", 1.0, one, np.array([[True, False, True]]))
    second = stretches(who, start, "HR", 1.0, other)
    (row,), differing = (table := put_together([first, second]))[0].to_pylist(), table[1]
    assert (row["value"], row["mask"]) == ([1, 2, 3, 4], [True] * 4)
    assert differing == 1
    slower = stretches(who, start, "HR", 0.5, other)
    table, differing = put_together([first, slower])
    assert (table.num_rows, table["hz"].to_pylist(), differing) == (1, [1.0], 4)


def test_stretches_that_begin_apart_say_no_time_twice():
    who = np.array([7])
    first = stretches(who, np.array([0]), "HR", 1.0, np.array([[1, 2, 3]], np.float32))
    later = stretches(who, np.array([1_000_000]), "HR", 1.0, np.array([[2, 9, 4]], np.float32))
    rows, differing = put_together([first, later])
    said = [(row["value"], row["mask"]) for row in rows.to_pylist()]
    assert said == [([1, 2, 3], [True] * 3), ([0, 0, 4], [False, False, True])]
    assert differing == 1
    rows, differing = put_together([first, first.slice(0, 1), later.slice(0, 0)])
    assert (rows.num_rows, differing) == (1, 0)
    between = stretches(who, np.array([500_000]), "HR", 1.0, np.array([[8, 8]], np.float32))
    others = stretches(np.array([8]), np.array([1_000_000]), "HR", 1.0, np.ones((1, 2), np.float32))
    rows, differing = put_together([first, between, others])
    assert [row["mask"] for row in rows.to_pylist()] == [[True] * 3, [True] * 2, [True] * 2]


def test_the_command_adds_and_its_dry_run_does_not(tmp_path, clinic, capsys):
    command = ["ingest", "fitbit", str(watches(tmp_path / "in", ("1", "2")))]
    assert main([*command, "--into", str(clinic), "--dry-run"]) == 0
    assert "Nothing was kept" in capsys.readouterr().out
    assert not SiteStore.open(clinic).devices
    assert main([*command, "--into", str(clinic)]) == 0
    assert len(minutes(SiteStore.open(clinic), "HR")) == 1
    with pytest.raises(SystemExit):
        main([*command, "--into", str(clinic), "--out", str(clinic)])
    assert main([*command, "--into", str(clinic), "--overwrite"]) != 0
    assert "HF-102" in capsys.readouterr().err


def test_an_output_that_is_a_store_is_never_to_be_discarded(tmp_path, clinic):
    with pytest.raises(IngestError, match="HF-304") as caught:
        ingest("fitbit", watches(tmp_path / "in"), clinic)
    assert "--into" in str(caught.value)
    assert "--overwrite" not in str(caught.value)
