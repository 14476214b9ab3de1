"""Sites whose codes are to be spelled as everybody's: a column at a time, by distinct code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from healthfm_client.ingest.codes.shared_spellings import shared_spelling
from healthfm_client.ingest.codes.written_units import distinct_names
from healthfm_client.ingest.reader_interface import Site, SitesInOneStream
from healthfm_core.data.store.event_stream import CodeTexts, EventStream, StreamItem
from healthfm_core.data.store.events import duplicates, encoded
from healthfm_core.data.store.schemas import CODES, conform
from healthfm_core.data.store.store_files import CODES_FILE

Spell: TypeAlias = Callable[[str], str]
"""A source's code → that of the store."""


def recoded(given: Site | SitesInOneStream) -> Site | SitesInOneStream:
    """Return what a reader gave with its codes spelled as every reader spells them."""
    if isinstance(given, SitesInOneStream):
        return replace(given, stream=_stream(given.stream))
    changed = replace(
        given,
        stream=None if given.stream is None else _stream(given.stream),
        codes=None if given.codes is None else _described(given.codes),
    )
    return changed if given.events is None else _with_events(changed, given.events)


def _with_events(site: Site, events: pa.Table) -> Site:
    """Return a site of these events; what was two codes for one thing is set aside as a double."""
    table = _table(events)
    again = duplicates(table) if table is not events else np.zeros(0, np.bool_)
    if not again.any():
        return replace(site, events=table)
    twice = table.filter(pa.array(again))
    before = site.rejected.get("duplicate")
    rejected: Mapping[str, pa.Table] = {
        **site.rejected,
        "duplicate": twice
        if before is None
        else pa.concat_tables([before, twice], promote_options="permissive"),
    }
    return replace(site, events=table.filter(pa.array(~again)), rejected=rejected)


def _stream(stream: EventStream) -> EventStream:
    parts = [replace(part, tables=_items(part.tables)) for part in stream.parts]
    return replace(stream, parts=tuple(parts))


def _items(items: Iterable[StreamItem]) -> Iterator[StreamItem]:
    for item in items:
        if isinstance(item, pa.Table):
            yield _table(item)
        elif isinstance(item, CodeTexts):
            yield CodeTexts({shared_spelling(code): text for code, text in item.of.items()})
        else:
            yield item


def _table(table: pa.Table) -> pa.Table:
    """Return rows with their codes respelt; the same table where none is."""
    if not any(shared_spelling(name) != name for name in distinct_names(table["code"])):
        return table
    index, names = encoded(table["code"])
    new = [None if name is None else shared_spelling(name) for name in names.to_pylist()]
    number = {name: at for at, name in enumerate(dict.fromkeys(new))}
    place = np.array([number[name] for name in new], np.int32)[index]
    code = pa.DictionaryArray.from_arrays(
        pa.array(place, mask=index < 0), pa.array(list(number), pa.string())
    )
    at = table.column_names.index("code")
    kind = table["code"].type
    as_it_came = code if pa.types.is_dictionary(kind) else code.cast(kind)
    return table.set_column(at, "code", as_it_came)


def _described(codes: pa.Table) -> pa.Table:
    """Return what a source says of codes, under their new spelling."""
    table = conform(codes, CODES, CODES_FILE)
    names = _spelled(table["code"].to_pylist())
    above = [None if of is None else _spelled(of) for of in table["parent_codes"].to_pylist()]
    columns = [names, table["description"], pa.array(above, pa.list_(pa.string()))]
    return _first_of_each(pa.table(columns, schema=CODES), names)


def _spelled(codes: Sequence[str]) -> list[str]:
    return [shared_spelling(code) for code in codes]


def _first_of_each(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return one row of each code: two spellings of the source are one code now."""
    first = {name: at for at, name in reversed(list(enumerate(names)))}
    return table if len(first) == len(names) else table.take(pa.array(sorted(first.values())))
