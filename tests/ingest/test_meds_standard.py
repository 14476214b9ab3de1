"""What is written is MEDS by MEDS's own classes, and MEDS's own sample comes through."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from meds import (
    CodeMetadataSchema,
    DataSchema,
    DatasetMetadataSchema,
    LabelSchema,
    SubjectSplitSchema,
)

from healthfm_client.ingest import ingest
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import stretches

FOLDERS = {
    "data/**/*.parquet": DataSchema,
    "metadata/codes.parquet": CodeMetadataSchema,
    "metadata/subject_splits.parquet": SubjectSplitSchema,
    "labels/*.parquet": LabelSchema,
}
SAMPLES = ("SIMPLE_STATIC_SHARDED_BY_SPLIT", "SIMPLE_STATIC_SHARDED_BY_SPLIT_WITH_TASKS")


def check_with_meds(store: Path) -> None:
    """Hold every file against MEDS's own classes; they raise where one differs."""
    for pattern, wanted in FOLDERS.items():
        for file in store.glob(pattern):
            table = pq.read_table(file, partitioning=None)
            wanted.validate(table)
            assert wanted.align(table).num_rows == table.num_rows
    said = json.loads((store / "metadata" / "dataset.json").read_text())
    own = said.pop("healthfm")
    DatasetMetadataSchema.validate(said)
    assert DatasetMetadataSchema(**said).meds_version.startswith("0.4")
    assert set(own) == {"rejected", "not_read", "scores", "sources"}


def sample(name: str, folder: Path):
    from meds_testing_helpers import static_sample_data as helpers
    from meds_testing_helpers.dataset import MEDSDataset

    return MEDSDataset.from_yaml(getattr(helpers, name)).write(folder / "sample")


def rows(tables) -> list[tuple]:
    table = pa.concat_tables(tables, promote_options="permissive")
    names = ["subject_id", "time", "code", "numeric_value"]
    return sorted((tuple(row.values()) for row in table.select(names).to_pylist()), key=repr)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_sample_of_medss_own_tools_comes_through(tmp_path, name):
    dataset = sample(name, tmp_path)
    (path,) = ingest("auto", tmp_path / "sample", tmp_path / "store")
    check_with_meds(path)
    store = SiteStore.open(path)
    assert store.events().num_rows == 62
    assert store.rejected == {}
    assert rows([store.events()]) == rows(dataset.data_shards.values())
    splits = {str(row["subject_id"]): row["split"] for row in dataset.subject_splits.to_pylist()}
    for split in ("train", "tuning", "held_out"):
        wanted = sorted(int(who) for who, its in splits.items() if its == split)
        assert store.subjects(split).tolist() == wanted
    codes = pq.read_table(path / "metadata" / "codes.parquet")
    described = {row["code"]: row for row in codes.to_pylist()}
    assert all(described[row["code"]] == row for row in dataset.code_metadata.to_pylist())


def test_labels_of_the_sample_come_along(tmp_path):
    dataset = sample(SAMPLES[1], tmp_path)
    (path,) = ingest("meds", tmp_path / "sample", tmp_path / "store")
    store = SiteStore.open(path)
    assert store.tasks == ("boolean_value_task",)
    wanted = pa.concat_tables(dataset.task_labels["boolean_value_task"].values())
    names = ["subject_id", "prediction_time", "boolean_value"]
    got = store.labels("boolean_value_task")
    assert (
        got.select(names).to_pylist()
        == wanted.select(names)
        .sort_by([("subject_id", "ascending"), ("prediction_time", "ascending")])
        .to_pylist()
    )


def test_a_store_goes_back_into_medss_own_tools(tmp_path):
    sample(SAMPLES[0], tmp_path)
    from meds_testing_helpers.dataset import MEDSDataset

    (path,) = ingest("meds", tmp_path / "sample", tmp_path / "store")
    again = MEDSDataset(root_dir=path)
    assert rows(again.data_shards.values()) == rows([SiteStore.open(path).events()])
    assert again.subject_splits.num_rows == len(SiteStore.open(path).subjects())


def test_a_store_with_everything_in_it_is_meds(tmp_path):
    noon = datetime(2020, 1, 1, 12)
    people = pa.array([1, 2], pa.int64())
    writer = StoreWriter(tmp_path / "store", dataset_name="all")
    writer.add_events(
        pa.table(
            {
                "subject_id": people,
                "time": pa.array([None, noon], pa.timestamp("us")),
                "code": pa.array(["Gender//F", "NOTE"]),
                "numeric_value": pa.nulls(2, pa.float32()),
                "text_value": pa.array([None, "well"], pa.large_string()),
            }
        )
    )
    writer.add_scores(pa.table({"subject_id": people, "score": ["PGS1"] * 2, "z": [0.5, -0.5]}))
    writer.add_wearable(
        "watch", stretches(np.array([1]), np.array([0]), "HR", 1.0, np.ones((1, 3), np.float32))
    )
    writer.set_labels("task", label_table(np.array([1]), np.array([0]), np.array([True])))
    writer.write()
    check_with_meds(tmp_path / "store")
    assert all(list((tmp_path / "store").glob(pattern)) for pattern in FOLDERS)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("omop", "formats/omop_synthea27nj/Synthea27NjParquet_5.4.zip"),
        ("chf_actigraphy", "chf_actigraphy"),
        ("pgsc_calc", "formats/pgs/PGS_SUM_alpha5.txt.gz"),
    ],
)
def test_a_store_of_real_records_is_meds(ingested, source, folder):
    for store in ingested(source, folder):
        check_with_meds(store.path)
