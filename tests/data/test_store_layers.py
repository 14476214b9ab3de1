"""A store with updates shows every event that counts, once, to whoever reads it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.ingest import ingest, ingest_into
from healthfm_client.site_store.current_events import view_current_events
from healthfm_core.data.store.compacted_store import compact, compacted, share_in_updates
from healthfm_core.data.store.forgotten_people import forget, what_goes
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_layers import replaced_by, update_folders
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.errors import StoreError

EARLY, LATE = datetime(2020, 1, 1), datetime(2020, 1, 9)
Row = tuple[int, datetime | None, str, float | None, str | None]
CURRENT = [(1, "A"), (1, "B"), (2, "C"), (3, "A")]
"""Of `layered`: 1 has a row more, 2 another in place of those before, 3 what they had."""


@pytest.fixture
def layered(tmp_path: Path, events: Any) -> Path:
    """Three people; one update added a row to 1, the next replaced 2."""
    store = tmp_path / "store"
    writer = StoreWriter(store, dataset_name="store")
    before: list[Row] = [(n, EARLY, "A", 1.0, None) for n in (1, 2, 3)]
    writer.add_events(events([*before, (2, EARLY, "GONE", None, None)]))
    writer.set_splits({1: "train", 2: "train", 3: "held_out"})
    writer.write()
    update(store, 1, events([(1, LATE, "B", 2.0, None), (2, LATE, "B", 2.0, None)]))
    update(store, 2, events([(2, LATE, "C", 3.0, None)]), replaced=(2,))
    return store


def update(store: Path, number: int, rows: pa.Table, replaced: tuple[int, ...] = ()) -> None:
    folder = store / "updates" / str(number)
    (folder / "data" / "train").mkdir(parents=True)
    pq.write_table(rows, folder / "data" / "train" / "0.parquet")
    if replaced:
        people = {"subject_id": pa.array(replaced, pa.int64())}
        pq.write_table(pa.table(people), folder / "replaced.parquet")


def codes(rows: pa.Table) -> list[tuple[int, str]]:
    return list(zip(rows["subject_id"].to_pylist(), rows["code"].to_pylist(), strict=True))


def test_each_update_adds_its_rows_and_takes_back_those_of_whom_it_replaces(layered: Path) -> None:
    store = SiteStore.open(layered)
    store.check()
    assert codes(store.events()) == CURRENT
    assert codes(store.events("train")) == CURRENT[:3]
    assert codes(store.events("held_out")) == CURRENT[3:]
    assert codes(store.narrowed(subjects=[2]).events()) == [(2, "C")]
    subjects, first = store.first_times("A")
    assert subjects.tolist() == [1, 3]
    assert first.tolist() == [int(np.datetime64(EARLY, "us").astype(np.int64))] * 2
    assert store.set_aside.kept == 4
    assert store.summary()["events"] == 4
    assert share_in_updates(layered) == 3 / 4


def test_updates_go_by_their_numbers_and_not_by_their_letters(layered: Path, events: Any) -> None:
    update(layered, 10, events([(2, LATE, "D", 3.0, None)]), replaced=(2,))
    assert [folder.name for folder in update_folders(layered)] == ["1", "2", "10"]
    assert codes(SiteStore.open(layered).narrowed(subjects=[2]).events()) == [(2, "D")]


def test_a_database_sees_the_same_events(layered: Path) -> None:
    with duckdb.connect() as database:
        view_current_events(database, layered)
        found = database.execute("SELECT subject_id, code FROM events ORDER BY ALL").fetchall()
    assert found == CURRENT


def test_an_event_that_is_in_two_layers_is_no_sound_store(layered: Path, events: Any) -> None:
    update(layered, 3, events([(1, EARLY, "A", 1.0, None)]))
    with pytest.raises(StoreError, match=r"HF-204.*updates"):
        SiteStore.open(layered).check()
    with pytest.raises(StoreError, match=r"HF-204.*nothing was changed"), compacted(layered):
        pass
    assert [path.name for path in layered.parent.iterdir()] == ["store"]


def test_put_together_its_own_files_have_every_event_and_the_rest_is_the_same(
    layered: Path,
) -> None:
    draft = layered.with_name("draft")
    draft.mkdir()
    compact(layered, draft)
    store = SiteStore.open(draft)
    store.check()
    assert not update_folders(draft)
    assert codes(store.events()) == CURRENT
    found = duckdb.sql(f"select subject_id, code from '{draft}/data/*/*.parquet' order by all")
    assert found.fetchall() == CURRENT
    same = [file.relative_to(layered) for file in (layered / "metadata").iterdir()]
    assert len(same) >= 3
    assert all((layered / f).stat().st_ino == (draft / f).stat().st_ino for f in same)
    SiteStore.open(layered).check()
    assert codes(SiteStore.open(layered).events()) == CURRENT


def test_what_has_no_update_is_its_own_compacted_copy(layered: Path, tmp_path: Path) -> None:
    with compacted(layered) as whole:
        assert whole != layered
        with compacted(whole) as again:
            assert again == whole
    assert not whole.exists()


@pytest.mark.parametrize(("who", "rows"), [(2, 4), (1, 2)])
def test_whoever_is_forgotten_is_in_no_layer_and_the_others_are_as_they_were(
    layered: Path, who: int, rows: int
) -> None:
    assert what_goes(layered, np.array([who])).rows == {"events": rows}
    forget(layered, np.array([who]))
    assert codes(SiteStore.open(layered).events()) == [row for row in CURRENT if row[0] != who]
    for file in layered.rglob("*.parquet"):
        table = pq.ParquetFile(file).read()
        if "subject_id" in table.column_names:
            assert who not in table["subject_id"].to_pylist()


def test_a_store_that_is_read_as_a_source_or_added_to_gives_what_counts(
    layered: Path, tmp_path: Path
) -> None:
    (copied,) = ingest("meds", layered, tmp_path / "copied")
    assert codes(SiteStore.open(copied).events()) == CURRENT
    (tmp_path / "days.csv").write_text("id,date,steps\n1,2016-04-12,10\n")
    ingest_into("daily_table", tmp_path / "days.csv", layered)
    store = SiteStore.open(layered)
    store.check()
    assert codes(store.events()) == CURRENT
    assert store.devices == ("per_day",)
    assert not update_folders(layered)


def test_labels_are_asked_of_every_event_that_counts(layered: Path) -> None:
    pytest.importorskip(
        "aces",
        reason="es-aces, which reads ACES task files, is not installed: healthfm[labels] has it",
    )
    from healthfm_client.site_store.aces_labels import Definition

    file = layered.parent / "task.yaml"
    file.write_text(
        "predicates:\n  trigger_a: {code: A}\n  seen_b: {code: B}\ntrigger: trigger_a\n"
        "windows:\n  later:\n    start: trigger\n    end: start + 30d\n    start_inclusive: False\n"
        "    end_inclusive: True\n    label: seen_b\n    index_timestamp: start\n"
    )
    labels = Definition(file).labels(SiteStore.open(layered)).labels
    answers = zip(
        labels["subject_id"].to_pylist(), labels["boolean_value"].to_pylist(), strict=True
    )
    assert dict(answers)[1] is True, "the update's row answers"
    assert 2 not in labels["subject_id"].to_pylist(), "what was replaced asks nothing"
    assert [path.name for path in layered.parent.iterdir() if path.is_dir()] == ["store"]


def test_a_list_of_people_that_cannot_be_read_is_no_empty_one(layered: Path) -> None:
    assert replaced_by(layered / "updates" / "2").tolist() == [2]
    (layered / "updates" / "2" / "replaced.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="HF-209"):
        SiteStore.open(layered).events()
