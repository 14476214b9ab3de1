"""A site's tokens lie beside its store: made once, whole or not there, and gone with the store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from healthfm_core.config import RunConfig
from healthfm_core.data.batch.sequences import RecordIndex, Sequences
from healthfm_core.data.store import people_blocks
from healthfm_core.data.store.beside_store import bytes_beside, folder_beside, remove_beside
from healthfm_core.data.store.forgotten_people import forget
from healthfm_core.data.store.joined_stores import StoreView, join_stores
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import StoreError
from healthfm_core.federation.protocol import VERSION, RoundOrder, Study
from healthfm_core.tokens.statistics import site_statistics
from healthfm_core.tokens.tokenizer import concatenate, tokenize
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.training import (
    SiteData,
    initial_parameters,
    loader_for,
    token_cache,
    train_round,
)
from healthfm_core.training.intercepts import site_intercepts
from tests.tokens.small_store import write
from tests.tokens.test_people_blocks import CONFIG, joined, records, store_of, updated

RUN = RunConfig.model_validate(
    {
        "model": {"name": "tiny", "width": 16, "ffn": 16, "heads": 2, "layers": 1},
        "tokens": CONFIG.model_dump() | {"max_len": 48},
        "train": {"batch_size": 4, "max_steps": 3, "objectives": {"time_to_event": 1.0}},
    }
)


def study_of(store: StoreView, run: RunConfig = RUN) -> Study:
    vocabulary = build_vocabulary(site_statistics([store], run.tokens), run.tokens)
    return Study(VERSION, "study", run, vocabulary, tuple(sorted(store.modalities)))


def caches(store: StoreView) -> list[Path]:
    return sorted(p for p in folder_beside(store.members[0].path).iterdir() if p.is_dir())


def same(one: Sequences, other: Sequences) -> bool:
    columns = [
        *((getattr(one, f.name), getattr(other, f.name)) for f in fields(Sequences)),
        *(
            (getattr(one.record, f.name), getattr(other.record, f.name))
            for f in fields(RecordIndex)
        ),
    ]
    return all(np.array_equal(a, b) for a, b in columns)


@pytest.mark.parametrize("make", [store_of, updated, joined])
@pytest.mark.parametrize("protocol", ["held_out", "sites"])
def test_what_is_read_is_what_tokenising_in_memory_gives(
    tmp_path: Path, make, protocol: str, monkeypatch: pytest.MonkeyPatch
):
    store = make(tmp_path)
    study = study_of(store)
    splits = ("train",) if protocol == "held_out" else ("train", "held_out")
    wanted = [tokenize([store], study.vocabulary, study.config.tokens, split=s) for s in splits]
    monkeypatch.setattr(people_blocks, "EVENTS_PER_BLOCK", 150)
    found = token_cache.tokens_of([store], study, splits)
    assert found["train"].files is not None
    assert same(found["train"], concatenate(wanted))
    loader_for(found["train"], study)
    worked_out = found["train"].per_subject
    fresh = concatenate(wanted)
    loader_for(fresh, study)
    assert {n: a.tolist() for n, a in worked_out.items()} == {
        n: a.tolist() for n, a in fresh.per_subject.items()
    }


def in_memory(data: SiteData, store: StoreView, study: Study) -> SiteData:
    """The same site as it was held before there were caches."""
    parts = [
        tokenize([store], study.vocabulary, study.config.tokens, split=split)
        for split in ("train", "tuning")
    ]
    return SiteData(*parts, modalities=data.modalities, intercepts=site_intercepts(parts[0], study))


def test_a_round_from_the_cache_is_that_from_memory_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = store_of(tmp_path)
    study = study_of(store)
    held = in_memory(SiteData.load([store], study), store, study)
    remove_beside(store.path)
    monkeypatch.setattr(people_blocks, "EVENTS_PER_BLOCK", 150)
    cached = SiteData.load([store], study)
    groups = ("ehr", "backbone", "wearable", "genomics", "head/next_visit", "head/time_to_event")
    order = RoundOrder(round=1, rounds=2, seed=5, groups=groups, evaluate=True)
    results = [train_round(initial_parameters(study), d, study, order) for d in (cached, held)]
    one, other = results
    assert one.weights == other.weights
    assert one.metrics == other.metrics
    assert all(np.array_equal(one.update[name], array) for name, array in other.update.items())


def test_it_is_made_once_and_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = store_of(tmp_path)
    study = study_of(store)
    before = os.umask(0o022)
    try:
        SiteData.load([store], study)
    finally:
        os.umask(before)
    (cache,) = caches(store)
    assert all(not path.stat().st_mode & 0o077 for path in (cache.parent, *cache.rglob("*")))
    monkeypatch.setattr(token_cache, "tokenized_parts", None)
    again = SiteData.load([SiteStore.open(store.path)], study)
    assert again.train.n_subjects > 0


def test_another_vocabulary_cut_view_or_label_is_another_cache(tmp_path: Path):
    store = store_of(tmp_path)
    study = study_of(store)
    names = set()
    for view, other in (
        (store, study),
        (store.narrowed(modalities=["ehr"]), study),
        (store.narrowed(subjects=store.subjects()[:30]), study),
        (
            store,
            study_of(
                store,
                RUN.model_copy(update={"tokens": RUN.tokens.model_copy(update={"max_len": 40})}),
            ),
        ),
        (store, study_of(store.narrowed(modalities=["ehr"]))),
    ):
        SiteData.load([view], other)
        names |= {cache.name for cache in caches(store)}
        assert len(caches(store)) <= token_cache.KEPT
    assert len(names) == 5


def test_a_store_that_changed_is_read_anew_and_the_old_tokens_go(tmp_path: Path):
    store = store_of(tmp_path)
    study = study_of(store)
    first = SiteData.load([store], study)
    (old,) = caches(store)
    (store.path / "metadata" / "quality.json").write_text("{}")
    SiteData.load([SiteStore.open(store.path)], study)
    (new,) = caches(store)
    assert new.name != old.name
    assert first.train.kind.sum() > 0  # whoever has it open goes on


def test_whoever_is_forgotten_is_in_no_cache_not_even_of_a_site_with_two_stores(tmp_path: Path):
    split = dict.fromkeys((*range(40), *range(100, 140)), "train")
    stores = [
        write(tmp_path / name, records(n, people)[0], splits=split)
        for n, (name, people) in enumerate((("a", range(40)), ("b", range(100, 140))))
    ]
    study = study_of(stores[0])
    before = SiteData.load(join_stores(stores), study)
    assert 101 in before.train.subject_id
    assert bytes_beside(stores[1].path) == bytes_beside(stores[0].path) > 0
    forget(stores[1].path, np.array([101]))
    assert [bytes_beside(store.path) for store in stores] == [0, 0]
    stores = [SiteStore.open(store.path) for store in stores]
    after = SiteData.load(join_stores(stores), study)
    assert sorted({*before.train.subject_id} - {*after.train.subject_id}) == [101]


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "unfinished"])
def test_a_cache_that_is_not_whole_is_made_again(tmp_path: Path, damage: str):
    store = store_of(tmp_path)
    study = study_of(store)
    wanted = SiteData.load([store], study).train.time_us.tolist()
    (cache,) = caches(store)
    file = cache / "train" / "time_us.npy"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    if damage == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    if damage == "gone":
        file.unlink()
    if damage == "unfinished":
        shutil.rmtree(cache / "tuning")
    assert SiteData.load([store], study).train.time_us.tolist() == wanted


KILLED = """
import os, signal, sys
from pathlib import Path
from healthfm_core.data.batch import sequence_files
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.federation.protocol import Study
from healthfm_core.training import SiteData

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

sequence_files.SequencesWriter.close = die
SiteData.load([SiteStore.open(Path(sys.argv[1]))], Study.from_json(Path(sys.argv[2]).read_text()))
"""


def test_a_process_killed_while_it_writes_leaves_no_cache_and_the_next_makes_one(tmp_path: Path):
    store = store_of(tmp_path)
    study = study_of(store)
    (tmp_path / "study.json").write_text(study.to_json())
    given = [str(store.path), str(tmp_path / "study.json")]
    done = subprocess.run([sys.executable, "-c", KILLED, *given], check=False)
    assert done.returncode == -signal.SIGKILL
    left = [path.name for path in folder_beside(store.path).iterdir()]
    assert left
    assert all(name.startswith(".draft-") for name in left)
    assert SiteData.load([store], study).train.n_subjects > 0
    assert len(list(folder_beside(store.path).iterdir())) == 1


def test_of_a_store_that_changes_while_it_is_read_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = store_of(tmp_path)
    study = study_of(store)
    gone = int(store.subjects("train")[0])
    append = token_cache._append

    def forgetting(*given: object) -> None:
        append(*given)  # type: ignore[arg-type]
        monkeypatch.setattr(token_cache, "_append", append)
        forget(store.path, np.array([gone]))

    monkeypatch.setattr(token_cache, "_append", forgetting)
    with pytest.raises(StoreError, match="HF-214"):
        SiteData.load([store], study)
    assert bytes_beside(store.path) == 0
    with pytest.raises(StoreError, match="HF-214"):  # a view of what the store was
        SiteData.load([store], study)
    assert gone not in SiteData.load([SiteStore.open(store.path)], study).train.subject_id
