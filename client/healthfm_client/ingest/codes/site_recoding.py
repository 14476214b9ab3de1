"""Sites whose codes are to be others: everybody's spelling, or what the site's own mapping says.

A column at a time, by distinct code. Of a mapping, which code became which is noted, with its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from healthfm_client.ingest.codes.code_mapping import CodeMapping
from healthfm_client.ingest.codes.distinct_codes import CodeAndUnit, DistinctRows, converted
from healthfm_client.ingest.codes.shared_spellings import shared_spelling
from healthfm_client.ingest.reader_interface import Site
from healthfm_core.data.store.event_stream import (
    CodeTexts,
    EventStream,
    SourceCodes,
    StreamItem,
)
from healthfm_core.data.store.events import duplicates, encoded
from healthfm_core.data.store.schemas import CODES, conform
from healthfm_core.data.store.store_files import CODES_FILE


@dataclass(frozen=True)
class SiteRecoding:
    """Puts every site's events under their codes.

    Attributes:
        mapping: The site's own tables; None where it has none.
    """

    mapping: CodeMapping | None = None

    def recoded(self, site: Site) -> Site:
        """Return what a reader gave with its codes as everybody spells them, or as mapped."""
        changed = replace(
            site,
            stream=None if site.stream is None else self._stream(site.stream),
            codes=None if site.codes is None else self._described(site.codes),
        )
        return changed if site.events is None else self._with_events(changed, site.events)

    def _with_events(self, site: Site, events: pa.Table) -> Site:
        """Return a site of these events; what two codes said of one thing is a double."""
        table, noted = self._table(events)
        again = duplicates(table) if table is not events else np.zeros(0, np.bool_)
        site = replace(
            site,
            codes=self._with_texts(site.codes, noted),
            source_codes={**site.source_codes, **noted},
        )
        if not again.any():
            return replace(site, events=table)
        twice = table.filter(pa.array(again))
        before = site.rejected.get("duplicate")
        if before is not None:
            twice = pa.concat_tables([before, twice], promote_options="permissive")
        rejected: Mapping[str, pa.Table] = {**site.rejected, "duplicate": twice}
        return replace(site, events=table.filter(pa.array(~again)), rejected=rejected)

    def _stream(self, stream: EventStream) -> EventStream:
        parts = [replace(part, tables=self._items(part.tables)) for part in stream.parts]
        return replace(stream, parts=tuple(parts))

    def _items(self, items: Iterable[StreamItem]) -> Iterator[StreamItem]:
        for item in items:
            if isinstance(item, pa.Table):
                table, noted = self._table(item)
                if noted:
                    yield SourceCodes(noted)
                    yield CodeTexts(self._texts(noted))
                yield table
            elif isinstance(item, CodeTexts):
                yield CodeTexts({self._name(code): text for code, text in item.of.items()})
            else:
                yield item

    def _table(self, table: pa.Table) -> tuple[pa.Table, Counter[tuple[str, str]]]:
        """Return rows under their codes, the same table where none changes, and what was mapped."""
        names = _names(table["code"])
        if self.mapping is not None:
            self.mapping.learn(names)
            if any(self._is_mapped(name) for name in names):
                return self._mapped(table)
        if all(shared_spelling(name) == name for name in names):
            return table, Counter()
        return _respelt(table), Counter()

    def _is_mapped(self, name: str) -> bool:
        return self.mapping is not None and self.mapping.new_codes(name, False) is not None

    def _mapped(self, table: pa.Table) -> tuple[pa.Table, Counter[tuple[str, str]]]:
        """Return rows under the codes of the mapping; one that becomes several is there again."""
        distinct = DistinctRows.of(
            table["code"].cast(pa.string()), table["numeric_value"].is_valid()
        )
        noted: Counter[tuple[str, str]] = Counter()
        new: list[CodeAndUnit] = []
        starts, counts = [], []
        rows_of = np.bincount(distinct.index, minlength=len(distinct.values)).tolist()
        for (name, has_value), rows in zip(distinct.values, rows_of, strict=True):
            targets = None
            if name is not None and self.mapping is not None:
                targets = self.mapping.new_codes(name, bool(has_value))
            for one in targets or ():
                noted[str(one.code), name] += rows
            own = targets or [CodeAndUnit(None if name is None else shared_spelling(name))]
            starts.append(len(new))
            counts.append(len(own))
            new += own
        times = np.array(counts, np.int64)[distinct.index]
        row = np.repeat(np.arange(table.num_rows), times)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
        which = np.array(starts, np.int64)[distinct.index][row] + nth
        whole = table if len(row) == table.num_rows else table.take(pa.array(row))
        return _under(whole, DistinctRows([(one,) for one in new], which), new), noted

    def _name(self, code: str) -> str:
        if self.mapping is not None:
            self.mapping.learn([code])
            targets = self.mapping.new_codes(code, False)
            if targets and targets[0].code:
                return targets[0].code
        return shared_spelling(code)

    def _texts(self, noted: Iterable[tuple[str, str]]) -> dict[str, str]:
        found: dict[str, str] = {}
        for _, source in noted:
            found |= {} if self.mapping is None else self.mapping.texts(source)
        return found

    def _with_texts(
        self, codes: pa.Table | None, noted: Iterable[tuple[str, str]]
    ) -> pa.Table | None:
        """Return what is known of codes, and what the mapping calls those that nobody describes."""
        texts = self._texts(noted)
        known = [] if codes is None else codes["code"].to_pylist()
        more = {code: text for code, text in texts.items() if code not in known}
        if not more:
            return codes
        above = pa.nulls(len(more), pa.list_(pa.string()))
        own = pa.table([list(more), list(more.values()), above], schema=CODES)
        return own if codes is None else pa.concat_tables([codes.cast(CODES), own])

    def _described(self, codes: pa.Table) -> pa.Table:
        """Return what a source says of codes, under their new names."""
        table = conform(codes, CODES, CODES_FILE)
        names = [self._name(code) for code in table["code"].to_pylist()]
        above = [
            None if of is None else [self._name(code) for code in of]
            for of in table["parent_codes"].to_pylist()
        ]
        columns = [names, table["description"], pa.array(above, pa.list_(pa.string()))]
        return _first_of_each(pa.table(columns, schema=CODES), names)


def _respelt(table: pa.Table) -> pa.Table:
    index, names = encoded(table["code"])
    new = [None if name is None else shared_spelling(name) for name in names.to_pylist()]
    number = {name: at for at, name in enumerate(dict.fromkeys(new))}
    place = np.append(np.array([number[name] for name in new], np.int32), np.int32(0))[index]
    code = pa.DictionaryArray.from_arrays(
        pa.array(place, mask=index < 0), pa.array(list(number), pa.string())
    )
    return _with_codes(table, code)


def _under(table: pa.Table, distinct: DistinctRows, new: Sequence[CodeAndUnit]) -> pa.Table:
    """Return rows under codes that have units of their own, numbers brought to these."""
    codes = distinct.coded(new)
    numbers = table["numeric_value"]
    value = np.asarray(numbers.fill_null(0.0).to_numpy(), np.float64)
    absent = np.asarray(numbers.is_null().to_numpy(), np.bool_)
    same = (codes.factor == 1) & (codes.offset == 0)
    changed = np.where(same, value, converted(value, codes.factor, codes.offset))
    at = table.column_names.index("numeric_value")
    own = pa.array(changed.astype(np.float32), mask=absent)
    return _with_codes(table.set_column(at, "numeric_value", own), codes.code)


def _with_codes(table: pa.Table, code: pa.DictionaryArray) -> pa.Table:
    kind = table["code"].type
    as_it_came = code if pa.types.is_dictionary(kind) else code.cast(kind)
    return table.set_column(table.column_names.index("code"), "code", as_it_came)


def _names(column: pa.ChunkedArray) -> set[str]:
    """Return the distinct codes of a column, and those that its dictionaries have beside them."""
    coded = pa.types.is_dictionary(column.type)
    distinct = [chunk.dictionary for chunk in column.chunks] if coded else [column.unique()]
    return {name for names in distinct for name in names.to_pylist() if name}


def _first_of_each(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return one row of each code: two spellings of the source are one code now."""
    first = {name: at for at, name in reversed(list(enumerate(names)))}
    return table if len(first) == len(names) else table.take(pa.array(sorted(first.values())))
