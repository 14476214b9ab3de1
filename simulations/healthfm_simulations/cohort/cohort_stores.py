"""A cohort as site stores on disk, with the oracle's tables beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from healthfm_core.data.store.splits import assign, shares_with, split_table
from healthfm_core.data.store.store_writer import StoreWriter
from healthfm_simulations.cohort.cohort_tables import RETURN_TASK, CodeBook
from healthfm_simulations.cohort.generate_cohort import Cohort
from healthfm_simulations.partition.site_plan import CohortSite

DEVICE: Final = "wrist"
TRUTH: Final = "truth"
PROCESS_FILE: Final = "generating_process.json"


def write_sites(cohort: Cohort, folder: Path) -> list[Path]:
    """Write a store per site, ``<folder>/site-03``, and the oracle's tables to ``<folder>/truth``.

    No reader opens that folder. It holds ``site-03.parquet`` with a row per (visit asked
    about, condition) and ``generating_process.json`` with the half-lives and loadings.

    Returns:
        The stores' folders, in the order of ``cohort.sites``.

    Raises:
        IngestError: HF-304 where a store is there already.
    """
    shares = shares_with(cohort.config.held_out)
    stores = [_write_store(site, folder / site.name, shares) for site in cohort.sites]
    truth = folder / TRUTH
    truth.mkdir(parents=True, exist_ok=True)
    for site in cohort.sites:
        pq.write_table(site.truth, truth / f"{site.name}.parquet", compression="zstd")
    (truth / PROCESS_FILE).write_text(_process_json(cohort), encoding="utf-8")
    return stores


def _write_store(site: CohortSite, path: Path, shares: Mapping[str, float]) -> Path:
    writer = StoreWriter(path, dataset_name=site.name)
    writer.add_events(site.events)
    people = np.unique(site.events["subject_id"].to_numpy())
    writer.set_splits(split_table(people, assign(people, shares=shares)))
    writer.set_codes(site.codes)
    writer.set_labels(RETURN_TASK, site.returns)
    if site.scores.num_rows:
        writer.add_scores(site.scores)
    if site.wearable.num_rows:
        writer.add_wearable(DEVICE, site.wearable)
    writer.write()
    return path


def _process_json(cohort: Cohort) -> str:
    process, book = cohort.process, CodeBook.of(cohort.process)
    laws = {
        "seed": cohort.seed,
        "half_life_days": process.half_life_days.tolist(),
        "conditions": list(book.conditions),
        "chronic": process.chronic.tolist(),
        "loading": process.loading.tolist(),
        "score": [book.scores[s] if s >= 0 else None for s in process.score.tolist()],
        "score_effect": process.score_effect,
        "channels": list(process.channels),
        "channel_loading": process.channel_loading.tolist(),
        "config": cohort.config.model_dump(),
    }
    return json.dumps(laws, indent=1) + "\n"
