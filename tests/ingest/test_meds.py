from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import StoreError


@pytest.fixture
def dataset(source, tmp_path):
    """A sound MEDS dataset."""
    (path,) = ingest("event_table", source, tmp_path / "dataset", site_column="")
    return path


def event_file(dataset):
    return next(iter(sorted((dataset / "data").rglob("*.parquet"))))


def test_a_dataset_comes_through_unchanged(dataset, tmp_path):
    (path,) = ingest("auto", dataset, tmp_path / "store")
    assert SiteStore.open(path).events().equals(SiteStore.open(dataset).events())
    for split in ("train", "tuning", "held_out"):
        copied = SiteStore.open(path).subjects(split).tolist()
        assert copied == SiteStore.open(dataset).subjects(split).tolist()


def test_a_dataset_without_splits_keeps_its_folders(dataset, tmp_path):
    before = {s: SiteStore.open(dataset).subjects(s).tolist() for s in ("train", "held_out")}
    (dataset / "metadata" / "subject_splits.parquet").unlink()
    (path,) = ingest("meds", dataset, tmp_path / "store")
    assert {s: SiteStore.open(path).subjects(s).tolist() for s in before} == before


def test_a_dataset_in_one_flat_file_gets_the_keyed_hash(dataset, tmp_path):
    events = SiteStore.open(dataset).events()
    shutil.rmtree(dataset / "data")
    (dataset / "data").mkdir()
    pq.write_table(events, dataset / "data" / "0.parquet")
    splits = (dataset / "metadata" / "subject_splits.parquet").read_bytes()
    (dataset / "metadata" / "subject_splits.parquet").unlink()
    (path,) = ingest("meds", dataset, tmp_path / "store")
    assert (path / "metadata" / "subject_splits.parquet").read_bytes() == splits


@pytest.mark.parametrize(
    ("change", "number"),
    [
        (lambda t: t.drop_columns(["time"]), 201),
        (lambda t: t.set_column(0, "subject_id", t["subject_id"].cast(pa.string())), 202),
        (lambda t: t.take(list(range(t.num_rows))[::-1]), 203),
        (lambda t: pa.concat_tables([t, t.slice(t.num_rows - 1)]), 204),
    ],
)
def test_a_dataset_that_breaks_the_standard_is_refused_not_repaired(
    dataset, tmp_path, change, number
):
    file = max((dataset / "data").rglob("*.parquet"), key=lambda f: pq.read_metadata(f).num_rows)
    table = pq.read_table(file)
    assert table.num_rows >= 2
    pq.write_table(change(table), file)
    with pytest.raises(StoreError, match=f"HF-{number}"):
        ingest("meds", dataset, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_subject_in_two_files_is_refused(dataset, tmp_path):
    file = event_file(dataset)
    shutil.copy(file, file.with_name("1.parquet"))
    with pytest.raises(StoreError, match="HF-205"):
        ingest("meds", dataset, tmp_path / "store")


def test_a_half_written_store_is_refused(dataset, tmp_path):
    (dataset / "metadata" / "dataset.json").unlink()
    with pytest.raises(StoreError, match="HF-207"):
        ingest("meds", dataset, tmp_path / "store")
