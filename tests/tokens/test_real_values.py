"""The sketch and the tokens on real intensive-care data."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.tokens.records import read_events
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import build_vocabulary

pytestmark = pytest.mark.realdata
CODES = ("OBS//HR", "OBS//Temp", "OBS//Glucose", "OBS//Na", "OBS//Platelets")
SITES = 3


@pytest.fixture(scope="module")
def stores(shared_data, tmp_path_factory) -> list[SiteStore]:
    table = pq.read_table(
        shared_data / "physionet2012" / "events.parquet",
        filters=[("code", "in", CODES)],
        columns=["subject_id", "time", "code", "numeric_value"],
    )
    folder = tmp_path_factory.mktemp("stores")
    site = pc.bit_wise_and(table["subject_id"], 7).to_numpy()
    made = []
    for index in range(SITES):
        path = folder / f"site-{index}"
        part = table.filter(pa.array(site == index))
        writer = StoreWriter(path, dataset_name=path.name)
        writer.add_events(part)
        writer.set_splits(dict.fromkeys(part["subject_id"].unique().to_pylist(), "train"))
        writer.write()
        made.append(SiteStore.open(path))
    return made


def test_deciles_agree_with_the_exact_ones_of_pooled_people(stores):
    config = TokensConfig(k_min=20)
    vocabulary = build_vocabulary(merge([site_statistics([s], config) for s in stores]), config)
    assert len(vocabulary.percentiles) == len(CODES)
    events = [read_events(store, "train") for store in stores]
    for name in vocabulary.percentiles:
        one_each = np.concatenate([first_values(part, name) for part in events])
        for tenth, edge in enumerate(vocabulary.edges(name), start=1):
            below = np.mean(one_each < edge * (1 - 1.1e-3))
            up_to = np.mean(one_each <= edge * (1 + 1e-6))
            assert below - 0.03 <= tenth / 10 <= up_to + 0.03


def first_values(events, name: str) -> np.ndarray:
    rows = np.flatnonzero((events.code == events.codes.index(name)) & ~np.isnan(events.value))
    rng = np.random.default_rng(0)
    rows = rng.permutation(rows)
    _, first = np.unique(events.subject[rows], return_index=True)
    return events.value[rows[first]]


def test_every_real_event_gets_its_token(stores):
    config = TokensConfig(k_min=20, bin_hours=2)
    vocabulary = build_vocabulary(merge([site_statistics([s], config) for s in stores]), config)
    found = tokenize(stores, vocabulary, config, split="train")
    assert found.has_value.mean() > 0.99
    bins = found.token - vocabulary.first_token[found.code]
    share = np.bincount(bins[found.has_value], minlength=11)[1:] / found.has_value.sum()
    assert share.min() > 0.05
    assert share.max() < 0.2
    assert (
        np.diff(found.time_us)[
            np.diff(np.repeat(np.arange(found.n_subjects), np.diff(found.offsets))) == 0
        ]
        >= 0
    ).all()
