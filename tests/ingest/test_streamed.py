"""Stores whose events come as a stream: gathered on disk, cleaned, written a group at a time."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest.pipeline import write_site
from healthfm_client.ingest.reader_interface import Site
from healthfm_core.data.store import event_spool as spool_module
from healthfm_core.data.store.draft_folder import draft_beside, publish
from healthfm_core.data.store.event_spool import cell_of
from healthfm_core.data.store.event_stream import EventStream, RejectedRows, SourcePart
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.errors import IngestError

NOW_US = 1_700_000_000_000_000


def some(seed: int, rows: int = 2_000, people: int = 300) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "subject_id": rng.integers(0, people, rows),
            "time": pa.array(rng.integers(0, 10**15, rows)).cast(pa.timestamp("us")),
            "code": [f"C{n}" for n in rng.integers(0, 9, rows)],
            "numeric_value": rng.random(rows, np.float32),
        }
    )


def stream_of(*tables: pa.Table | RejectedRows, rows: int = 1) -> EventStream:
    parts = [SourcePart(str(n), rows, [t]) for n, t in enumerate(tables)]
    return EventStream(tuple(parts), NOW_US)


def store_of(path: Path, stream: EventStream, work: Path | None = None) -> SiteStore:
    with draft_beside(path) as draft:
        write_site(Site("s", stream=stream), draft, "s", work)
        publish(draft, path)
    return SiteStore.open(path)


def data_files(store: SiteStore) -> dict[str, bytes]:
    return {str(f.relative_to(store.path)): f.read_bytes() for f in store.path.rglob("*.parquet")}


@pytest.fixture
def small(monkeypatch):
    """A budget of 700 rows, groups of 1,000."""
    monkeypatch.setattr(spool_module, "ROWS_IN_MEMORY", 700)
    monkeypatch.setattr(spool_module, "EVENTS_PER_GROUP", 1_000)


@pytest.mark.parametrize("rows_said", [1, 2_000, 1_000_000])
def test_on_disk_and_in_memory_give_the_same_events(tmp_path, small, rows_said):
    tables = [some(seed) for seed in range(3)]
    streamed = store_of(tmp_path / "a", stream_of(*tables, rows=rows_said))
    streamed.check()
    writer = StoreWriter(tmp_path / "b", dataset_name="s")
    writer.add_events(pa.concat_tables(tables))
    writer.write()
    whole = SiteStore.open(tmp_path / "b")
    assert len(list((tmp_path / "a" / "data").rglob("*.parquet"))) > 8
    assert streamed.events().equals(whole.events())
    assert streamed.subjects("tuning").tolist() == whole.subjects("tuning").tolist()


def test_what_cannot_be_true_is_set_aside_whatever_part_it_came_in(tmp_path, small):
    late = some(1, 5).set_column(1, "time", pa.array([NOW_US + 1] * 5).cast(pa.timestamp("us")))
    odd = RejectedRows("no_date", pa.table({"raw": ["x", "y"]}))
    store = store_of(tmp_path / "s", stream_of(some(0), late, some(0), odd))
    assert store.rejected == {"after_today": 5, "duplicate": 2_000, "no_date": 2}
    assert store.events().num_rows == 2_000
    aside = duckdb.sql(f"select count(*) from '{tmp_path}/s/rejected/duplicate.parquet'")
    assert aside.fetchall() == [(2_000,)]


def test_a_correction_changes_the_files_of_the_people_it_corrects(tmp_path, small):
    table = some(0, 6_000)
    before = store_of(tmp_path / "a", stream_of(table))
    number = table["numeric_value"].to_numpy().copy()
    number[17] += 1
    after = store_of(
        tmp_path / "b", stream_of(table.set_column(3, "numeric_value", pa.array(number)))
    )
    one, other = data_files(before), data_files(after)
    assert set(one) == set(other)
    assert len([name for name in one if one[name] != other[name]]) == 1


def test_who_is_added_moves_nobody_and_changes_their_own_file_alone(tmp_path, small):
    table = some(0, 6_000)
    before = store_of(tmp_path / "a", stream_of(table))
    newcomer = some(1, 3, 1).set_column(0, "subject_id", pa.array([10_001] * 3))
    after = store_of(tmp_path / "b", stream_of(pa.concat_tables([newcomer, table])))
    one, other = data_files(before), data_files(after)
    changed = {n for n in one if one[n] != other[n]} | (set(other) ^ set(one))
    assert {n for n in changed if n.startswith("data/")} == {
        n for n in other if n.startswith("data/") and 10_001 in subjects_in(after.path / n)
    }
    for split in ("train", "tuning", "held_out"):
        assert set(before.subjects(split)) == set(after.subjects(split)) - {10_001}


def subjects_in(file: Path) -> list[int]:
    return pq.read_table(file)["subject_id"].to_pylist()


def test_reading_goes_on_after_the_last_whole_part(tmp_path, small):
    tables = [some(seed) for seed in range(3)]
    read: list[str] = []

    def parts(fails: bool):
        def one(n: int):
            read.append(str(n))
            yield tables[n].slice(0, 900)
            if fails and n == 1:
                raise KeyboardInterrupt
            yield tables[n].slice(900)

        return EventStream(tuple(SourcePart(str(n), 2_000, one(n)) for n in range(3)), NOW_US)

    with pytest.raises(KeyboardInterrupt):
        store_of(tmp_path / "s", parts(fails=True), work=tmp_path / "work")
    assert not (tmp_path / "s").exists()
    resumed = store_of(tmp_path / "s", parts(fails=False), work=tmp_path / "work")
    assert read == ["0", "1", "1", "2"]
    assert data_files(resumed) == data_files(store_of(tmp_path / "t", stream_of(*tables)))


@pytest.mark.parametrize("lost", ["journal.json", "0.arrows"])
def test_what_a_machine_that_went_off_lost_is_read_again(tmp_path, lost):
    spool = spool_module.EventSpool(tmp_path / "spool", "s")
    spool.add(some(0))
    spool.name_codes({"A": "first", "B": ""})
    spool.name_codes({"A": "second", "B": "b"})
    spool.not_read.update({"Claim": 2})
    spool.source_codes.update({("LOINC//1", "LAB//A"): 3})
    spool.commit("0")
    kept = spool_module.EventSpool(tmp_path / "spool", "s", resume=True)
    assert (kept.done, kept.texts) == ({"0"}, {"A": "first", "B": "b"})
    assert kept.not_read == {"Claim": 2}
    assert kept.source_codes == {("LOINC//1", "LAB//A"): 3}
    file = tmp_path / "spool" / lost
    file.write_bytes(file.read_bytes()[:-9])
    again = spool_module.EventSpool(tmp_path / "spool", "s", resume=True)
    assert (again.done, again.rows) == (frozenset(), 0)


@pytest.mark.parametrize("bound", ["CODES_AT_MOST", "CODE_CHARACTERS_AT_MOST"])
def test_texts_in_place_of_codes_are_refused(tmp_path, monkeypatch, bound):
    monkeypatch.setattr(spool_module, bound, 8)
    with pytest.raises(IngestError, match="HF-309"):
        store_of(tmp_path / "s", stream_of(some(0)))
    assert list(tmp_path.iterdir()) == []


def test_large_texts_go_to_disk_early_and_into_small_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module, "BYTES_IN_MEMORY", 1 << 20)
    monkeypatch.setattr(spool_module, "BYTES_PER_GROUP", 1 << 20)
    notes = pa.array([f"{n} " * 1_000 for n in range(2_000)], pa.large_string())
    table = some(0).append_column("text_value", notes)
    waiting: list[int] = []
    monkeypatch.setattr(spool_module, "append_rows", lambda path, rows: waiting.append(rows.nbytes))
    spool = spool_module.EventSpool(tmp_path / "spool", "s")
    for start in range(0, 2_000, 200):
        spool.add(table.slice(start, 200))
    assert len(waiting) == 5
    assert max(waiting) < 3 << 20
    assert len(spool.groups()) == 16


def test_a_full_disk_is_said_before_it_happens(tmp_path, small, monkeypatch):
    monkeypatch.setattr(spool_module, "LEAST_FREE_BYTES", 1 << 62)
    with pytest.raises(IngestError, match="HF-311"):
        store_of(tmp_path / "s", stream_of(some(0)))
    assert list(tmp_path.iterdir()) == []


def test_cells_are_even_and_do_not_move():
    cells = np.bincount(cell_of(np.arange(1_024_000)), minlength=1024)
    assert cells.min() > 850
    assert cells.max() < 1150
    assert cell_of(np.array([1, 2, -1])).tolist() == [578, 515, 471]
