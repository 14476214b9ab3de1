"""``ingest … --into STORE``: another source's records of people whom a store has already.

The source is read into a store of its own first, with every check of `ingest`; then both are
written as one, which takes the store's place at the end, or nothing changes. What the store says of
a person is believed first: births, deaths, splits, samples and labels that both have are its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from healthfm_client.ingest.interrupted import output_lock, remove_leftovers
from healthfm_client.ingest.pipeline import (
    Notify,
    ShowProgress,
    ignore_notice,
    ignore_progress,
    ingest,
    write_stream,
)
from healthfm_client.ingest.source_record import SourceRecord, as_json
from healthfm_core.data.store.draft_folder import draft_beside, publish
from healthfm_core.data.store.event_stream import EventStream, SourcePart
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.forgotten_people import ForgottenPeople
from healthfm_core.data.store.integrity import read_splits
from healthfm_core.data.store.joined_stores import JoinedStores
from healthfm_core.data.store.schemas import CODES, SPLITS, conform
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_draft import StoreDraft
from healthfm_core.data.store.store_files import (
    CODES_FILE,
    OWN_KEY,
    REJECTED_FOLDER,
    SOURCE_CODES_FILE,
    SPLITS_FILE,
    in_order,
    keep_quality,
    read_marker,
    read_parquet,
)
from healthfm_core.data.store.store_layers import StoreLayer, event_files
from healthfm_core.data.store.wearables import put_together, sort_wearable
from healthfm_core.errors import IngestError
from healthfm_core.modalities.registry import VITAL_CODES

SAMPLES: Final = "samples that the store has with other values"
_NEVER_US: Final = int(np.iinfo(np.int64).max)


def ingest_into(
    source: str,
    path: Path,
    store: Path,
    *,
    out: Path | None = None,
    show_progress: ShowProgress = ignore_progress,
    notify: Notify = ignore_notice,
    **options: Any,
) -> Path:
    """Add a source's records to a store.

    Args:
        source: A reader's name, or ``auto``.
        path: File or folder of the raw data, of one site.
        store: The store, whose people the source's ids mean, or become by `subjects` or `key`.
        out: Where the whole is put; None is in the place of `store`.
        show_progress: Shows the rows read and written.
        notify: Shows how many people were known, and what `ingest` says.
        options: The reader's options by name.

    Returns:
        The store's folder.

    Raises:
        IngestError: HF-316 where the store has none of the source's people, HF-317 for a source
            of several sites, and what `ingest` raises.
        StoreError: HF-212 where the two contradict each other about a person, HF-2xx.
    """
    out = store if out is None else out
    with output_lock(out) as locked:
        for notice in remove_leftovers(out) if locked else []:
            notify(notice)
        base = SiteStore.open(store)
        with draft_beside(out) as apart, draft_beside(out) as draft:
            options = {"splits_of": store, **options}
            forgotten = ForgottenPeople.of(store)
            paths = ingest(
                source,
                path,
                apart / store.name,
                show_progress=show_progress,
                notify=notify,
                forgotten=forgotten,
                **options,
            )
            if paths != [apart / store.name]:
                raise several_sites(path, len(paths))
            more = SiteStore.open(paths[0])
            _count_known(base, more, notify)
            put_into_one(base, more, draft, show_progress)
            forgotten.write(draft)
            keep_quality(store, draft)
            publish(draft, out)
    return out


def put_into_one(
    base: SiteStore, more: SiteStore, folder: Path, show_progress: ShowProgress = ignore_progress
) -> None:
    """Write two stores of the same people as one.

    Raises:
        StoreError: HF-212, HF-2xx.
    """
    both = (base, more)
    joined = JoinedStores.of(both)
    with closing(StoreDraft(folder, base.name, _splits(both))) as draft:
        stream = EventStream(tuple(_parts(both)), _NEVER_US)
        if stream.rows:
            write_stream(stream, [], draft, None, show_progress)
        _write_rejected(draft, both)
        draft.close()
        differing = _write_wearables(draft, both)
        draft.note_not_read(_not_read(both, differing))
        draft.write_splits()
        for task in joined.tasks:
            draft.write_labels(task, joined.labels(task))
        scores = _scores(both)
        draft.write_codes(_codes(both), scores)
        draft.write_source_codes(_source_codes(both))
        sources = [one for store in both for one in SourceRecord.all_of(read_marker(store.path))]
        draft.check_and_mark(scores, as_json(sources))


def _count_known(base: SiteStore, more: SiteStore, notify: Notify) -> None:
    """Say how many of the source's people the store has.

    Raises:
        IngestError: HF-316 where it is nobody.
    """
    people = more.subjects()
    known = len(np.intersect1d(base.subjects(), people))
    if not known:
        raise IngestError(
            316,
            where=base.path.name,
            seen=f"it has none of the {len(people):,} people of the source",
            wanted="ids that stand for the same people as the store's are wanted",
            do=(
                "Give --subjects, a table of the source's ids and the store's; other people's "
                "records go into a store of their own, with --out"
            ),
        )
    notify(f"Of {len(people):,} people of the source the store had {known:,}.")


def _parts(stores: Sequence[SiteStore]) -> Iterator[SourcePart]:
    known = {code: np.zeros(0, np.int64) for code in VITAL_CODES}
    for number, store in enumerate(stores):
        for file, layer in event_files(store.path):
            where = f"{number}/{file.relative_to(store.path).as_posix()}"
            rows = pq.read_metadata(file).num_rows
            yield SourcePart(where, rows, _events(file, where, layer, dict(known)))
        known = {code: store.first_times(code)[0] for code in VITAL_CODES}


def _events(
    file: Path, where: str, layer: StoreLayer, known: dict[str, np.ndarray]
) -> Iterator[pa.Table]:
    """Yield a file's events without births and deaths that an earlier store has."""
    rows = layer.current(read_parquet(file, where, coded=("code",)))
    for code, people in known.items():
        said = pc.and_(
            pc.equal(rows["code"].cast(pa.string()), code),
            pc.is_in(rows["subject_id"], pa.array(people, pa.int64())),
        )
        rows = rows.filter(pc.invert(said)) if pc.any(said, min_count=0).as_py() else rows
    yield rows


def _write_rejected(draft: StoreDraft, stores: Sequence[SiteStore]) -> None:
    for store in stores:
        for file in in_order(store.path / REJECTED_FOLDER):
            stem = file.stem if file.stem in store.rejected else file.stem.rpartition("-")[0]
            draft.write_rejected(stem, read_parquet(file, file.name))


def _write_wearables(draft: StoreDraft, stores: Sequence[SiteStore]) -> int:
    """Write every device; return how many samples the stores have with different values."""
    differing = 0
    for device in sorted({name for store in stores for name in store.devices}):
        tables = [store.wearable(device) for store in stores if device in store.devices]
        table, unlike = put_together(tables)
        differing += unlike
        draft.write_wearable(device, sort_wearable(table))
    return differing


def _not_read(stores: Sequence[SiteStore], differing: int) -> dict[str, int]:
    total = {SAMPLES: differing}
    for store in stores:
        for kind, count in store.not_read.items():
            total[kind] = total.get(kind, 0) + count
    return total


def _splits(stores: Sequence[SiteStore]) -> pa.Table:
    first, second = (conform(read_splits(store.path), SPLITS, SPLITS_FILE) for store in stores)
    return pa.concat_tables([first, second.filter(pa.array(~np.isin(ids(second), ids(first))))])


def _codes(stores: Sequence[SiteStore]) -> pa.Table:
    """Return MEDS's table of codes: a code is described by the first store that says anything."""
    said: dict[str, dict[str, object]] = {}
    for store in stores:
        file = store.path / CODES_FILE
        table = conform(read_parquet(file, CODES_FILE), CODES, CODES_FILE)
        for row in table.to_pylist():
            before = said.setdefault(row["code"], row)
            for name, value in row.items():
                before[name] = before[name] or value
    return pa.Table.from_pylist(list(said.values()), schema=CODES)


def _source_codes(stores: Sequence[SiteStore]) -> dict[tuple[str, str], int]:
    """Return (code, code of the source that it stands for) → rows, of both stores."""
    total: dict[tuple[str, str], int] = {}
    for store in stores:
        if (store.path / SOURCE_CODES_FILE).is_file():
            for row in read_parquet(store.path / SOURCE_CODES_FILE, SOURCE_CODES_FILE).to_pylist():
                pair = (row["code"], row["source_code"])
                total[pair] = total.get(pair, 0) + row["rows"]
    return total


def _scores(stores: Sequence[SiteStore]) -> str:
    """Return how the stores' polygenic scores were normalised, '' without any."""
    markers = [read_marker(store.path).get(OWN_KEY, {}) for store in stores]
    return next((str(own["scores"]) for own in markers if own.get("scores")), "")


def several_sites(path: Path, sites: int) -> IngestError:
    """Return the error for a source of several sites, or of another by name."""
    return IngestError(
        317,
        where=path.name,
        seen=f"it gives {sites} {'site' if sites == 1 else 'sites'} by name",
        wanted="a source of one site is wanted, to go into one store",
        do="Ingest it with --out, or turn its column of sites off",
    )
