"""The common way to treat a missing modality: zeros in its place.

The arm ``imputed`` is plain FedAvg of the whole model over all sites. Every person gets every
modality: a person who lacks one gets zeros, which in standardised units are the study's averages
(the mean of each wearable channel, the median of each numeric code, the mean of each score; no
code without a value, no age). With a label they are given as of its prediction time; where next
visits are asked about, a person without wearables gets a token of wearing before each day that has
a visit, and one without a clinic is asked nothing. Nothing tells the model that they are not
readings. The zeros are written into copies of the stores, so that all that comes after is the very
code of the other arms.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from meds import birth_code

from healthfm_core.arrays import Float64, Int64
from healthfm_core.config import RunConfig
from healthfm_core.data.batch.segments import run_starts
from healthfm_core.data.store.events import coded, ids, times_us
from healthfm_core.data.store.schemas import SPLIT_NAMES, WEARABLE
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import CODES_FILE
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import SECOND_US, stretches
from healthfm_core.modalities.registry import (
    code_of_column,
    columns_of,
    is_panel_code,
    modality_names,
    specs,
)
from healthfm_core.tokens.values import upper_edge
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_core.tokens.wearing import WearableSpec
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.sites import SimulatedSite

DAY_US: Final = 86_400_000_000
MEDIAN: Final = 49
"""Index of the 50th of a code's 99 percentiles."""


def imputed_fold(
    fold: CrossValidationFold,
    vocabulary: Vocabulary,
    config: RunConfig,
    folder: Path,
    inputs: str | None,
) -> CrossValidationFold:
    """Return the fold with zeros for whatever its people lack.

    Args:
        fold: Whose sites.
        vocabulary: What the zeros are.
        config: The run's configuration.
        folder: Where the copies go; one that is there is used again.
        inputs: None: the training sites lack what they may not use. Modalities joined by ``+``:
            the test sites are shown these and lack all others.
    """
    at_visits = config.label_task is None
    if inputs is None:
        train = [
            _imputed(site, site.modalities, vocabulary, folder, at_visits=at_visits)
            for site in fold.train
        ]
        return replace(fold, train=tuple(train))
    allowed = tuple(name for name in inputs.split("+") if name in modality_names())
    here = folder / f"given-{inputs}"
    test = [
        _imputed(site, allowed or site.modalities, vocabulary, here, at_visits=at_visits)
        for site in fold.test
    ]
    return replace(fold, test=tuple(test))


def _imputed(
    site: SimulatedSite,
    allowed: Collection[str] | None,
    vocabulary: Vocabulary,
    folder: Path,
    *,
    at_visits: bool,
) -> SimulatedSite:
    path = folder / site.name
    if not path.is_dir():
        store = SiteStore.open(site.path, modalities=allowed)
        write_imputed(store, vocabulary, path, at_visits=at_visits)
    return replace(site, path=path, modalities=None)


def write_imputed(
    store: SiteStore, vocabulary: Vocabulary, path: Path, *, at_visits: bool = False
) -> None:
    """Write a copy of `store` in which every person has every modality, or its zeros.

    Args:
        store: What is copied.
        vocabulary: What the zeros are.
        path: Where to.
        at_visits: Whether next visits are asked about, and not a label.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    events, device = store.events(), vocabulary.wearable
    everyone, at_us = _visit_days(events) if at_visits else _asked(store)
    writer = StoreWriter(path, dataset_name=store.name)
    writer.add_events(events)
    lacking = ~np.isin(everyone, ids(events))
    writer.add_events(zero_events(vocabulary, everyone[lacking], at_us[lacking]))
    for scores in zero_scores(vocabulary, events, store.subjects()):
        writer.add_events(scores)
    if device is not None:
        lacking = np.ones(len(everyone), np.bool_)
        for name in device.devices:
            if name in store.devices:
                worn = store.wearable(name)
                lacking &= ~np.isin(everyone, ids(worn))
                writer.add_wearable(name, worn)
        writer.add_wearable(device.device, zero_wear(device, everyone[lacking], at_us[lacking]))
    for task in store.tasks:
        writer.set_labels(task, store.labels(task))
    of = {int(subject): name for name in SPLIT_NAMES for subject in store.subjects(name)}
    writer.set_splits(of)
    if (store.path / CODES_FILE).is_file():
        writer.set_codes(pq.read_table(store.path / CODES_FILE))
    writer.write()


def _asked(store: SiteStore) -> tuple[Int64, Int64]:
    """Return everyone, and the first prediction time of each (the store's, where one has none)."""
    everyone = store.subjects()
    at_us = np.full(len(everyone), np.iinfo(np.int64).max)
    for task in store.tasks:
        labels = store.labels(task)
        place = np.searchsorted(everyone, ids(labels))
        np.minimum.at(at_us, place, times_us(labels, "prediction_time"))
    return everyone, np.where(at_us == np.iinfo(np.int64).max, at_us.min(initial=0), at_us)


def _visit_days(events: pa.Table) -> tuple[Int64, Int64]:
    """Return, of every day on which a person has an event, the person and the first event's time.

    Births are no events.
    """
    timed = events.filter(
        pc.and_(events["time"].is_valid(), pc.not_equal(events["code"], birth_code))
    )
    subject, time = ids(timed), times_us(timed)
    order = np.lexsort((time, subject))
    subject, time = subject[order], time[order]
    first = run_starts(subject, time // DAY_US)
    return subject[first], time[first]


def zero_scores(vocabulary: Vocabulary, events: pa.Table, everyone: Int64) -> list[pa.Table]:
    """Return, of each of the study's panels, mean values for everyone who has none of it."""
    code, names = coded(events["code"])
    tables = []
    for spec in specs("panel"):
        own = columns_of(spec.name, vocabulary.panel)
        columns = [code_of_column(name) for name in vocabulary.panel[own]]
        held = np.isin(code, [i for i, name in enumerate(names) if name in set(columns)])
        lacking = everyone[~np.isin(everyone, ids(events)[held])]
        n = len(lacking)
        tables.append(
            pa.table(
                {
                    "subject_id": pa.array(np.repeat(lacking, len(columns)), pa.int64()),
                    "time": pa.nulls(n * len(columns), pa.timestamp("us")),
                    "code": pa.array(columns * n, pa.string()),
                    "numeric_value": pa.array(np.zeros(n * len(columns), np.float32)),
                }
            )
        )
    return tables


def zero_events(vocabulary: Vocabulary, subject: Int64, at_us: Int64) -> pa.Table:
    """Return each numeric code's median for every subject, at the subject's time."""
    codes = [code for code in vocabulary.percentiles if not is_panel_code(code)]
    middle = np.array([vocabulary.percentiles[code][MEDIAN] for code in codes], np.int32)
    values: Float64 = upper_edge(middle)
    n = len(subject)
    return pa.table(
        {
            "subject_id": pa.array(np.repeat(subject, len(codes)), pa.int64()),
            "time": pa.array(np.repeat(at_us, len(codes))).cast(pa.timestamp("us")),
            "code": pa.array(codes * n, pa.string()),
            "numeric_value": pa.array(np.tile(values, n).astype(np.float32)),
        }
    )


def zero_wear(device: WearableSpec, subject: Int64, at_us: Int64) -> pa.Table:
    """Return one token of each channel's mean, worn throughout, that ends by the subject's time.

    Of several devices it is worn on the one that most people of the study wear.
    """
    token_us = round(device.token_s * SECOND_US)
    start_us = (at_us // token_us - 1) * token_us
    length = max(1, round(device.token_s * device.hz))
    tables = [WEARABLE.empty_table()]
    for source in device.of_device(device.device):
        value = np.full((len(subject), length), source.mean, np.float32)
        tables.append(stretches(subject, start_us, source.channel, device.hz, value))
    return pa.concat_tables(tables)
