"""``ingest … --out STORE --update rows|people``: what is new in a source, into its store.

Files that do not change are linked, so the cost is that of what is new. A store of which a quarter
lies in updates is put together again. The whole takes the store's place, or nothing changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from healthfm_client.fhir_export.export_state import refuse_partial_records
from healthfm_client.ingest.interrupted import output_lock, remove_leftovers
from healthfm_client.ingest.into_store import several_sites
from healthfm_client.ingest.pipeline import (
    Notify,
    ShowProgress,
    ignore_notice,
    ignore_progress,
    opened_source,
    read_sites,
)
from healthfm_client.ingest.source_record import SourceRecord, file_facts
from healthfm_client.ingest.tables.archives import scratch_folder
from healthfm_client.ingest.update_writing import PEOPLE, ROWS, How, StoreUpdate, in_memory
from healthfm_client.ingest.without_forgotten import without_forgotten
from healthfm_core.arrays import Int64
from healthfm_core.data.store.compacted_store import compact, merge_updates, share_in_updates
from healthfm_core.data.store.draft_folder import draft_beside, publish
from healthfm_core.data.store.event_stream import EventStream
from healthfm_core.data.store.forgotten_people import ForgottenPeople, write_without
from healthfm_core.data.store.genetics import COMPONENTS_Z, SITE_Z
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import keep_quality, read_marker
from healthfm_core.data.store.store_layers import update_folders
from healthfm_core.errors import IngestError

MOST_IN_UPDATES: Final = 0.25
"""Rows in updates by rows in a store's own files; above it they are put together."""
MOST_UPDATES: Final = 30
"""Updates beside a store's own files; when there are more they are made one."""
MOST_ABSENT: Final = 0.2
"""Share of a store's people who may be gone; above it the source is taken for a part of itself."""


def update_store(
    source: str,
    path: Path,
    store: Path,
    how: How,
    *,
    remove_absent: bool = False,
    out: Path | None = None,
    show_progress: ShowProgress = ignore_progress,
    notify: Notify = ignore_notice,
    **options: Any,
) -> Path:
    """Add what is new in a source to the store that was made of it.

    Args:
        source: A reader's name, or ``auto``.
        path: File or folder of the raw data.
        store: The store.
        how: ``rows``: `path` has rows that are new; ``people``: it has all of everyone in it.
        remove_absent: Take out who is not in `path`, which then is the whole source.
        out: Where the whole is put; None is in the place of `store`.
        show_progress: Shows the rows read and written.
        notify: Shows what was added, and what the reader has to say.
        options: The reader's options by name, as the store was made with.

    Returns:
        The store's folder.

    Raises:
        ConfigError: HF-101, HF-102 for the options.
        IngestError: HF-317, HF-319 to HF-322, HF-334, and what `ingest` raises.
        StoreError: HF-2xx, where what comes of it would be no sound store.
    """
    path, out = Path(path), store if out is None else out
    with output_lock(out) as locked:
        for notice in remove_leftovers(out) if locked else []:
            notify(notice)
        base = SiteStore.open(store)
        with (
            scratch_folder(out) as scratch,
            draft_beside(out) as apart,
            draft_beside(out) as draft,
            draft_beside(out) as whole,
        ):
            reader, raw, parsed = opened_source(source, path, scratch, options)
            if how == PEOPLE:
                refuse_partial_records(path)
            update = StoreUpdate(base, how, parsed, draft, apart, show_progress)
            sites = read_sites(reader, raw, parsed, apart, None, show_progress, notify)
            for number, (site, _) in enumerate(sites):
                if number or site.name not in (None, store.name):
                    raise several_sites(path, number + 1)
                if site.scores is not None and site.normalisation in (SITE_Z, COMPONENTS_Z):
                    raise IngestError(322, where=path.name)
                record = SourceRecord.of(reader, parsed, site, path)
                before = _record_before(base, record, how, remove_absent)
                read = _parts_read(site.stream, before) if how == ROWS else set()
                sources = _with(base, before, record)
                kept = in_memory(without_forgotten(site, ForgottenPeople.of(store)))
                update.write(kept, record, read, sources)
            absent = np.zeros(0, np.int64)
            if remove_absent:
                absent = _absent(update)
            _say(update, absent, notify)
            if update.changed or len(absent) or out != store:
                publish(_settled(update, absent, whole, notify), out)
    return out


def _record_before(
    base: SiteStore, record: SourceRecord, how: How, remove_absent: bool
) -> SourceRecord:
    """Return what the store noted of the source when it was read last.

    Raises:
        IngestError: HF-320.
    """
    noted = SourceRecord.all_of(read_marker(base.path))
    of_reader = [one for one in noted if one.reader == record.reader]
    if not of_reader:
        read = " and ".join(sorted({one.reader for one in noted}))
        raise _other_source(
            base,
            f"it was read by {read}" if read else "it does not say what it was read from",
            f"what {record.reader} reads goes into a store that {record.reader} made",
            "Ingest the source anew with --overwrite"
            if not noted
            else "Name that reader; another source of the same people goes in with --into",
        )
    same = [one for one in of_reader if not one.differs_in(record)]
    if not same:
        raise _other_source(
            base,
            f"the store was made with another {', '.join(of_reader[0].differs_in(record))}",
            "the same options and vocabularies give the same people and codes",
            "Give what the store was made with",
        )
    others = [one for one in noted if one is not same[0]]
    shared = sorted(record.kinds.intersection(*[frozenset().union(*(o.kinds for o in others))]))
    if (how == PEOPLE and shared) or (remove_absent and others):
        what = f"{' and '.join(shared)} of several sources" if shared else "several sources"
        raise _other_source(
            base,
            f"it has {what}, and not which row is whose",
            "a store of one source is wanted to replace or remove people",
            "Give --update rows, or ingest each source anew",
        )
    return same[0]


def _parts_read(stream: EventStream | None, before: SourceRecord) -> set[str]:
    """Return the names of the parts that are files which were read and have not changed.

    Where there is one, what is counted of other tables, a part without rows, was counted then too.

    Raises:
        IngestError: HF-319 where one that was read has changed.
    """
    parts = stream.parts if stream is not None else ()
    read = set()
    for part in parts:
        if part.file is None or part.of_everyone:
            continue
        noted = before.files.get(str(part.file.resolve()))
        if noted is not None and noted != file_facts(part.file):
            raise IngestError(319, where=part.name, seen="it was read before, and has changed")
        if noted is not None:
            read.add(part.name)
    counted = {part.name for part in parts if part.file is None and not part.rows}
    return read | counted if read else read


def _with(base: SiteStore, before: SourceRecord, now: SourceRecord) -> list[SourceRecord]:
    """Return what a store notes of its sources, with one read again."""
    noted = SourceRecord.all_of(read_marker(base.path))
    return [one.with_files_of(now) if one == before else one for one in noted]


def _absent(update: StoreUpdate) -> Int64:
    """Return who is in the store and not in the source.

    Raises:
        IngestError: HF-321 where they are many.
    """
    people = update.base.subjects()
    absent = np.setdiff1d(people, update.everyone)
    if len(absent) > MOST_ABSENT * len(people):
        raise IngestError(
            321,
            where=update.base.path.name,
            seen=f"{len(absent):,} of its {len(people):,} people are not in the source",
            wanted=f"with --remove-absent the whole source is wanted; at most "
            f"{100 * MOST_ABSENT:g} % may be gone",
        )
    return absent


def _settled(update: StoreUpdate, absent: Int64, whole: Path, notify: Notify) -> Path:
    """Return the folder of the new store, put together where it is time."""
    draft = update.draft
    if len(absent):
        write_without(draft, whole, absent)
        ForgottenPeople.of(draft).write(whole)
        keep_quality(draft, whole)
        return whole
    share, updates = share_in_updates(draft), len(update_folders(draft))
    if share > MOST_IN_UPDATES:
        notify(f"Updates have {100 * share:.0f} % of the rows beside them: they are put together.")
        compact(draft, whole)
        return whole
    if updates > MOST_UPDATES:
        notify(f"There are {updates} updates: they are made one.")
        merge_updates(draft, whole)
        return whole
    return draft


def _say(update: StoreUpdate, absent: Int64, notify: Notify) -> None:
    if not update.changed and not len(absent):
        notify("Nothing in it is new to the store.")
        return
    people = update.everyone
    known = len(np.intersect1d(people, update.base.subjects()))
    notify(f"Of {len(people):,} people of the source the store had {known:,}.")
    if update.how == PEOPLE:
        notify(
            f"{update.added:,} rows are in the place of what the store had of "
            f"{len(update.replaced):,} people."
        )
    else:
        notify(f"{update.added:,} rows are new; {update.had:,} the store had.")
    if update.new_codes:
        notify(f"{update.new_codes:,} codes are new to the store.")
    if len(absent):
        notify(f"{len(absent):,} people are not in the source any more, and were taken out.")


def _other_source(base: SiteStore, seen: str, wanted: str, do: str) -> IngestError:
    return IngestError(320, where=base.path.name, seen=seen, wanted=wanted, do=do)
