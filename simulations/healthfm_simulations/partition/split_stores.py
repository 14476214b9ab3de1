"""The people of one store, divided among several sites."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from healthfm_core.arrays import Int32
from healthfm_core.config.data import Modality
from healthfm_core.data.store.schemas import SPLIT_NAMES
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import CODES_FILE
from healthfm_core.data.store.store_writer import StoreWriter


def split_store(
    path: Path,
    folder: Path,
    site: Int32,
    *,
    names: Sequence[str],
    modalities: Sequence[Collection[Modality] | None] | None = None,
) -> list[Path]:
    """Write a store per site from the people of one store; everybody keeps their split.

    Args:
        path: The store.
        folder: Where the sites' stores go, ``<folder>/<name>``.
        site: [S] index of the site of each of the store's subjects, in ascending order of id (see
            `assign_sites` and `shifted_assignment`).
        names: The sites' names.
        modalities: What each site holds; None is all, for a site or for all of them.

    Returns:
        The folders of the sites that got anybody, in the order of `names`.

    Raises:
        IngestError: HF-304 where a folder exists.
        StoreError: HF-2xx where the store cannot be read.
        ValueError: where `site` does not name a site for every subject.
    """
    everyone = SiteStore.open(path).subjects()
    if len(site) != len(everyone) or (len(site) and not 0 <= site.min() <= site.max() < len(names)):
        raise ValueError("one site index per subject is wanted, each an index of names")
    held = modalities or [None] * len(names)
    written = []
    for index, (name, shown) in enumerate(zip(names, held, strict=True)):
        people = everyone[site == index]
        if len(people):
            store = SiteStore.open(path, modalities=shown)
            written.append(_write_part(store, folder / name, name, pa.array(people)))
    return written


def _write_part(store: SiteStore, path: Path, name: str, people: pa.Array) -> Path:
    def part(table: pa.Table) -> pa.Table:
        return table.filter(pc.is_in(table["subject_id"], people))

    splits = {int(s): split for split in SPLIT_NAMES for s in store.subjects(split)}
    writer = StoreWriter(path, dataset_name=name)
    writer.add_events(part(store.events()))
    writer.set_codes(pq.read_table(store.path / CODES_FILE))
    writer.set_splits(splits)
    for device in store.devices:
        writer.add_wearable(device, part(store.wearable(device)))
    for task in store.tasks:
        writer.set_labels(task, part(store.labels(task)))
    writer.write()
    return path
