"""Each bad store: one sentence, one code, and no word about a person."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import stretches
from healthfm_core.errors import StoreError

PERSON = 918_273_645
"""An id that must not be in any message."""


@pytest.fixture
def train(tmp_path: Path, events) -> Path:
    """The only event file of a sound store of one person."""
    writer = StoreWriter(tmp_path / "site", dataset_name="site")
    days = [datetime(2020, 1, day) for day in (1, 2, 3)]
    writer.add_events(events([(PERSON, day, "LAB//K", 4.0, None) for day in days]))
    writer.set_splits({PERSON: "train"})
    writer.write()
    return tmp_path / "site" / "data" / "train" / "0.parquet"


def refused(number: int, train: Path, *, on_open: bool = False) -> str:
    """Return the message of the refusal, after a look at its code and its discretion."""
    site = train.parents[2]
    with pytest.raises(StoreError) as caught:
        SiteStore.open(site) if on_open else SiteStore.open(site).check()
    assert caught.value.code == f"HF-{number}"
    assert str(PERSON) not in str(caught.value)
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def test_a_missing_column(train):
    rewrite(train, lambda t: t.drop_columns(["code"]))
    assert refused(201, train, on_open=True) == (
        'StoreError[HF-201]: data/train/0.parquet: there is no column "code"; '
        "MEDS 0.4 wants it as string. Add the column, or ingest the source again"
    )


@pytest.mark.parametrize(
    ("column", "kind"),
    [("numeric_value", pa.float64()), ("subject_id", pa.int32()), ("time", pa.timestamp("ns"))],
)
def test_a_wrong_dtype(train, column, kind):
    at = pq.read_schema(train).names.index(column)
    rewrite(train, lambda t: t.set_column(at, column, t[column].cast(kind)))
    assert f'column "{column}" is {kind}' in refused(202, train, on_open=True)


def test_a_null_where_meds_wants_a_value(train):
    rewrite(train, lambda t: t.set_column(2, "code", pa.nulls(t.num_rows, pa.string())))
    assert 'column "code" holds nulls' in refused(202, train)


def test_an_event_out_of_order(train):
    rewrite(train, lambda t: t.take([0, 2, 1]))
    assert "sorted by time" in refused(203, train)


def test_a_static_event_after_a_dated_one(train):
    late = pa.array([0, None, 2], pa.int64()).cast(pa.timestamp("us"))
    rewrite(train, lambda t: t.set_column(1, "time", late))
    refused(203, train)


def test_rows_of_a_subject_that_lie_apart(train):
    rewrite(train, lambda t: t.set_column(0, "subject_id", pa.array([PERSON, 5, PERSON])))
    refused(203, train)


def test_an_event_twice(train):
    rewrite(train, lambda t: t.take([0, 1, 1, 2]))
    assert "1 events equal another" in refused(204, train)


def test_a_subject_in_two_files(train):
    shutil.copy(train, train.with_name("1.parquet"))
    assert "1 subjects are in two files" in refused(205, train)


def test_a_subject_in_the_folder_of_another_split(train):
    (train.parents[1] / "tuning").mkdir()
    train.rename(train.parents[1] / "tuning" / "0.parquet")
    refused(205, train)


def test_a_subject_in_two_splits(train):
    splits = train.parents[2] / "metadata" / "subject_splits.parquet"
    both = {"subject_id": [PERSON, PERSON], "split": ["train", "tuning"]}
    pq.write_table(pa.table(both), splits)
    refused(205, train)


def test_a_split_of_an_unknown_name(train):
    splits = train.parents[2] / "metadata" / "subject_splits.parquet"
    pq.write_table(pa.table({"subject_id": [PERSON], "split": ["validation"]}), splits)
    refused(202, train)


def test_a_subject_without_a_split(train):
    splits = train.parents[2] / "metadata" / "subject_splits.parquet"
    pq.write_table(pa.table({"subject_id": [7], "split": ["train"]}), splits)
    refused(210, train)


def test_an_empty_site(train):
    train.unlink()
    refused(206, train, on_open=True)


def test_a_site_without_people_cannot_be_written(tmp_path, events):
    writer = StoreWriter(tmp_path / "s", dataset_name="s")
    writer.add_events(events([]))
    with pytest.raises(StoreError, match="HF-206"):
        writer.write()
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_store(train):
    (train.parents[2] / "metadata" / "dataset.json").unlink()
    assert "dataset.json, which is written last, is missing" in refused(207, train, on_open=True)


def test_a_marker_that_is_cut_off(train):
    (train.parents[2] / "metadata" / "dataset.json").write_text('{"dataset_name": "si')
    refused(207, train, on_open=True)


def test_no_store(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StoreError, match="HF-208"):
            SiteStore.open(path)


def test_a_file_cut_off(train):
    train.write_bytes(train.read_bytes()[:-20])
    assert "data/train/0.parquet" in refused(209, train, on_open=True)


def test_a_label_of_a_stranger(tmp_path, events):
    labels = label_table(np.array([PERSON]), np.array([0]), np.array([True]))
    writer = StoreWriter(tmp_path / "s", dataset_name="s")
    writer.add_events(events([(1, None, "A", None, None)]))
    writer.set_labels("death", labels)
    with pytest.raises(StoreError, match="HF-210") as caught:
        writer.write()
    assert str(PERSON) not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda t: t.take([0, 0]), 204),
        (lambda t: t.set_column(3, "hz", pa.array([0.0, 1.0])), 202),
        (lambda t: t.set_column(5, "mask", pa.array([[True], [True]])), 202),
        (lambda t: t.drop_columns(["mask"]), 201),
        (lambda t: t.set_column(4, "value", pa.array([["a"], ["b"]])), 202),
    ],
)
def test_a_wearable_table_that_does_not_hold_together(tmp_path, change, number):
    value = np.ones((2, 3), np.float32)
    table = change(stretches(np.array([1, 2]), np.zeros(2, np.int64), "HR", 1.0, value))

    def write() -> None:
        writer = StoreWriter(tmp_path / "s", dataset_name="s")
        writer.add_wearable("watch", table)
        writer.write()

    with pytest.raises(StoreError, match=f"HF-{number}"):
        write()
    assert list(tmp_path.iterdir()) == []
