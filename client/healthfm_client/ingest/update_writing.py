"""A store with an update, in the making: what stays is linked, events go into a new layer."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from meds import birth_code

from healthfm_client.ingest.codes.code_table import describe_codes, read_codes
from healthfm_client.ingest.pipeline import ShowProgress, joined_splits, refuse_emptied
from healthfm_client.ingest.reader_interface import ReaderOptions, Site
from healthfm_client.ingest.seen_rows import SeenRows
from healthfm_client.ingest.source_record import SourceRecord, as_json
from healthfm_client.ingest.tables.known_rows import drop_known
from healthfm_client.ingest.update_events import (
    born_later,
    earlier_rows,
    groups,
    kept_beside,
    of_codes,
    same_as_before,
    watched,
)
from healthfm_core.arrays import Int64
from healthfm_core.data.store.compacted_store import link_all
from healthfm_core.data.store.event_spool import EventSpool
from healthfm_core.data.store.event_stream import EventStream, SourcePart
from healthfm_core.data.store.events import ids, repeated, times_us
from healthfm_core.data.store.genetics import score_events
from healthfm_core.data.store.integrity import check_schemas, read_splits
from healthfm_core.data.store.labels import check_labels
from healthfm_core.data.store.rejected_files import rejected_by_reason
from healthfm_core.data.store.schemas import CODES, SOURCE_CODES, WEARABLE, conform
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_draft import StoreDraft
from healthfm_core.data.store.store_files import (
    CODES_FILE,
    LABELS_FOLDER,
    OWN_KEY,
    REJECTED_FOLDER,
    SOURCE_CODES_FILE,
    WEARABLE_FOLDER,
    in_order,
    may_hold,
    read_marker,
    read_parquet,
    write_marker,
    write_parquet,
)
from healthfm_core.data.store.store_layers import (
    REPLACED_FILE,
    UPDATES_FOLDER,
    layers_of,
    update_folders,
)
from healthfm_core.data.store.stream_stages import read_into
from healthfm_core.data.store.wearables import check_wearable, put_together, sort_wearable

How: TypeAlias = Literal["rows", "people"]
ROWS: Final = "rows"
PEOPLE: Final = "people"
_NEVER_US: Final = int(np.iinfo(np.int64).max)
_SUBJECT: Final = "subject_id"


@dataclass
class StoreUpdate:
    """One source on its way into the store that was made of it.

    Attributes:
        base: The store.
        how: Whether the source has new rows, or people with all that they have.
        options: The reader's.
        draft: The store in the making.
        apart: Where rows wait.
        show_progress: Shows the rows read and written.
        seen: Whose events the source gave.
        others: Arrays of who else is in the source.
        added: Events written.
        had: Events of the source that the store had.
        known_codes: Their codes.
        replaced: Whose events were replaced.
        new_codes: Codes that the store did not have.
        changed: Whether anything of the store is another now.
    """

    base: SiteStore
    how: How
    options: ReaderOptions
    draft: Path
    apart: Path
    show_progress: ShowProgress
    seen: SeenRows = field(default_factory=SeenRows)
    others: list[Int64] = field(default_factory=list)
    added: int = 0
    had: int = 0
    known_codes: frozenset[str] = frozenset()
    replaced: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    new_codes: int = 0
    changed: bool = False

    @property
    def everyone(self) -> Int64:
        """Who is in the source, ascending."""
        return np.unique(np.concatenate([self.seen.everyone, *self.others]))

    def write(
        self, site: Site, record: SourceRecord, read: set[str], sources: list[SourceRecord]
    ) -> None:
        """Write the store with what a site's reader gave.

        Args:
            site: Without who was forgotten.
            record: Of the source as it is now.
            read: Names of its parts that the store has read.
            sources: What dataset.json shall note.

        Raises:
            IngestError: HF-315, and what reading raises.
            StoreError: HF-2xx.
        """
        store = self.base.path
        link_all(store, self.draft)
        numbers = [int(folder.name) for folder in update_folders(store)]
        layer = self.draft / UPDATES_FOLDER / str(max(numbers, default=0) + 1)
        splits = joined_splits(read_splits(store), site.splits)
        with closing(StoreDraft(self.draft, self.base.name, splits, layer)) as draft:
            spool = self._write_events(site, record, read, draft)
            for reason, rows in site.rejected.items():
                draft.write_rejected(reason, rows)
            draft.close()
            draft.set_aside.kept += self.had
            refuse_emptied(draft, self.options.max_set_aside, self.known_codes)
            if self.how == PEOPLE:
                self.replaced = np.intersect1d(draft.subjects, self.base.subjects())
                self._take_back()
            if len(self.replaced):
                people = pa.table({_SUBJECT: pa.array(self.replaced)})
                write_parquet(people, layer / REPLACED_FILE)
            aside = drop_known(store / REJECTED_FOLDER, self.draft / REJECTED_FOLDER)
            self._write_wearables(site, draft)
            self._write_people(draft)
            self._write_labels(site, draft)
            self._write_codes(site, spool, draft)
            self._write_source_codes(Counter(site.source_codes) + spool.source_codes)
            self._mark(site, spool, draft, sources)
            self.changed |= bool(self.added or aside or site.wearables)
        check_schemas(self.draft)

    def _write_events(
        self, site: Site, record: SourceRecord, read: set[str], draft: StoreDraft
    ) -> EventSpool:
        """Write the events that the store does not have; return the spool that they came by."""
        stream = _stream(site, draft.name)
        new = EventSpool(self.apart / "new", draft.name, expected=stream.rows)
        new.done = read
        only = self.base.subjects() if self.how == ROWS else None
        for rows in read_into(new, watched(stream, self.seen, only), keep=False):
            self.show_progress("reading", rows, stream.rows)
        old = EventSpool(self.apart / "earlier", draft.name)
        who, store = self.seen.everyone, self.base.path
        if self.how == ROWS:
            self.replaced = self._add_earlier(old)
        else:
            for table in kept_beside(store, record.kinds, who, draft.name):
                new.add(table)
        for rejected in new.rejected():
            draft.write_rejected(rejected.reason, rejected.rows)
        for group in groups(new, old, self.replaced, stream):
            events = group.cleaned.events
            if events.num_rows:
                draft.write_group(events, texts=new.has_text or old.has_text)
            for reason, table in group.cleaned.rejected.items():
                draft.write_rejected(reason, table)
            self.added += events.num_rows - group.again
            self.had += group.had
            self.known_codes |= group.codes
            self.show_progress("writing", self.added + self.had, new.rows)
        return new

    def _add_earlier(self, old: EventSpool) -> Int64:
        """Put what the store has, and may equal or contradict the new, into a spool.

        Returns:
            Whose whole record it is, which has to be written anew.
        """
        found = [np.zeros(0, np.int64)]
        for table in same_as_before(self.base.path, self.seen):
            found.append(np.unique(ids(table)[of_codes(table, (birth_code,))]))
            old.add(table)
        anew = born_later(self.base, self.seen, np.unique(np.concatenate(found)))
        for layer in layers_of(self.base.path):
            for table in earlier_rows(layer, layer.files(), anew, "true", self.base.name):
                old.add(table)
        return anew

    def _take_back(self) -> None:
        """Take back what was set aside of whose events were written."""
        store = self.base.path
        for file in in_order(store / REJECTED_FOLDER):
            if _names_some(file, self.replaced):
                left = _without(read_parquet(file, file.name), self.replaced)
                place = self.draft / file.relative_to(store)
                place.unlink()
                if left.num_rows:
                    write_parquet(left, place)

    def _write_wearables(self, site: Site, draft: StoreDraft) -> None:
        for device, given in site.wearables.items():
            where = f"{WEARABLE_FOLDER}/{device}"
            rows = conform(given, WEARABLE, f"{draft.name}: {where}")
            self.others.append(np.unique(ids(rows)))
            tables = [rows]
            if device in self.base.devices:
                before = self.base.wearable(device)
                tables = [_without(before, ids(rows)) if self.how == PEOPLE else before, rows]
            table = sort_wearable(put_together(tables)[0])
            check_wearable(table, where)
            shutil.rmtree(self.draft / WEARABLE_FOLDER / device, ignore_errors=True)
            draft.write_wearable(device, table)

    def _write_people(self, draft: StoreDraft) -> None:
        """Give whoever is new a place in the splits."""
        if len(np.setdiff1d(draft.subjects, self.base.subjects())):
            draft.note_people(self.base.subjects())
            draft.write_splits()

    def _write_labels(self, site: Site, draft: StoreDraft) -> None:
        """Add the labels of a person and time of which the store has none."""
        everyone = np.union1d(draft.subjects, self.base.subjects())
        for task, given in site.labels.items():
            where = f"{LABELS_FOLDER}/{task}.parquet"
            table = given.filter(pc.is_in(given[_SUBJECT], pa.array(everyone)))
            before = self.base.labels(task) if task in self.base.tasks else table.slice(0, 0)
            both = pa.concat_tables([before, table], promote_options="permissive")
            again = repeated([ids(both), times_us(both, "prediction_time")])
            if not again[before.num_rows :].all():
                labels = check_labels(both.filter(pa.array(~again)), everyone, where)
                write_parquet(labels, self.draft / where)
                self.changed = True

    def _write_codes(self, site: Site, spool: EventSpool, draft: StoreDraft) -> None:
        """Add what is said of codes that the store does not have, and of those above them."""
        before = conform(read_parquet(self.base.path / CODES_FILE, CODES_FILE), CODES, CODES_FILE)
        new = sorted(set(draft.codes) - set(before["code"].to_pylist()))
        self.new_codes = len(new)
        if not new:
            return
        known = None if self.options.codes is None else read_codes(self.options.codes)
        described = describe_codes(site, new, spool.texts, known)
        table = draft.code_table(described, "" if site.scores is None else site.normalisation)
        more = table.filter(pc.invert(pc.is_in(table["code"], before["code"].combine_chunks())))
        write_parquet(pa.concat_tables([before, more]).sort_by("code"), self.draft / CODES_FILE)

    def _write_source_codes(self, mapped: Counter[tuple[str, str]]) -> None:
        if not mapped:
            return
        file = self.base.path / SOURCE_CODES_FILE
        before = read_parquet(file, file.name) if file.is_file() else SOURCE_CODES.empty_table()
        for row in before.to_pylist():
            mapped[row["code"], row["source_code"]] += row["rows"]
        rows = [{"code": c, "source_code": s, "rows": n} for (c, s), n in sorted(mapped.items())]
        table = pa.Table.from_pylist(rows, schema=SOURCE_CODES)
        write_parquet(table, self.draft / SOURCE_CODES_FILE)

    def _mark(
        self, site: Site, spool: EventSpool, draft: StoreDraft, sources: list[SourceRecord]
    ) -> None:
        """Write dataset.json, last of all."""
        marker = read_marker(self.base.path)
        own = dict(marker.get(OWN_KEY, {}))
        reasons = {**own.get("rejected", {}), **draft.rejected}
        not_read = Counter(own.get("not_read", {})) + spool.not_read + Counter(site.not_read)
        own |= {
            "rejected": rejected_by_reason(self.draft / REJECTED_FOLDER, reasons),
            "not_read": dict(sorted(not_read.items())),
            "sources": as_json(sources),
            "scores": own.get("scores") or (None if site.scores is None else site.normalisation),
        }
        devices = {file.parent.name for file in in_order(self.draft / WEARABLE_FOLDER)}
        names = [f"{WEARABLE_FOLDER}/{device}" for device in sorted(devices)]
        told = {**marker, "additional_value_modality_columns": names, OWN_KEY: own}
        write_marker(self.draft, told)


def in_memory(site: Site) -> Site:
    """Return a site whose wearables are tables, since old and new rows are put into one.

    What is set aside or not read of them is then the site's.
    """
    if site.wearing is None:
        return site
    wearables: dict[str, list[pa.Table]] = {}
    rejected = {reason: [rows] for reason, rows in site.rejected.items()}
    not_read = Counter(site.not_read)
    for part in site.wearing.parts:
        for device, rows in part.wearables.items():
            wearables.setdefault(device, []).append(conform(rows, WEARABLE, device))
        for reason, rows in part.rejected.items():
            rejected.setdefault(reason, []).append(rows)
        not_read.update(part.not_read)
    return replace(
        site,
        wearables={device: pa.concat_tables(tables) for device, tables in wearables.items()},
        wearing=None,
        rejected={reason: pa.concat_tables(tables) for reason, tables in rejected.items()},
        not_read=not_read,
    )


def _stream(site: Site, name: str) -> EventStream:
    """Return a site's events as one stream, scores behind the others."""
    stream = site.stream or EventStream((), _NEVER_US)
    more = [SourcePart("events", len(site.events), [site.events])] if site.events else []
    if site.scores is not None:
        scores = score_events(site.scores, f"{name}: polygenic scores")
        more.append(SourcePart("scores", len(scores), [scores]))
    return EventStream((*stream.parts, *more), stream.now_us, stream.limits)


def _without(rows: pa.Table, subjects: Int64) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows[_SUBJECT], pa.array(np.unique(subjects)))))


def _names_some(file: Path, subjects: Int64) -> bool:
    """Whether a file's rows bear a subject_id that may be one of `subjects`."""
    schema = pa.parquet.read_schema(file)
    at = schema.get_field_index(_SUBJECT)
    integer = at >= 0 and pa.types.is_integer(schema.field(at).type)
    return integer and may_hold(file, file.name, pa.array(subjects))
