from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from meds import DataSchema, SubjectSplitSchema

from healthfm_core.data.store.events import sort_events
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import stretches
from healthfm_core.errors import IngestError, StoreError

NOON_US = 1_577_880_000 * 1_000_000


def walk(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def everything(tmp_path: Path, events) -> Path:
    """Subject 1 has all three modalities, 2 only clinical events, 3 only a watch."""
    writer = StoreWriter(tmp_path / "all", dataset_name="all")
    birth = datetime(1950, 5, 5)
    noon = datetime(2020, 1, 1, 12)
    writer.add_events(
        events(
            [
                (1, birth, "MEDS_BIRTH", None, None),
                (1, noon, "LAB//K", 3.5, None),
                (1, noon, "WEARABLE//HR//MEAN//bpm", 61.0, None),
                (2, noon, "LAB//K", 4.5, None),
                (2, noon, "MEDS_DEATH", None, None),
            ]
        )
    )
    ids = np.array([3, 1])
    hr = np.array([[60, np.nan], [70, 80]], np.float32)
    writer.add_wearable("watch", stretches(ids, np.full(2, NOON_US), "HR", 1 / 60, hr))
    scores = {"subject_id": [1], "score": ["PGS000018"], "z": [9.0]}
    writer.add_scores(pa.table(scores), normalisation="Z_norm2")
    writer.set_labels("death", label_table(ids, np.full(2, NOON_US), np.array([True, False])))
    writer.set_splits({1: "train", 2: "train", 3: "held_out"})
    writer.write()
    return tmp_path / "all"


def test_events_come_back_by_subject_then_time_with_static_ones_first(store):
    rows = SiteStore.open(store).events()
    assert rows.schema.equals(DataSchema.schema())
    assert rows["subject_id"].to_pylist() == [1, 1, 1, 1, 2]
    assert rows["code"].to_pylist() == ["GENDER//F", "MEDS_BIRTH", "DX//I10", "LAB//K", "LAB//K"]
    assert rows["numeric_value"].to_pylist() == [None, None, None, 3.5, 4.5]
    assert rows["text_value"].to_pylist() == [None, None, "as told", None, None]


def test_a_split_shows_its_subjects_only(store):
    opened = SiteStore.open(store)
    assert opened.subjects().tolist() == [1, 2]
    assert opened.subjects("held_out").tolist() == [2]
    assert opened.events("held_out")["subject_id"].to_pylist() == [2]
    assert opened.events("tuning").num_rows == 0
    assert opened.events("tuning").schema.equals(DataSchema.schema())


def test_other_tools_can_open_a_store(store):
    found = duckdb.sql(f"select code, count(*) from '{store}/data/*/*.parquet' group by 1")
    assert dict(found.fetchall())["LAB//K"] == 2
    splits = duckdb.sql(f"from '{store}/metadata/subject_splits.parquet'").to_arrow_table()
    SubjectSplitSchema.validate(pa.table(splits).cast(SubjectSplitSchema.schema()))
    codes = duckdb.sql(f"select code from '{store}/metadata/codes.parquet'").fetchall()
    assert {code for (code,) in codes} == {"GENDER//F", "MEDS_BIRTH", "DX//I10", "LAB//K"}
    assert json.loads((store / "metadata" / "dataset.json").read_text())["meds_version"] == "0.4.0"


def test_every_modality_is_there_when_nothing_is_withheld(everything):
    store = SiteStore.open(everything)
    store.check()
    assert store.modalities == {"ehr", "wearable", "genomics"}
    assert store.devices == ("watch",)
    assert store.tasks == ("death",)
    assert store.events().num_rows == 6
    watch = store.wearable()
    assert watch["subject_id"].to_pylist() == [1, 3]
    assert watch["value"].to_pylist() == [[70.0, 80.0], [60.0, 0.0]]
    assert watch["mask"].to_pylist() == [[True, True], [True, False]]
    assert store.wearable("watch", "held_out")["subject_id"].to_pylist() == [3]


def test_a_score_is_a_static_row_clipped_to_six(everything):
    rows = SiteStore.open(everything, modalities=["genomics"]).events()
    panel = rows.filter(pa.compute.equal(rows["code"], "PRS//PGS000018"))
    assert panel["time"].to_pylist() == [None]
    assert panel["numeric_value"].to_pylist() == [6.0]


@pytest.mark.parametrize(
    ("shown", "codes"),
    [
        (["ehr"], {"MEDS_BIRTH", "LAB//K", "MEDS_DEATH"}),
        (["ehr", "wearable"], {"MEDS_BIRTH", "LAB//K", "MEDS_DEATH", "WEARABLE//HR//MEAN//bpm"}),
        (["wearable"], set()),
        (["genomics"], {"PRS//PGS000018"}),
        ([], set()),
    ],
)
def test_what_a_view_does_not_name_is_as_if_it_were_not_there(everything, shown, codes):
    store = SiteStore.open(everything, modalities=shown)
    assert set(store.events()["code"].to_pylist()) == codes
    assert store.modalities == set(shown)
    assert store.devices == (("watch",) if "wearable" in shown else ())
    assert store.wearable().num_rows == (2 if "wearable" in shown else 0)
    assert store.subjects().tolist() == [1, 2, 3]


def test_a_view_of_some_people_shows_nothing_of_the_others(everything):
    whole = SiteStore.open(everything)
    view = whole.narrowed(subjects=[3, 1])
    assert view.subjects().tolist() == [1, 3]
    assert view.subjects("train").tolist() == [1]
    for split in (None, "train", "held_out"):
        assert set(view.events(split)["subject_id"].to_pylist()) <= {1, 3}
        assert set(view.wearable(None, split)["subject_id"].to_pylist()) <= {1, 3}
    only = view.narrowed(subjects=[3], modalities={"wearable", "ehr"})
    assert only.events().num_rows == 0
    assert only.wearable("watch")["subject_id"].to_pylist() == [3]
    assert only.labels("death")["subject_id"].to_pylist() == [3]
    assert only.modalities == {"ehr", "wearable"}
    with pytest.raises(StoreError, match=r"HF-210.* 1 of 2 subjects"):
        only.narrowed(subjects=[1, 3])


def test_only_files_that_may_hold_a_view_s_people_are_read(tmp_path, events, monkeypatch):
    monkeypatch.setattr("healthfm_core.data.store.store_draft.EVENTS_PER_FILE", 1)
    writer = StoreWriter(tmp_path / "many", dataset_name="many")
    noon = datetime(2020, 1, 1, 12)
    writer.add_events(events([(who, noon, "DX//I10", None, None) for who in (1, 2, 3)]))
    writer.set_splits(dict.fromkeys((1, 2, 3), "train"))
    writer.write()
    view = SiteStore.open(tmp_path / "many").narrowed(subjects=[2])
    (kept,) = (f for f in (tmp_path / "many" / "data" / "train").iterdir() if f.stem == "1")
    for file in (tmp_path / "many" / "data" / "train").iterdir():
        if file != kept:
            at = file.read_bytes()
            file.write_bytes(b"\0" * 100 + at[100:])  # its rows are gone, its footer is not
    assert view.events()["subject_id"].to_pylist() == [2]


def test_a_modality_without_rows_is_not_there(store):
    assert SiteStore.open(store, modalities=["wearable", "ehr"]).modalities == {"ehr"}


def test_an_unknown_device_or_task_is_named_with_what_there_is(everything):
    store = SiteStore.open(everything)
    with pytest.raises(StoreError, match=r"HF-208.*one of: watch"):
        store.wearable("ring")
    with pytest.raises(StoreError, match=r"HF-208.*one of: death"):
        store.labels("discharge")


def test_labels_keep_further_columns_and_are_sorted(tmp_path, events):
    ids, at = np.array([2, 1]), np.full(2, NOON_US)
    table = label_table(ids, at, np.array([True, False]), reference_score=pa.array([0.5, None]))
    writer = StoreWriter(tmp_path / "s", dataset_name="s")
    writer.add_events(events([(1, None, "A", None, None), (2, None, "A", None, None)]))
    writer.set_labels("death", table)
    writer.write()
    labels = SiteStore.open(tmp_path / "s").labels("death")
    assert labels["subject_id"].to_pylist() == [1, 2]
    assert labels["reference_score"].to_pylist() == [None, 0.5]


def test_a_summary_counts(everything):
    summary = SiteStore.open(everything).summary()
    assert summary["subjects_by_split"] == {"train": 2, "tuning": 0, "held_out": 1}
    assert summary["events"] == 6
    assert summary["ehr_events"] == 2
    assert summary["scores"] == 1
    assert summary["wearable_summary_events"] == 1
    assert summary["wearable_rows"] == {"watch": 2}
    assert summary["labels"] == {"death": 2}


def test_writing_the_same_twice_gives_the_same_bytes(tmp_path, events):
    rows = [(s, None, "A", float(s), None) for s in range(50)]
    for name, order in (("a/s", rows), ("b/s", rows[::-1])):
        writer = StoreWriter(tmp_path / name, dataset_name="s")
        writer.add_events(events(order))
        writer.write()
    assert walk(tmp_path / "a") == walk(tmp_path / "b")


def test_large_tables_fall_into_files_that_never_share_a_subject(tmp_path, events, monkeypatch):
    monkeypatch.setattr("healthfm_core.data.store.store_draft.EVENTS_PER_FILE", 4)
    rows = [(s, None, f"C{i}", None, None) for s in range(30) for i in range(3)]
    writer = StoreWriter(tmp_path / "s", dataset_name="s")
    writer.add_events(events(rows))
    writer.set_splits(dict.fromkeys(range(30), "train"))
    writer.write()
    assert len(list((tmp_path / "s" / "data" / "train").glob("*.parquet"))) == 15
    assert SiteStore.open(tmp_path / "s").events().equals(sort_events(events(rows)))


def test_what_is_collected_and_never_written_leaves_nothing_behind(tmp_path, events):
    writer = StoreWriter(tmp_path / "s", dataset_name="s")
    writer.add_events(events([(1, None, "A", None, None)]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["check_store", "write_shards"])
def test_an_interruption_while_writing_leaves_nothing_behind(tmp_path, events, monkeypatch, moment):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"healthfm_core.data.store.store_draft.{moment}", interrupt)
    writer = StoreWriter(tmp_path / "s", dataset_name="s")
    writer.add_events(events([(1, None, "A", None, None)]))
    with pytest.raises(KeyboardInterrupt):
        writer.write()
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_replaced_only_when_asked_and_only_by_a_sound_one(store, events):
    before = walk(store)
    with pytest.raises(IngestError, match="HF-304"):
        StoreWriter(store, dataset_name="new")
    twice = [(1, None, "A", None, None)] * 2
    unsound = StoreWriter(store, dataset_name="new", overwrite=True)
    unsound.add_events(events(twice))
    with pytest.raises(StoreError, match="HF-204"):
        unsound.write()
    assert walk(store) == before
    writer = StoreWriter(store, dataset_name="new", overwrite=True)
    writer.add_events(events(twice[:1]))
    writer.write()
    assert SiteStore.open(store).name == "new"
    assert [path.name for path in store.parent.iterdir()] == ["site"]


def test_a_folder_that_holds_no_store_is_never_replaced(tmp_path):
    (tmp_path / "home" / "letters").mkdir(parents=True)
    with pytest.raises(IngestError, match=r"HF-304.*holds no store"):
        StoreWriter(tmp_path / "home", dataset_name="s", overwrite=True)
    assert (tmp_path / "home" / "letters").is_dir()


def test_the_codes_above_a_code_are_kept_all_the_way_up(tmp_path):
    codes = pa.table(
        {
            "code": ["A1", "A", "ALL", "B"],
            "description": pa.nulls(4, pa.string()),
            "parent_codes": [["A"], ["ALL"], None, None],
        }
    )
    writer = StoreWriter(tmp_path / "site", dataset_name="site")
    writer.add_events(
        pa.table(
            {
                "subject_id": pa.array([1], pa.int64()),
                "time": pa.array([0], pa.timestamp("us")),
                "code": ["A1"],
                "numeric_value": pa.array([None], pa.float32()),
            }
        )
    )
    writer.set_codes(codes)
    writer.write()
    kept = pa.parquet.read_table(tmp_path / "site" / "metadata" / "codes.parquet")
    assert kept["code"].to_pylist() == ["A", "A1", "ALL"]
