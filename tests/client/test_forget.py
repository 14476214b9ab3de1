"""A person who withdraws is out of the stores, whole or not at all, and does not come back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client import prepared_study
from healthfm_client.__main__ import main
from healthfm_client.ingest import ingest, ingest_into, update_store
from healthfm_client.ingest.interrupted import work_folders
from healthfm_client.ingest.reader_interface import Site
from healthfm_client.ingest.without_forgotten import without_forgotten
from healthfm_client.local_work import StoreSpec
from healthfm_core.data.store.event_stream import EventStream, RejectedRows, SourcePart
from healthfm_core.data.store.forgotten_people import FORGOTTEN_FILE, ForgottenPeople, forget
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import StoreError

WHO = 7_340_021
OTHERS = (11, 12, 13, 8_000_000)
WORDS = "seen by her aunt"
DAY = datetime(2016, 4, 12)
FUTURE = datetime(2300, 1, 1)


def source(file: Path, people: Sequence[int] = (*OTHERS, WHO)) -> Path:
    """A table of events: one code that all have, one that only one has, one row set aside."""
    rows: list[tuple[int, datetime | None, str, float | None, str | None]] = []
    for person in people:
        rows += [(person, DAY, "LOINC//2345-7", 5.0 + person % 3, None)]
        rows += [(person, FUTURE, "LOINC//2345-7", 1.0, None)]
    rows += [(WHO, DAY, "LOCAL//ONLY-HERS", None, WORDS)] if WHO in people else []
    names = ("subject_id", "time", "code", "numeric_value", "text_value")
    kinds = (pa.int64(), pa.timestamp("us"), pa.string(), pa.float32(), pa.string())
    columns = zip(*rows, strict=True)
    arrays = [pa.array(list(of), kind) for of, kind in zip(columns, kinds, strict=True)]
    pq.write_table(pa.table(arrays, names=names), file)
    return file


def read_in(raw: Path, store: Path, **options: Any) -> Path:
    (path,) = ingest("event_table", raw, store, site_column="", max_set_aside=1, **options)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Events, labels, a wearable and rows set aside of five people."""
    path = read_in(source(tmp_path / "events.parquet"), tmp_path / "store")
    steps = tmp_path / "steps.csv"
    lines = "".join(f"{person},2016-04-12,9000\n" for person in (*OTHERS, WHO))
    steps.write_text("subject_id,date,steps\n" + lines)
    ingest_into("daily_table", steps, path)
    labels = {
        "subject_id": pa.array([11, WHO], pa.int64()),
        "prediction_time": pa.array([DAY, DAY], pa.timestamp("us")),
        "boolean_value": [True, False],
    }
    (path / "labels").mkdir(exist_ok=True)
    pq.write_table(pa.table(labels), path / "labels" / "readmitted.parquet")
    SiteStore.open(path).check()
    return path


def of_everybody(store: Path) -> dict[str, dict[int, list[Any]]]:
    """Return file kind → person → their rows, of every table that names people."""
    found: dict[str, dict[int, list[Any]]] = {}
    for file in sorted(store.rglob("*.parquet")):
        table = pq.ParquetFile(file).read()
        if "subject_id" in table.column_names:
            kind = found.setdefault(file.relative_to(store).parts[0], {})
            for row in table.to_pylist():
                kind.setdefault(row["subject_id"], []).append(row)
    return found


def test_no_file_has_a_trace_of_a_person_and_the_others_have_all_that_they_had(
    store: Path,
) -> None:
    before = of_everybody(store)
    assert set(before) == {"data", "labels", "metadata", "rejected", "wearable"}
    assert all(WHO in rows for rows in before.values())
    removal = forget(store, np.array([WHO]), today=date(2026, 11, 23))
    SiteStore.open(store).check()
    for rows in before.values():
        del rows[WHO]
    assert of_everybody(store) == before
    codes = pq.read_table(store / "metadata/codes.parquet")["code"].to_pylist()
    assert [code for code in codes if code.startswith("LO")] == ["LOINC//2345-7"]
    assert dict(removal.rows) == {
        "events": 2,
        "stretches of a wearable": 1,
        "labels": 1,
        "rows that were set aside": 1,
    }
    said = (store / FORGOTTEN_FILE).read_text()
    assert str(WHO) not in said
    row = {"day": "2026-11-23", "people": 1, "rows": dict(removal.rows)}
    assert json.loads(said)["record"] == [row]
    aside = json.loads((store / "metadata/dataset.json").read_text())["healthfm"]["rejected"]
    assert sum(aside.values()) == len(OTHERS)


def test_a_file_without_the_person_is_not_written_again(store: Path) -> None:
    kept = {
        file: file.stat().st_ino
        for file in store.rglob("*.parquet")
        if WHO not in set(pq.read_table(file).to_pydict().get("subject_id", [WHO]))
    }
    assert kept
    forget(store, np.array([WHO]))
    assert {file: file.stat().st_ino for file in kept} == kept


def test_the_command_says_what_goes_and_does_it_only_when_told_to(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = of_everybody(store)
    words = ["forget", str(WHO), "--store", str(store)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "1 of its people, 2 events, 1 stretches of a wearable, 1 labels" in said
    assert "Nothing was changed" in said
    assert of_everybody(store) == before
    assert main([*words, "--yes"]) == 0
    assert WHO not in SiteStore.open(store).subjects()
    assert main(words) != 0
    error = capsys.readouterr().err
    assert "HF-210" in error
    assert str(WHO) not in error


def test_a_person_is_named_by_the_sources_own_id_with_the_key_of_the_ingest(
    tmp_path: Path,
) -> None:
    raw = source(tmp_path / "events.parquet")
    store = read_in(raw, tmp_path / "store", key=tmp_path / "key")
    words = ["forget", str(WHO), "--store", str(store), "--yes"]
    assert main(words) != 0, "the store's numbers are others"
    assert main([*words, "--key", str(tmp_path / "no-such-key")]) != 0
    assert not (tmp_path / "no-such-key").exists(), "a new key would name nobody"
    assert main([*words, "--key", str(tmp_path / "key")]) == 0
    assert len(SiteStore.open(store).subjects()) == len(OTHERS)


def test_the_last_person_of_a_store_is_not_taken_out_of_it(tmp_path: Path) -> None:
    store = read_in(source(tmp_path / "one.parquet", [WHO]), tmp_path / "store")
    with pytest.raises(StoreError, match=r"HF-206.*nobody would be left"):
        forget(store, np.array([WHO]))
    assert SiteStore.open(store).subjects().tolist() == [WHO]


def test_a_source_read_again_does_not_bring_the_person_back(store: Path, tmp_path: Path) -> None:
    forget(store, np.array([WHO]))
    raw = tmp_path / "events.parquet"
    read_in(raw, store, overwrite=True)
    assert SiteStore.open(store).subjects().tolist() == sorted(OTHERS)
    assert WHO not in of_everybody(store)["rejected"]
    ingest_into("event_table", raw, store, site_column="", max_set_aside=1)
    assert SiteStore.open(store).subjects().tolist() == sorted(OTHERS)
    assert ForgottenPeople.of(store).among(np.array([11, WHO])).tolist() == [WHO]
    read_in(raw, tmp_path / "another")
    assert WHO in SiteStore.open(tmp_path / "another").subjects(), "it never knew the store"


@pytest.mark.parametrize("several", [False, True])
def test_nor_does_an_interrupted_ingest_that_had_read_the_person_already(
    tmp_path: Path, several: bool
) -> None:
    """Of one store, and of several stores that come from one source."""
    raw, out = source(tmp_path / "events.parquet"), tmp_path / "store"
    column = ""
    if several:
        table = pq.read_table(raw)
        pq.write_table(table.append_column("site", pa.array(["north"] * len(table))), raw)
        column = "site"
    options: dict[str, Any] = {"site_column": column, "max_set_aside": 1, "overwrite": True}
    (store,) = ingest("event_table", raw, out, **options)

    def stop(what: str, done: int, total: int) -> None:
        if what == "writing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest("event_table", raw, out, resume=True, show_progress=stop, **options)
    assert work_folders(out)
    assert main(["forget", str(WHO), "--store", str(store), "--yes"]) == 0
    assert work_folders(out) == []
    (again,) = ingest("event_table", raw, out, resume=True, **options)
    assert again == store
    assert SiteStore.open(store).subjects().tolist() == sorted(OTHERS)


def test_whoever_has_nothing_but_rows_that_were_set_aside_is_forgotten_too(tmp_path: Path) -> None:
    raw = source(tmp_path / "events.parquet")
    table = pq.read_table(raw)
    far = pa.array([t == FUTURE or w != WHO for t, w in zip(*_columns(table), strict=True)])
    pq.write_table(table.filter(far), raw)
    store = read_in(raw, tmp_path / "store")
    assert WHO not in SiteStore.open(store).subjects()
    assert WHO in of_everybody(store)["rejected"]
    assert main(["forget", str(WHO), "--store", str(store), "--yes"]) == 0
    assert WHO not in of_everybody(store)["rejected"]


def _columns(table: pa.Table) -> tuple[list[Any], list[Any]]:
    return table["time"].to_pylist(), table["subject_id"].to_pylist()


KILLED = """
import os, signal, sys
from pathlib import Path
from healthfm_client.__main__ import main
from healthfm_core.data.store import draft_folder
rename, left = Path.rename, int(sys.argv[1])
def dying(self, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return rename(self, target)
Path.rename = dying
draft_folder.names_swapped = lambda *_: False  # as on a file system that cannot
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("renames", [0, 1])
def test_whoever_is_killed_meanwhile_leaves_a_whole_store(store: Path, renames: int) -> None:
    """Before the old store is moved away, and between that and the new one's coming."""
    before = of_everybody(store)
    words = ["forget", str(WHO), "--store", str(store), "--yes"]
    done = subprocess.run([sys.executable, "-c", KILLED, str(renames), *words], check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.exists() == (renames == 0)
    again = ["forget", str(WHO), "--store", str(store)]
    assert main(again) == 0, "what was killed is put right by the next"
    assert of_everybody(store) == before
    assert main([*again, "--yes"]) == 0
    assert WHO not in SiteStore.open(store).subjects()
    assert [path.name for path in store.parent.iterdir() if "partial" in path.name] == []


class Reading:
    """Local work that reads the stores and nothing else."""

    def load(self, stores: Sequence[StoreSpec], study: Any) -> list[int]:
        return [n for spec in stores for n in SiteStore.open(spec.path).subjects().tolist()]


class AStudy:
    hash = "a study"


class ANode:
    def __init__(self, store: Path) -> None:
        self.stores = (StoreSpec(store, ("ehr",)),)


@pytest.fixture
def prepared(store: Path) -> Any:
    """What a site's process has read of the store for a study."""
    prepared_study._loaded.clear()
    node: Any = ANode(store)
    study: Any = AStudy()
    work: Any = Reading()
    yield lambda: prepared_study.load(work, node, study).data
    prepared_study._loaded.clear()


def test_a_site_in_the_middle_of_a_run_trains_on_nobody_who_was_forgotten(
    store: Path, prepared: Any
) -> None:
    first = prepared()
    assert WHO in first
    assert prepared() is first, "the store is as it was"
    forget(store, np.array([WHO]))
    assert prepared() == sorted(OTHERS)


def test_and_on_whoever_an_update_brought(tmp_path: Path, store: Path, prepared: Any) -> None:
    first = prepared()
    raw = source(tmp_path / "more.parquet", (11, 9_000_000))
    options: dict[str, Any] = {"site_column": "", "max_set_aside": 1}
    update_store("event_table", raw, store, "rows", **options)
    assert 9_000_000 not in first
    assert prepared() == sorted([*first, 9_000_000])


def test_an_update_brings_nothing_of_who_was_forgotten(tmp_path: Path, store: Path) -> None:
    forget(store, np.array([WHO]))
    before = of_everybody(store)
    raw = source(tmp_path / "more.parquet", (WHO,))
    options: dict[str, Any] = {"site_column": "", "max_set_aside": 1}
    for how in ("rows", "people"):
        update_store("event_table", raw, store, how, **options)
        assert of_everybody(store) == before


def test_raw_rows_that_a_reader_set_aside_are_none_of_who_was_forgotten() -> None:
    raw = pa.table({"subject_id": pa.array([WHO, 11, None], pa.int64()), "raw": ["a", "b", "c"]})
    part = SourcePart("all", 3, [RejectedRows("no_date", raw)])
    forgotten = ForgottenPeople(b"key").with_more(np.array([WHO]), {})
    site = without_forgotten(Site(None, stream=EventStream([part], 0)), forgotten)
    assert site.stream is not None
    (kept,) = site.stream.parts[0].tables
    assert isinstance(kept, RejectedRows)
    assert kept.rows["raw"].to_pylist() == ["b", "c"]


def test_nor_on_a_store_that_is_there_no_more(store: Path, prepared: Any) -> None:
    prepared()
    os.rename(store, store.with_name("withdrawn"))
    with pytest.raises(StoreError, match="HF-208"):
        prepared()
