"""A source read again does not bring back whom the store has forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.reader_interface import Site, WearingPart, WearingStream
from healthfm_core.data.store.event_stream import RejectedRows, StreamItem
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
        wearables=_tables(site.wearables, forgotten),
        wearing=None if site.wearing is None else _wearing(site.wearing, forgotten),
        scores=kept(site.scores),
        labels=_tables(site.labels, forgotten),
        splits=kept(site.splits),
        rejected=_tables(site.rejected, forgotten),
    )


def _wearing(wearing: WearingStream, forgotten: ForgottenPeople) -> WearingStream:
    return replace(wearing, parts=_parts(wearing.parts, forgotten))


def _parts(parts: Iterable[WearingPart], forgotten: ForgottenPeople) -> Iterator[WearingPart]:
    for part in parts:
        wearables, rejected = (_tables(of, forgotten) for of in (part.wearables, part.rejected))
        yield replace(part, wearables=wearables, rejected=rejected)


def _tables(tables: Mapping[str, pa.Table], forgotten: ForgottenPeople) -> dict[str, pa.Table]:
    return {name: _kept(table, forgotten) for name, table in tables.items()}


def _items(items: Iterable[StreamItem], forgotten: ForgottenPeople) -> Iterator[StreamItem]:
    for item in items:
        if isinstance(item, RejectedRows):
            yield RejectedRows(item.reason, _kept(item.rows, forgotten))
        else:
            yield _kept(item, forgotten) if isinstance(item, pa.Table) else item


def _kept(table: pa.Table, forgotten: ForgottenPeople) -> pa.Table:
    """Return a table without their rows; one that names nobody by a number is as it was."""
    if "subject_id" not in table.column_names or not _is_number(table["subject_id"].type):
        return table
    gone = forgotten.among(np.unique(table["subject_id"].drop_null().to_numpy()))
    if not len(gone):
        return table
    return table.filter(pc.invert(pc.is_in(table["subject_id"], pa.array(gone))))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))
