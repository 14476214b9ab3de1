"""The sites as a search may see them: in their stores nobody is left who is scored later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from healthfm_core.config import RunConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import CODES_FILE
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_simulations.cross_validation import CrossValidationFold, cross_validation_folds
from healthfm_simulations.sites import SimulatedSite

SEEN_SPLITS: Final = ("train", "tuning")
"""Whom a search may see where held-out people of every site are scored later."""


def training_sites(
    config: RunConfig, sites: Sequence[SimulatedSite], folder: Path
) -> tuple[tuple[SimulatedSite, ...], ...]:
    """Return, for each fold of the run's protocol, the sites that train, without its test people.

    Where held-out people of every site are scored, they are copies of the stores without them.
    Where whole sites are scored, they are the others as they are; where the end of everybody's
    record is, the records without it.

    Args:
        config: Of the run whose settings are searched.
        sites: All its sites.
        folder: Where copies go; one that an earlier start made is used.
    """
    folds = cross_validation_folds(config, sites)
    return tuple(tuple(_without_test(fold, site, folder) for site in fold.train) for fold in folds)


def _without_test(fold: CrossValidationFold, site: SimulatedSite, folder: Path) -> SimulatedSite:
    scored = {tested.path for tested in fold.test}
    if site.path not in scored:
        return site
    copy = folder / site.name
    if not copy.exists():  # a store is written whole or not at all
        copy_without_test_people(site.path, copy)
    return replace(site, path=copy)


def copy_without_test_people(path: Path, folder: Path) -> None:
    """Write a store of the training and tuning people of the store at `path`.

    Raises:
        IngestError: HF-304 where the folder exists.
        StoreError: HF-2xx where the store cannot be read.
    """
    store = SiteStore.open(path)
    by_split = {split: store.subjects(split) for split in SEEN_SPLITS}
    seen = store.narrowed(subjects=np.concatenate(list(by_split.values())))
    writer = StoreWriter(folder, dataset_name=store.name)
    for split in SEEN_SPLITS:
        writer.add_events(seen.events(split))
    writer.set_codes(pq.read_table(store.path / CODES_FILE))
    writer.set_splits({int(s): split for split, people in by_split.items() for s in people})
    for device in seen.devices:
        writer.add_wearable(device, seen.wearable(device))
    for task in seen.tasks:
        writer.set_labels(task, seen.labels(task))
    writer.write()
