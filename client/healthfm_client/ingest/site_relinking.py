"""Sites whose integer ids are to become others: by the site's table, or by its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pyarrow as pa

from healthfm_client.ingest.reader_interface import ReaderOptions, Site, SitesInOneStream
from healthfm_client.ingest.subject_linking import SUBJECT, linked
from healthfm_core.data.store.event_stream import EventStream, StreamItem

Change = Callable[[pa.Table], pa.Table]


def relinked(
    sites: Iterator[Site | SitesInOneStream], options: ReaderOptions
) -> Iterator[Site | SitesInOneStream]:
    """Yield the sites with every subject_id replaced, or as they are where nothing is asked."""
    if options.subjects is None and options.key is None:
        yield from sites
        return
    change = partial(_table, options=options)
    for site in sites:
        if isinstance(site, SitesInOneStream):
            yield replace(
                site,
                stream=_stream(site.stream, change),
                labels={task: change(table) for task, table in site.labels.items()},
                splits=None if site.splits is None else change(site.splits),
            )
        else:
            yield _site(site, change)


def _site(site: Site, change: Change) -> Site:
    return replace(
        site,
        events=None if site.events is None else change(site.events),
        stream=None if site.stream is None else _stream(site.stream, change),
        wearables={device: change(table) for device, table in site.wearables.items()},
        scores=None if site.scores is None else change(site.scores),
        labels={task: change(table) for task, table in site.labels.items()},
        splits=None if site.splits is None else change(site.splits),
    )


def _stream(stream: EventStream, change: Change) -> EventStream:
    def tables(read: Callable[[], Iterator[StreamItem]]) -> Iterator[StreamItem]:
        for found in read():
            yield change(found) if isinstance(found, pa.Table) else found

    parts = tuple(replace(part, tables=partial(tables, part.tables)) for part in stream.parts)
    return replace(stream, parts=parts)


def _table(table: pa.Table, options: ReaderOptions) -> pa.Table:
    at = table.column_names.index(SUBJECT)
    return table.set_column(at, SUBJECT, linked(table[SUBJECT], options, "subject_id"))
