"""``ingest … --update``: what is new goes into the store as a whole reading would have it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from healthfm_client.__main__ import main
from healthfm_client.ingest import ingest, ingest_into, update_store
from healthfm_client.ingest import update_store as update_module
from healthfm_core.data.store.forgotten_people import forget
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_layers import update_folders
from healthfm_core.data.store.store_writer import add_labels
from healthfm_core.errors import IngestError

BORN = datetime(1950, 1, 1)
DAY = datetime(2020, 1, 1)
Row = tuple[int, datetime | None, str, float | None]
NAMES = ("subject_id", "time", "code", "numeric_value")
FIRST: list[Row] = [
    *((n, BORN, "MEDS_BIRTH", None) for n in range(1, 9)),
    *((n, None, "Gender//F", None) for n in range(1, 9)),
    *((n, DAY + timedelta(days=n), "A", float(n)) for n in range(1, 9)),
    *((n, DAY + timedelta(days=99), "B", 1.0) for n in range(1, 9)),
    (1, DAY, "A", -1.0),
]


def table(file: Path, rows: Sequence[Row]) -> Path:
    """Write an event table."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kinds = (pa.int64(), pa.timestamp("us"), pa.string(), pa.float32())
    columns = zip(*rows, strict=True)
    arrays = [pa.array(list(of), kind) for of, kind in zip(columns, kinds, strict=True)]
    pq.write_table(pa.table(arrays, names=NAMES), file)
    return file


def update(path: Path, store: Path, how: Any = "rows", **options: Any) -> list[str]:
    """Update a store by an event table; return what was said."""
    said: list[str] = []
    update_store("event_table", path, store, how, site_column="", notify=said.append, **options)
    SiteStore.open(store).check()
    return said


def held(store: Path) -> list[tuple[Any, ...]]:
    """Return every event of a store, in an order of their own."""
    rows = SiteStore.open(store).events().to_pylist()
    return sorted(map(repr, ([row[name] for name in NAMES] for row in rows)))


def inodes(store: Path) -> dict[str, int]:
    files = (file for file in store.rglob("*") if file.is_file())
    return {file.relative_to(store).as_posix(): file.stat().st_ino for file in files}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight people, read from a folder with one file."""
    monkeypatch.setattr(update_module_of(), "MOST_IN_UPDATES", 9.0)
    table(tmp_path / "in" / "2020.parquet", FIRST)
    (path,) = ingest("event_table", tmp_path / "in", tmp_path / "store", site_column="")
    return path


def update_module_of() -> Any:
    return sys.modules[update_module.__module__]


NEW: list[Row] = [
    (1, DAY + timedelta(days=400), "A", 5.0),
    (1, DAY + timedelta(days=1), "A", 1.0),  # is there
    (2, datetime(1949, 1, 1), "A", 2.0),  # before a birth that only the store knows
    (3, DAY + timedelta(days=3), "A", 4.0),  # another value at the same time: one more
    (4, datetime(1951, 1, 1), "MEDS_BIRTH", None),  # the store's stays
    (4, None, "Gender//F", None),  # is there
    (5, None, "Race//X", None),
    (6, datetime(2999, 1, 1), "A", 1.0),
    (7, DAY + timedelta(days=500), "C", 1.0),
    (7, DAY + timedelta(days=500), "C", 1.0),  # twice in the new file itself
    (20, BORN, "MEDS_BIRTH", None),
    (20, DAY, "A", 1.0),
    (20, datetime(1940, 1, 1), "A", 1.0),
]


def test_new_rows_make_the_store_that_a_reading_of_all_would_make(
    tmp_path: Path, store: Path
) -> None:
    before = inodes(store)
    said = update(table(tmp_path / "more" / "2021.parquet", NEW), store, max_set_aside=1)
    (whole,) = ingest(
        "event_table",
        table(tmp_path / "all.parquet", [*FIRST, *(r for r in NEW if r[0] != 4)]),
        tmp_path / "whole",
        site_column="",
        max_set_aside=1,
    )
    assert held(store) == held(whole)
    one, other = SiteStore.open(store), SiteStore.open(whole)
    assert one.subjects().tolist() == other.subjects().tolist()
    for split in ("train", "tuning", "held_out"):
        assert one.subjects(split).tolist() == other.subjects(split).tolist()
    assert one.rejected == {"after_today": 1, "before_birth": 2, "duplicate": 1}
    assert other.rejected == {"after_today": 1, "before_birth": 2, "duplicate": 2}
    codes = [pq.read_table(path / "metadata/codes.parquet")["code"] for path in (store, whole)]
    assert codes[0].equals(codes[1])
    assert said == [
        "Of 8 people of the source the store had 7.",
        "6 rows are new; 3 the store had.",
        "2 codes are new to the store.",
    ]
    assert {name for name in before if before[name] != inodes(store)[name]} == {
        "metadata/dataset.json",
        "metadata/codes.parquet",
        "metadata/subject_splits.parquet",
    }


def test_in_a_folder_that_grows_only_what_is_new_is_read(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from healthfm_client.ingest.readers import event_table

    opened: list[str] = []
    read = event_table.read_batches

    def noted(file: Path, *args: Any, **options: Any) -> Any:
        opened.append(file.name)
        return read(file, *args, **options)

    monkeypatch.setattr(event_table, "read_batches", noted)
    table(tmp_path / "in" / "2021.parquet", [(1, DAY, "D", 1.0)])
    assert update(tmp_path / "in", store)[1] == "1 rows are new; 0 the store had."
    assert opened == ["2021.parquet"]
    before = inodes(store)
    assert update(tmp_path / "in", store) == ["Nothing in it is new to the store."]
    assert opened == ["2021.parquet"]
    assert inodes(store) == before, "nothing was new, and nothing was written"


def test_a_file_that_was_read_and_has_changed_is_refused(tmp_path: Path, store: Path) -> None:
    table(tmp_path / "in" / "2020.parquet", [*FIRST[:-1], (1, DAY, "A", -2.0)])
    before = held(store), inodes(store)
    with pytest.raises(IngestError, match=r"HF-319\]: 2020.parquet: .* --update people"):
        update(tmp_path / "in", store)
    assert (held(store), inodes(store)) == before


def test_the_same_rows_again_under_another_name_change_nothing(tmp_path: Path, store: Path) -> None:
    before = held(store)
    said = update(table(tmp_path / "again.parquet", FIRST), store)
    assert said == ["Nothing in it is new to the store."]
    assert held(store) == before
    assert not update_folders(store)


def test_a_delta_given_twice_under_another_name_changes_nothing(
    tmp_path: Path, store: Path
) -> None:
    """Rows that it has twice are not added, and those set aside are not counted, again."""
    update(table(tmp_path / "a.parquet", NEW), store, max_set_aside=1)
    before = held(store), SiteStore.open(store).rejected, inodes(store)
    more: list[Row] = [*NEW, NEW[-5], NEW[-5]]
    assert update(table(tmp_path / "b.parquet", more), store, max_set_aside=1) == [
        "Nothing in it is new to the store."
    ]
    assert (held(store), SiteStore.open(store).rejected, inodes(store)) == before
    one_more: Row = (6, datetime(2998, 1, 1), "A", 1.0)
    update(table(tmp_path / "c.parquet", [*NEW, one_more]), store, max_set_aside=1)
    assert SiteStore.open(store).rejected == {**before[1], "after_today": 2}
    assert before[0] == held(store)


def test_rows_that_the_store_had_count_among_those_of_which_some_are_set_aside(
    tmp_path: Path, store: Path
) -> None:
    many: list[Row] = [(1, DAY + timedelta(hours=n), "LAB//A", 1.0) for n in range(400)]
    wrong: list[Row] = [(1, datetime(2999, 1, 1 + n), "LAB//A", 1.0) for n in range(20)]
    alone: list[Row] = [(1, datetime(2999, 2, 1 + n), "DX//A", 1.0) for n in range(20)]
    update(table(tmp_path / "a.parquet", many), store)
    assert update(table(tmp_path / "b.parquet", [*many, *wrong]), store)[1][:14] == "0 rows are new"
    with pytest.raises(IngestError, match=r"HF-315\].*of DX nothing is left"):
        update(table(tmp_path / "c.parquet", [*many, *alone]), store)
    with pytest.raises(IngestError, match=r"HF-315\].*20 of 21 rows"):
        update(table(tmp_path / "d.parquet", [*many[:1], *wrong]), store)


def test_people_given_anew_are_as_they_are_given_and_the_others_as_they_were(
    tmp_path: Path, store: Path
) -> None:
    before = [row for row in held(store) if not row.startswith("[1,")]
    labels = {"subject_id": [1, 2], "prediction_time": [DAY, DAY], "boolean_value": [True, False]}
    add_labels(store, "dies", pa.table(labels, schema=LABELS))
    splits = [SiteStore.open(store).subjects(s).tolist() for s in ("train", "tuning", "held_out")]
    corrected: list[Row] = [(1, datetime(1960, 1, 1), "MEDS_BIRTH", None), (1, DAY, "A", 7.0)]
    said = update(table(tmp_path / "more.parquet", corrected), store, "people")
    assert held(store) == sorted([*map(repr, map(list, corrected)), *before])
    opened = SiteStore.open(store)
    assert [opened.subjects(s).tolist() for s in ("train", "tuning", "held_out")] == splits
    assert opened.labels("dies")["boolean_value"].to_pylist() == [True, False]
    assert said[1] == "2 rows are in the place of what the store had of 1 people."
    again: list[Row] = [(1, DAY, "A", 8.0), (30, DAY, "A", 1.0)]
    update(table(tmp_path / "more.parquet", again), store, "people")
    assert held(store) == sorted([*map(repr, map(list, again)), *before])


LABELS = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("prediction_time", pa.timestamp("us")),
        ("boolean_value", pa.bool_()),
    ]
)


def test_whoever_has_no_row_that_can_be_true_keeps_what_the_store_has(
    tmp_path: Path, store: Path
) -> None:
    before = held(store)
    file = table(tmp_path / "more.parquet", [(1, datetime(2999, 1, 1), "A", 7.0)])
    update(file, store, "people", max_set_aside=1)
    assert held(store) == before
    assert SiteStore.open(store).rejected == {"after_today": 1}


def test_rows_set_aside_of_who_is_replaced_are_not_counted_twice(
    tmp_path: Path, store: Path
) -> None:
    rows: list[Row] = [(n, datetime(2999, 1, n), "A", 7.0) for n in (1, 2)]
    update(table(tmp_path / "a.parquet", [*rows, (1, DAY, "A", 3.0)]), store, max_set_aside=1)
    assert SiteStore.open(store).rejected == {"after_today": 2}
    file = table(tmp_path / "b.parquet", [rows[0], (1, DAY, "A", 4.0)])
    update(file, store, "people", max_set_aside=1)
    assert SiteStore.open(store).rejected == {"after_today": 2}
    update(table(tmp_path / "c.parquet", [(n, DAY, "A", 4.0) for n in (1, 2)]), store, "people")
    assert SiteStore.open(store).rejected == {}
    assert list((store / "rejected").iterdir()) == []


def test_who_is_gone_from_the_source_stays_unless_that_is_asked(
    tmp_path: Path, store: Path
) -> None:
    forget(store, np.array([8]))
    left = [row for row in FIRST if row[0] != 3]
    file = table(tmp_path / "all.parquet", left)
    update(file, store, "people")
    assert 3 in SiteStore.open(store).subjects()
    said = update(file, store, "people", remove_absent=True)
    assert SiteStore.open(store).subjects().tolist() == [1, 2, 4, 5, 6, 7]
    assert held(store) == sorted(repr(list(row)) for row in left if row[0] != 8)
    assert said[-1] == "1 people are not in the source any more, and were taken out."
    update(table(tmp_path / "back.parquet", [(3, DAY, "A", 1.0), (8, DAY, "A", 1.0)]), store)
    assert 3 in SiteStore.open(store).subjects(), "who came back is there again"
    assert 8 not in SiteStore.open(store).subjects(), "who was forgotten is not"


def test_a_part_of_the_source_removes_nobody(tmp_path: Path, store: Path) -> None:
    file = table(tmp_path / "part.parquet", [(1, DAY, "A", 1.0)])
    before = held(store)
    with pytest.raises(IngestError, match=r"HF-321\]: store: 7 of its 8 people"):
        update(file, store, "people", remove_absent=True)
    assert held(store) == before


def test_who_was_forgotten_stays_out(tmp_path: Path, store: Path) -> None:
    forget(store, np.array([3]))
    for how in ("rows", "people"):
        file = table(tmp_path / "more.parquet", [(3, DAY, "A", 1.0), (4, DAY, how, 1.0)])
        update(file, store, how)
        file.unlink()
        assert 3 not in SiteStore.open(store).subjects()
    assert SiteStore.open(store).narrowed(subjects=[4]).events()["code"].to_pylist() == ["people"]


def test_updates_are_put_together_when_they_are_many(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_module_of(), "MOST_IN_UPDATES", 2 / len(FIRST))
    rows: list[Row] = [(1, DAY + timedelta(days=n), "E", 1.0) for n in range(3)]
    for n, row in enumerate(rows):
        said = update(table(tmp_path / f"{n}.parquet", [row]), store)
        assert len(update_folders(store)) == (n + 1) % 3
        assert ("put together" in said[-1]) == (n == 2)
    assert held(store) == sorted(repr(list(row)) for row in [*FIRST, *rows])
    assert pq.read_table(store / "data").num_rows == len(FIRST) + 3


def test_another_mapping_is_refused_and_a_longer_table_of_people_is_not(tmp_path: Path) -> None:
    codes, people, file = (tmp_path / name for name in ("map.csv", "people.csv", "a.parquet"))
    codes.write_text("source_code,code\nA,LOINC//1-1\n")
    people.write_text("id,subject_id\n1,101\n2,102\n")
    given: dict[str, Any] = {"map": (codes,), "subjects": people}
    table(file, [(1, DAY, "A", 1.0)])
    (store,) = ingest("event_table", file, tmp_path / "store", site_column="", **given)
    people.write_text("id,subject_id\n1,101\n2,102\n3,103\n")
    update(table(tmp_path / "b.parquet", [(3, DAY, "A", 2.0)]), store, **given)
    assert held(store)[1] == repr([103, DAY, "LOINC//1-1", 2.0])
    before = inodes(store)
    codes.write_text("source_code,code\nA,LOINC//2-2\n")
    with pytest.raises(IngestError, match=r"HF-320\]: store: .*another --map"):
        update(table(tmp_path / "c.parquet", [(3, DAY, "A", 2.0)]), store, **given)
    assert inodes(store) == before


@pytest.mark.parametrize("change", ["options", "reader", "unknown"])
def test_another_source_is_refused(tmp_path: Path, store: Path, change: str) -> None:
    file = table(tmp_path / "more.parquet", [(1, DAY, "A", 1.0)])
    key = tmp_path / "key"
    if change == "options":
        with pytest.raises(IngestError, match=r"HF-320\]: store: .*another --key"):
            update(file, store, key=key)
    elif change == "reader":
        (tmp_path / "days.csv").write_text("id,date,steps\n1,2016-04-12,10\n")
        with pytest.raises(IngestError, match=r"HF-320\]: store: it was read by event_table"):
            update_store("daily_table", tmp_path / "days.csv", store, "rows")
    else:
        marker = store / "metadata" / "dataset.json"
        marker.write_text(marker.read_text().replace('"sources"', '"other"'))
        with pytest.raises(IngestError, match=r"HF-320\]: store: it does not say"):
            update(file, store)


def test_of_two_sources_of_records_nobody_is_replaced(tmp_path: Path, store: Path) -> None:
    other = tmp_path / "cohort.csv"
    other.write_text("id,date,steps\n1,2016-04-12,10\n")
    ingest_into("daily_table", other, store)
    file = table(tmp_path / "more.parquet", [(1, DAY, "A", 7.0)])
    update(file, store, "people")
    assert SiteStore.open(store).devices == ("per_day",), "a watch is another kind, and stays"
    with pytest.raises(IngestError, match=r"HF-320.*several sources"):
        update(file, store, "people", remove_absent=True)
    ingest_into("meds", store_of_one(tmp_path), store)
    with pytest.raises(IngestError, match=r"HF-320.*events of several sources"):
        update(file, store, "people")
    assert update(table(tmp_path / "b.parquet", [(1, DAY, "Z", 7.0)]), store)[1][:1] == "1"


def store_of_one(tmp_path: Path) -> Path:
    file = table(tmp_path / "one.parquet", [(1, DAY, "OTHER", 1.0)])
    (path,) = ingest("event_table", file, tmp_path / "one", site_column="")
    return path


def test_scores_stay_beside_people_who_are_given_anew_and_the_other_way_round(
    tmp_path: Path, store: Path
) -> None:
    ingest_into("pgsc_calc", scores(tmp_path / "a_pgs.txt", {1: 0.5, 2: 0.7}), store)
    update(table(tmp_path / "more.parquet", [(1, DAY, "A", 7.0)]), store, "people")
    assert of_first(store) == [("PRS//PGS000018", 0.5), ("A", 7.0)]
    update_store("pgsc_calc", scores(tmp_path / "b_pgs.txt", {1: 0.75}), store, "people")
    assert of_first(store) == [("PRS//PGS000018", 0.75), ("A", 7.0)]


def scores(file: Path, z: dict[int, float]) -> Path:
    lines = "".join(f"site\t{person}\tPGS000018\t1.0\t{of}\n" for person, of in z.items())
    file.write_text("sampleset\tIID\tPGS\tSUM\tZ_norm2\n" + lines)
    return file


def of_first(store: Path) -> list[tuple[str, float]]:
    rows = SiteStore.open(store).narrowed(subjects=[1]).events()
    return list(zip(rows["code"].to_pylist(), rows["numeric_value"].to_pylist(), strict=True))


def test_scores_that_hang_on_who_else_is_in_the_source_are_not_updated(
    tmp_path: Path, store: Path
) -> None:
    raw = tmp_path / "scores.csv"
    raw.write_text("IID,PGS000018\n1,0.5\n2,0.7\n3,0.9\n")
    ingest_into("score_table", raw, store)
    before = held(store)
    raw.write_text("IID,PGS000018\n1,0.9\n2,0.5\n")
    with pytest.raises(IngestError, match=r"HF-322\]: scores.csv: .* over the people"):
        update_store("score_table", raw, store, "people")
    assert held(store) == before


@pytest.mark.parametrize(
    ("how", "steps"), [("rows", {12: 10, 13: 20, 14: 30}), ("people", {13: 25, 14: 30})]
)
def test_a_watch_is_updated_like_the_rest(tmp_path: Path, how: Any, steps: dict[int, int]) -> None:
    from tests.ingest.test_devices import days

    (tmp_path / "a.csv").write_text(
        "id,date,steps\n1,2016-04-12,10\n1,2016-04-13,20\n2,2016-04-12,5\n"
    )
    (store,) = ingest("daily_table", tmp_path / "a.csv", tmp_path / "store")
    (tmp_path / "b.csv").write_text("id,date,steps\n1,2016-04-13,25\n1,2016-04-14,30\n")
    update_store("daily_table", tmp_path / "b.csv", store, how)
    opened = SiteStore.open(store)
    opened.check()
    assert days(opened)[2, "STEPS_DAY"] == {"2016-04-12": 5}
    assert days(opened)[1, "STEPS_DAY"] == {f"2016-04-{d}": n for d, n in steps.items()}


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
def test_whoever_is_killed_meanwhile_leaves_a_whole_store(
    tmp_path: Path, store: Path, renames: int
) -> None:
    """Before the old store is moved away, and between that and the new one's coming."""
    before = held(store), {f: (store / f).read_bytes() for f in inodes(store)}
    file = table(tmp_path / "more.parquet", [(1, DAY, "NEW", 1.0), (9, DAY, "NEW", 1.0)])
    words = ["ingest", "event_table", str(file), "--out", str(store), "--update", "rows"]
    words += ["--site-column", ""]
    done = subprocess.run([sys.executable, "-c", KILLED, str(renames), *words], check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.exists() == (renames == 0)
    assert main([*words, "--dry-run"]) == 0, "what was killed is put right by the next"
    assert (held(store), {f: (store / f).read_bytes() for f in inodes(store)}) == before
    assert main(words) == 0
    assert SiteStore.open(store).narrowed(subjects=[9]).events()["code"].to_pylist() == ["NEW"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--update", "rows", "--overwrite"], "--overwrite"),
        (["--update", "rows", "--resume"], "--resume"),
        (["--remove-absent"], "--remove-absent"),
        (["--update", "rows", "--remove-absent"], "--remove-absent"),
    ],
)
def test_flags_that_contradict_an_update_are_refused(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str], flags: list[str], named: str
) -> None:
    words = ["ingest", "event_table", str(tmp_path / "in"), "--out", str(store), *flags]
    assert main(words) != 0
    assert f"HF-102]: {named}" in capsys.readouterr().err


def test_the_dry_run_of_an_update_keeps_nothing(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = table(tmp_path / "more.parquet", [(9, DAY, "NEW", 1.0)])
    before = inodes(store)
    words = ["ingest", "event_table", str(file), "--out", str(store), "--update", "rows"]
    assert main([*words, "--site-column", "", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 rows are new" in said
    assert "Nothing was kept" in said
    assert inodes(store) == before
    assert os.listdir(tmp_path) == os.listdir(tmp_path)
