"""A source read again does not bring back whom the store has forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.reader_interface import Site
from healthfm_core.data.store.event_stream import StreamItem
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.forgotten_people import ForgottenPeople


def without_forgotten(site: Site, forgotten: ForgottenPeople) -> Site:
    """Return what a reader gave of a site without anybody in `forgotten`."""
    if not forgotten.hashes:
        return site

    def kept(table: pa.Table | None) -> pa.Table | None:
        return None if table is None else _kept(table, forgotten)

    stream = site.stream
    if stream is not None:
        parts = [replace(part, tables=_items(part.tables, forgotten)) for part in stream.parts]
        stream = replace(stream, parts=tuple(parts))
    return replace(
        site,
        events=kept(site.events),
        stream=stream,
        wearables={name: _kept(table, forgotten) for name, table in site.wearables.items()},
        scores=kept(site.scores),
        labels={name: _kept(table, forgotten) for name, table in site.labels.items()},
        splits=kept(site.splits),
        rejected={name: _kept(table, forgotten) for name, table in site.rejected.items()},
    )


def _items(items: Iterable[StreamItem], forgotten: ForgottenPeople) -> Iterator[StreamItem]:
    for item in items:
        yield _kept(item, forgotten) if isinstance(item, pa.Table) else item


def _kept(table: pa.Table, forgotten: ForgottenPeople) -> pa.Table:
    """Return a table without their rows; one that names nobody by a number is as it was."""
    if "subject_id" not in table.column_names or not _is_number(table["subject_id"].type):
        return table
    gone = forgotten.among(np.unique(ids(table)))
    if not len(gone):
        return table
    return table.filter(pc.invert(pc.is_in(table["subject_id"], pa.array(gone))))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))
