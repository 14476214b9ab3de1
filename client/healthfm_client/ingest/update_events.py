"""What an update adds to a store's events, worked out against what the store has of those people.

Of an update of rows, an event is added that the store does not have; a birth or death that it has
stays. Of an update of people, the source's events take the place of theirs, but for those of a kind
that the source does not give.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from healthfm_client.ingest.seen_rows import SeenRows
from healthfm_client.ingest.source_record import EVENTS, SCORES, WEARABLES
from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader
from healthfm_core.arrays import Bool, Int64
from healthfm_core.data.store.event_spool import EventSpool
from healthfm_core.data.store.event_stream import EventStream, SourcePart, StreamItem
from healthfm_core.data.store.events import are_among, coded, duplicates, ids
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_files import CODES_FILE, read_parquet
from healthfm_core.data.store.store_layers import StoreLayer, layers_of
from healthfm_core.data.store.stream_stages import CleanedGroup, sort_and_clean
from healthfm_core.modalities.genomics import PRS_PREFIX
from healthfm_core.modalities.registry import VITAL_CODES
from healthfm_core.modalities.wearable import WEARABLE_PREFIX


def of_codes(rows: pa.Table, codes: Sequence[str]) -> Bool:
    """Return where a row's code is one of `codes`."""
    index, names = coded(rows["code"])
    return np.append(np.isin(np.array(names, dtype=object), codes), False)[index]


def watched(stream: EventStream, seen: SeenRows, everyone: Int64 | None) -> EventStream:
    """Return a stream whose rows are noted as they are read.

    Args:
        stream: Of a source.
        seen: Where they are noted.
        everyone: Of a table that has a row for each person, only those are read who are not among
            these or have rows elsewhere; None reads all.
    """
    last = sorted(stream.parts, key=lambda part: part.of_everyone)
    parts = [replace(part, tables=_noted(part, seen, everyone)) for part in last]
    return replace(stream, parts=tuple(parts))


def _noted(part: SourcePart, seen: SeenRows, everyone: Int64 | None) -> Iterator[StreamItem]:
    concerned: Int64 | None = None
    for item in part.tables:
        if isinstance(item, pa.Table):
            if part.of_everyone and everyone is not None:
                concerned = seen.everyone if concerned is None else concerned
                who = ids(item)
                item = item.filter(pa.array(np.isin(who, concerned) | ~np.isin(who, everyone)))
            seen.note(item)
        yield item


def same_as_before(store: Path, seen: SeenRows) -> Iterator[pa.Table]:
    """Yield those events of a store that may equal or contradict the rows of an update.

    A file is not read of which its own statistics and the store's codes say that it has none.

    Args:
        store: A store.
        seen: The rows of the update.

    Raises:
        StoreError: HF-209.
    """
    has_vital, people = _has_code(store, VITAL_CODES), seen.everyone
    for layer in layers_of(store):
        for file in layer.files():
            if has_vital or seen.may_be_in(file):
                rows = seen.among(file, layer, people)
                if rows is not None:
                    yield rows


def born_later(store: SiteStore, seen: SeenRows, found: Int64) -> Int64:
    """Return who of a store has a birth in an update for the first time, ascending.

    What the store has of them may be from before it.

    Args:
        store: The store.
        seen: The rows of the update.
        found: Who has a birth in the store, of the update's people.
    """
    return np.setdiff1d(np.intersect1d(seen.born, store.subjects()), found)


def kept_beside(store: Path, kinds: Iterable[str], people: Int64, where: str) -> Iterator[pa.Table]:
    """Yield those events of people who are replaced that are of a kind the source does not give."""
    of_kind = {SCORES: PRS_PREFIX, WEARABLES: WEARABLE_PREFIX}
    if EVENTS in kinds:
        kept = [prefix for kind, prefix in of_kind.items() if kind not in kinds]
        condition = " OR ".join(f"starts_with(code, '{prefix}')" for prefix in kept)
        if not kept or not _has_prefix(store, kept):
            return
    else:
        condition = f"NOT starts_with(code, '{PRS_PREFIX}')"
    for layer in layers_of(store):
        yield from earlier_rows(layer, layer.files(), people, condition, where)


def earlier_rows(
    layer: StoreLayer, files: Sequence[Path], people: Int64, condition: str, where: str
) -> Iterator[pa.Table]:
    """Yield the events of some people in a layer's files that count and fulfil a condition.

    Args:
        layer: Of a store.
        files: Of the layer.
        people: Whose.
        condition: SQL over subject_id, time, code and numeric_value.
        where: Named in an error.
    """
    wanted = np.setdiff1d(people, layer.replaced)
    if not files or not len(wanted):
        return
    listed = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    texts = ", text_value" if "text_value" in pq.read_schema(files[0]).names else ""
    reader = DuckDBReader()
    reader.connection.register("wanted", pa.table({"subject_id": wanted}))
    yield from reader.batches(
        f"SELECT subject_id, time, code, numeric_value{texts} FROM read_parquet([{listed}]) "
        f"SEMI JOIN wanted USING (subject_id) WHERE {condition}",
        Path(where),
    )


@dataclass(frozen=True)
class MergedGroup:
    """What became of the rows of some people.

    Attributes:
        cleaned: What the update adds, and what it sets aside.
        had: How many of its rows the store had.
        codes: Of those.
        again: How many of the events that it adds the store had: all of who is written anew.
    """

    cleaned: CleanedGroup
    had: int = 0
    codes: frozenset[str] = frozenset()
    again: int = 0


def merged(new: pa.Table, old: pa.Table, anew: Int64, stream: EventStream) -> MergedGroup:
    """Return what a group of an update adds.

    Args:
        new: The update's events of some people, in any order.
        old: Those of the store's that may equal or contradict them; all of who is written anew.
        anew: Who is: what the store has of them has to be cleaned again.
        stream: Says what cannot be true.
    """
    if not old.num_rows:
        return MergedGroup(sort_and_clean(new, stream))
    vital = [(code, np.unique(ids(old)[of_codes(old, (code,))])) for code in VITAL_CODES]
    known = are_among(new, old)
    for code, people in vital:
        known |= of_codes(new, (code,)) & np.isin(ids(new), people)
    before = old.filter(pa.array(of_codes(old, VITAL_CODES) | np.isin(ids(old), anew)))
    before = before.filter(pa.array(~duplicates(before)))
    left = new.filter(pa.array(~known))
    cleaned = sort_and_clean(
        pa.concat_tables([before, left], promote_options="permissive").unify_dictionaries(), stream
    )
    again = np.isin(ids(cleaned.events), anew) & are_among(cleaned.events, old)
    theirs = np.zeros(cleaned.events.num_rows, np.bool_)
    for code, people in vital:
        theirs |= of_codes(cleaned.events, (code,)) & np.isin(ids(cleaned.events), people)
    added = CleanedGroup(cleaned.events.filter(pa.array(again | ~theirs)), cleaned.rejected)
    had = new.filter(pa.array(known))["code"].unique().to_pylist()
    return MergedGroup(added, int(known.sum()), frozenset(had), int(again.sum()))


def groups(
    new: EventSpool, old: EventSpool, anew: Int64, stream: EventStream
) -> Iterator[MergedGroup]:
    """Yield what becomes of each group of an update's rows, see `merged`."""
    for cells in new.groups():
        rows = new.take(cells)
        if rows.num_rows:
            yield merged(rows, old.take(cells), anew, stream)


def _has_code(store: Path, codes: Sequence[str]) -> bool:
    return bool(pc.any(pc.is_in(_codes(store), pa.array(codes, pa.string()))).as_py())


def _has_prefix(store: Path, prefixes: Sequence[str]) -> bool:
    return any(pc.any(pc.starts_with(_codes(store), prefix)).as_py() for prefix in prefixes)


def _codes(store: Path) -> pa.ChunkedArray:
    """Return the codes of a store and those above them."""
    return read_parquet(store / CODES_FILE, CODES_FILE, ["code"])["code"]
