"""A store with a planted rule, and a small model that has learned it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import stretches
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import VERSION, RoundOrder, Study
from healthfm_core.tokens.statistics import site_statistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.trained import TrainedModel
from healthfm_core.training import SiteData, initial_parameters, train_round
from tests.data.conftest import Row, table

PEOPLE = 160
HOUR_US = 3_600_000_000
FIRST = datetime(2020, 1, 1, 9)
SIGNAL, OUTCOME, QUIET = "DX//SIGNAL", "DX//OUTCOME", "DX//QUIET"
SETTINGS = [
    "model=tiny",
    "model.width=32",
    "model.ffn=64",
    "model.dropout=0",
    "model.wearable_layers=1",
    "tokens.k_min=2",
    "tokens.max_len=24",
    "train=multitask",
    "train.objectives.next_visit=0",
    "train.objectives.masked_reconstruction=0",
    "train.site_intercepts=false",
    "train.lr=1e-2",
    "train.lr_memory=1",
    "train.drop_events=0",
    "model.memory=false",
    "model.layer_scale=null",
    "train.warmup_rounds=0",
    "train.batch_size=10",
    "train.local_epochs=16",
]


@dataclass(frozen=True)
class Planted:
    """The trained model, the store, and who in it has the signal."""

    model: TrainedModel
    store: SiteStore
    folder: Path
    with_signal: list[int]
    long_record: int


def record(who: int, signal: bool, long: bool) -> list[Row]:
    """A first visit with or without the signal; 20 days later the outcome, or nothing much."""
    rows: list[Row] = [
        (who, None, "SEX//F" if who % 3 else "SEX//M", None, None),
        (who, datetime(1960, 1, 1), "MEDS_BIRTH", None, None),
    ]
    if long:
        early = [FIRST - timedelta(days=400 - 5 * n) for n in range(30)]
        rows += [(who, when, "LAB//NOISE", float(who % 7), None) for when in early]
    rows.append((who, FIRST, "LAB//NOISE", float(who % 11), None))
    if signal:
        rows.append((who, FIRST, SIGNAL, None, None))
    later = FIRST + timedelta(days=20)
    rows.append((who, later, OUTCOME if signal else QUIET, None, None))
    return [*rows, (who, later + timedelta(days=200), QUIET, None, None)]


def write(folder: Path) -> tuple[SiteStore, list[int]]:
    """Write the store; half of the people have the signal, some wear, some have scores."""
    ids = np.arange(1, PEOPLE + 1) + 7_000_000
    signal = [int(who) for who in ids if who % 2]
    rng = np.random.default_rng(0)
    writer = StoreWriter(folder, dataset_name="planted")
    rows = [row for who in ids.tolist() for row in record(who, who in signal, who % 20 < 2)]
    writer.add_events(table(rows))
    worn = ids[ids % 4 < 2]
    start_us = round(FIRST.timestamp()) * 1_000_000 - rng.integers(48, 480, len(worn)) * HOUR_US
    hr = rng.normal(70, 5, (len(worn), 4 * 30)).astype(np.float32)
    writer.add_wearable("watch", stretches(worn, start_us, "HR", 1 / 900, hr))
    scores = {"subject_id": ids, "score": ["PGS000018"] * PEOPLE, "z": rng.normal(size=PEOPLE)}
    more = {**scores, "score": ["PGS000027"] * PEOPLE, "z": rng.normal(size=PEOPLE)}
    both = pa.concat_tables([pa.table(scores), pa.table(more)])
    writer.add_scores(both, normalisation="Z_norm2")
    described = {"code": [SIGNAL], "description": ["pays $5 & more"]}
    writer.set_codes(pa.table(described))
    writer.set_splits({int(who): "train" for who in ids})
    writer.write()
    return SiteStore.open(folder), signal


def trained(store: SiteStore) -> TrainedModel:
    """Train on the store for one round, seconds."""
    config = compose(SETTINGS)
    vocabulary = build_vocabulary(site_statistics([store], config.tokens), config.tokens)
    study = Study(VERSION, "planted", config, vocabulary, ("ehr", "genomics", "wearable"))
    start = initial_parameters(study)
    groups = tuple(sorted({group_of(name) for name in start}))
    order = RoundOrder(round=1, rounds=1, groups=groups, evaluate=False, seed=1)
    update = train_round(start, SiteData.load([store], study), study, order).update
    return TrainedModel(study, {name: start[name] + update[name] for name in start}, round=1)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """The planted rule, learned."""
    folder = tmp_path_factory.mktemp("planted")
    store, signal = write(folder / "store")
    model = trained(store)
    model.save(folder / "model")
    long = next(who for who in signal if who % 20 < 2 and who % 4 < 2)
    return Planted(model, store, folder, signal, long)
