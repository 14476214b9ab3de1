"""Sites whose integer ids are to become others: by the site's table, or by its key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from healthfm_client.ingest.reader_interface import (
    ReaderOptions,
    Site,
    SitesInOneStream,
    WearingPart,
    WearingStream,
)
from healthfm_client.ingest.subject_linking import SUBJECT, linked
from healthfm_core.data.store.event_stream import EventStream, StreamItem


def relinked(site: Site | SitesInOneStream, options: ReaderOptions) -> Site | SitesInOneStream:
    """Return what a reader gave with every subject_id replaced; as it is where nothing is asked."""
    if options.subjects is None and options.key is None:
        return site
    labels = _tables(site.labels, options)
    splits = None if site.splits is None else _table(site.splits, options)
    if isinstance(site, SitesInOneStream):
        return replace(site, stream=_stream(site.stream, options), labels=labels, splits=splits)
    return replace(
        site,
        events=None if site.events is None else _table(site.events, options),
        stream=None if site.stream is None else _stream(site.stream, options),
        wearables=_tables(site.wearables, options),
        wearing=None if site.wearing is None else _wearing(site.wearing, options),
        scores=None if site.scores is None else _table(site.scores, options),
        labels=labels,
        splits=splits,
    )


def _stream(stream: EventStream, options: ReaderOptions) -> EventStream:
    parts = [replace(part, tables=_items(part.tables, options)) for part in stream.parts]
    return replace(stream, parts=tuple(parts))


def _items(items: Iterable[StreamItem], options: ReaderOptions) -> Iterator[StreamItem]:
    for item in items:
        yield _table(item, options) if isinstance(item, pa.Table) else item


def _wearing(wearing: WearingStream, options: ReaderOptions) -> WearingStream:
    return replace(wearing, parts=_parts(wearing.parts, options))


def _parts(parts: Iterable[WearingPart], options: ReaderOptions) -> Iterator[WearingPart]:
    for part in parts:
        yield replace(part, wearables=_tables(part.wearables, options))


def _tables(tables: Mapping[str, pa.Table], options: ReaderOptions) -> dict[str, pa.Table]:
    return {name: _table(table, options) for name, table in tables.items()}


def _table(table: pa.Table, options: ReaderOptions) -> pa.Table:
    at = table.column_names.index(SUBJECT)
    return table.set_column(at, SUBJECT, linked(table[SUBJECT], options, "subject_id"))
