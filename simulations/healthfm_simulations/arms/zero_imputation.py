"""The common way to treat a missing modality: zeros in its place.

The arm ``imputed`` is plain FedAvg of the whole model over all sites. Every person gets every
modality: a person who lacks one gets zeros, which in standardised units are the study's averages
(the mean of each wearable channel, the median of each numeric code; no code without a value, no
age). Nothing tells the model that they are not readings. The zeros are written into copies of the
stores, so that all that comes after is the very code of the other arms.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from healthfm_core.arrays import Float64, Int64
from healthfm_core.config import RunConfig
from healthfm_core.data.store.events import ids, times_us
from healthfm_core.data.store.schemas import SPLIT_NAMES, WEARABLE
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import CODES_FILE
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_core.data.store.wearables import SECOND_US, stretches
from healthfm_core.errors import ConfigError
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.genomics import PRS_PREFIX
from healthfm_core.modalities.wearable import WEARABLES
from healthfm_core.tokens.values import upper_edge
from healthfm_core.tokens.vocabulary import Vocabulary
from healthfm_core.tokens.wearing import WearableSpec
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.sites import SimulatedSite

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

    Raises:
        ConfigError: HF-103 where the study has polygenic scores or no label.
    """
    if vocabulary.panel or config.label_task is None:
        raise ConfigError(
            103,
            where="simulation.arms",
            seen="imputed, in a study of polygenic scores or without a label",
            wanted="the arm imputes clinic and wearables, as of a label's prediction time",
            do="Leave the arm out",
        )
    if inputs is None:
        train = [_imputed(site, site.modalities, vocabulary, folder) for site in fold.train]
        return replace(fold, train=tuple(train))
    allowed = tuple(name for name in inputs.split("+") if name in (EHR, WEARABLES))
    here = folder / f"given-{inputs}"
    test = [_imputed(site, allowed or site.modalities, vocabulary, here) for site in fold.test]
    return replace(fold, test=tuple(test))


def _imputed(
    site: SimulatedSite,
    allowed: Collection[str] | None,
    vocabulary: Vocabulary,
    folder: Path,
) -> SimulatedSite:
    path = folder / site.name
    if not path.is_dir():
        write_imputed(SiteStore.open(site.path, modalities=allowed), vocabulary, path)
    return replace(site, path=path, modalities=None)


def write_imputed(store: SiteStore, vocabulary: Vocabulary, path: Path) -> None:
    """Write a copy of `store` in which every person has clinic and wearables, or their zeros."""
    path.parent.mkdir(parents=True, exist_ok=True)
    everyone, at_us = _asked(store)
    events, device = store.events(), vocabulary.wearable
    writer = StoreWriter(path, dataset_name=store.name)
    writer.add_events(events)
    lacking = ~np.isin(everyone, ids(events))
    writer.add_events(zero_events(vocabulary, everyone[lacking], at_us[lacking]))
    if device is not None:
        worn = WEARABLE.empty_table()
        if device.device in store.devices:
            worn = store.wearable(device.device)
        lacking = ~np.isin(everyone, ids(worn))
        writer.add_wearable(device.device, worn)
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


def zero_events(vocabulary: Vocabulary, subject: Int64, at_us: Int64) -> pa.Table:
    """Return each numeric code's median for every subject, at the subject's time."""
    codes = [code for code in vocabulary.percentiles if not code.startswith(PRS_PREFIX)]
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
    """Return one token of each channel's mean, worn throughout, that ends by the subject's time."""
    token_us = round(device.token_s * SECOND_US)
    start_us = (at_us // token_us - 1) * token_us
    length = max(1, round(device.token_s * device.hz))
    tables = [WEARABLE.empty_table()]
    for channel, mean in zip(device.channels, device.mean, strict=True):
        value = np.full((len(subject), length), mean, np.float32)
        tables.append(stretches(subject, start_us, channel, device.hz, value))
    return pa.concat_tables(tables)
