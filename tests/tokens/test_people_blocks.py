"""However many blocks a store's people are read in, what is read of them is the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from healthfm_core.config.tokens import CodeCondition, TokensConfig
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.data.store import people_blocks
from healthfm_core.data.store.beside_store import draft_in, folder_beside, working_folder
from healthfm_core.data.store.joined_stores import StoreView, join_stores
from healthfm_core.data.store.people_blocks import PeopleBlocks
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import StoreError
from healthfm_core.tokens.coverage import coverage
from healthfm_core.tokens.statistics import SiteStatistics, site_statistics
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import build_vocabulary
from tests.data.test_store_layers import update
from tests.tokens.small_store import Row, Worn, events, write

PEOPLE = 40
CONFIG = TokensConfig(
    k_min=3,
    bin_hours=6,
    bin_spread=True,
    concept_sets={"high": (CodeCondition(codes=("LAB//K",), above=5.0),)},
)
PARENTS = {f"DX//{letter}": "DX//ANY" for letter in "ABCDEFGH"} | {"DX//ANY": "DX//TOP"}


def records(seed: int, people: range) -> tuple[list[Row], list[Worn]]:
    """Rows of some people: statics, scores, labs, rare and common codes, and weeks of a watch."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for subject in people:
        rows += [(subject, -9e5, "MEDS_BIRTH", None), (subject, None, "SEX//F", None)]
        rows.append((subject, None, "PRS//PGS1", round(float(rng.normal()), 3)))
        for hour in np.sort(rng.integers(0, 4000, rng.integers(1, 30))).tolist():
            code = f"DX//{'ABCDEFGHIJ'[int(rng.integers(10))]}"
            rows.append((subject, float(hour), code, None))
            rows.append((subject, hour + 0.5, "LAB//K", round(float(rng.normal(4.5, 1)), 2)))
    worn = [
        (s, 10.0 * s, "HR", 1 / 60, rng.normal(70, 9, 150).round(1).tolist()) for s in people[::3]
    ]
    return list(dict.fromkeys(rows)), worn


def store_of(tmp_path: Path, name: str = "site", seed: int = 0, low: int = 0) -> SiteStore:
    rows, worn = records(seed, range(low, low + PEOPLE))
    split = {s: ("train", "tuning", "held_out")[s % 3] for s in range(low, low + PEOPLE)}
    labels = {"death": [(s, 2000.0, s % 2 > 0) for s in split]}
    return write(tmp_path / name, rows, worn=worn, splits=split, labels=labels, parents=PARENTS)


def updated(tmp_path: Path) -> SiteStore:
    """A store of which an update added to some people's rows and replaced another's."""
    store = store_of(tmp_path)
    later: list[Row] = [(s, 5000.0 + s, "DX//A", None) for s in (3, 6, 9)]
    update(store.path, 1, events(later), replaced=(9,))
    return SiteStore.open(store.path)


def joined(tmp_path: Path) -> StoreView:
    """Two stores that share half of their people, and some of their events."""
    rows, _ = records(0, range(20, 40))
    split = {s: ("train", "tuning", "held_out")[s % 3] for s in range(60)}
    more, worn = records(7, range(40, 60))
    clinic = store_of(tmp_path)
    watch = write(tmp_path / "watch", [*rows[::2], *more], worn=worn, splits=split)
    (view,) = join_stores([clinic, watch])
    return view


STORES = pytest.mark.parametrize("make", [store_of, updated, joined])


def same(one: Sequences, other: Sequences) -> bool:
    return all(
        np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Sequences)
    )


def equal(one: SiteStatistics, other: SiteStatistics) -> bool:
    a, b = one.to_arrays(), other.to_arrays()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@STORES
@pytest.mark.parametrize("most", [1, 200])
def test_statistics_coverage_and_tokens_are_the_same_in_any_number_of_blocks(
    tmp_path: Path, make, most: int, monkeypatch: pytest.MonkeyPatch
):
    store = make(tmp_path)
    whole = site_statistics([store], CONFIG, task="death")
    vocabulary = build_vocabulary(whole, CONFIG)
    tokens = tokenize([store], vocabulary, CONFIG, split="train", task="death")
    shares = coverage([store], vocabulary, k_min=3)
    assert len(tokens.wearable)
    assert len(tokens.label_value)
    monkeypatch.setattr(people_blocks, "EVENTS_PER_BLOCK", most)
    with PeopleBlocks(store, "train") as blocks:
        assert len(blocks) > 2
    assert equal(site_statistics([store], CONFIG, task="death"), whole)
    assert coverage([store], vocabulary, k_min=3) == shares
    assert same(tokenize([store], vocabulary, CONFIG, split="train", task="death"), tokens)


@STORES
def test_a_block_has_each_of_its_people_with_all_of_their_records(tmp_path: Path, make):
    store, seen = make(tmp_path), []
    with PeopleBlocks(store, "train", events=100) as blocks:
        for people in (*blocks, *blocks):  # again and again
            own = people.subjects()
            wanted = store.events("train")
            mine = np.isin(wanted["subject_id"].to_numpy(), own)
            wanted = wanted.filter(pa.array(mine))
            for name in ("subject_id", "time", "numeric_value"):
                assert people.events()[name].equals(wanted[name])
            assert people.events()["code"].cast(pa.string()).equals(wanted["code"])
            seen += own.tolist()
    assert seen == 2 * store.subjects("train").tolist()


def test_a_view_shows_no_more_in_blocks_than_at_once(tmp_path: Path):
    store = store_of(tmp_path).narrowed(modalities=["wearable"], subjects=range(20))
    with PeopleBlocks(store, None, events=20) as blocks:
        parts = list(blocks)
        assert sum(part.wearable().num_rows for part in parts) == store.wearable().num_rows == 7
        assert sum(part.events().num_rows for part in parts) == store.events().num_rows


def test_the_files_of_blocks_are_their_owners_and_go_at_the_end(tmp_path: Path):
    store = store_of(tmp_path)
    with PeopleBlocks(store, None, events=100) as blocks:
        next(iter(blocks))
        folder = folder_beside(store.path)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert any(file.suffix == ".arrows" for file in folder.rglob("*"))
    assert not list(folder.iterdir())


def test_a_store_that_is_one_block_leaves_nothing_beside_it(tmp_path: Path):
    store = store_of(tmp_path)
    with PeopleBlocks(store, None) as blocks:
        (whole,) = blocks
    assert whole.events().num_rows == store.events().num_rows
    assert not folder_beside(store.path).exists()


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path):
    store = store_of(tmp_path)
    folder = working_folder(store.path)
    dead = folder / ".draft-0123"
    dead.mkdir()
    (folder / ".draft-0123.lock").touch()
    with draft_in(folder) as living:
        (living / "file").touch()
        working_folder(store.path)
        assert not dead.exists()
        assert (living / "file").exists()
    assert not list(folder.iterdir())


def test_a_full_disk_is_told_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(people_blocks, "append_rows", full)
    store = store_of(tmp_path)
    with (
        pytest.raises(StoreError, match=r"HF-213.*No space left"),
        PeopleBlocks(store, None, events=100) as blocks,
    ):
        next(iter(blocks))
    assert not list(folder_beside(store.path).iterdir())


def test_beside_a_store_that_nothing_can_be_written_to_its_files_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = store_of(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    folder_beside(store.path).touch()  # which stands in the way, as a read-only disk does
    with PeopleBlocks(store, None, events=100) as blocks:
        assert sum(len(people.subjects()) for people in blocks) == PEOPLE
        assert any((tmp_path / "elsewhere").rglob("*.arrows"))
