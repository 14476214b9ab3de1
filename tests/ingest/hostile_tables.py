"""Hypothesis strategies of whole files with hostile contents, for every reader.

`corrupt` of `hostile` changes bytes, which a Parquet file seldom survives. Here files are written
well, and what is in them is odd: columns of other types, missing or twice there, null ids, keys
twice, dates of the year 0 and 9999, NaN and infinities, negative durations, gigantic texts, texts
in other encodings; JSON and XML with odd values in odd places.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from pyarrow import csv

from tests.ingest.hostile import outcome
from tests.ingest.hostile_sources import SOURCES, Content, Source, write

WHOLE = [0, 1, -1, 7, 2**31, 2**63 - 1, -(2**63)]
NUMBERS = [0.0, -0.0, 1.5, -1.0, 1e39, 1e308, float("inf"), float("-inf"), float("nan")]
TEXTS = [
    *("", " ", "NULL", "NaN", "inf", "-1", "1e400", "0x10", "1,5", "9" * 40, "true"),
    *("0000-01-01", "0001-01-01", "9999-12-31", "99999-01-01", "2020-13-45", "2020-02-30T25:61:61"),
    *("2020-01-02", "2020-01-02T03:04:05Z", "2020-01-02T03:04:05+99:00", "1/2/2020 0:00:00 AM"),
    *("\x00", "\U0001f4a3", "a\nb", "a\r", '"', "//", "MEDS_BIRTH", "../../etc/passwd", "é" * 9),
    *("x" * 70_000, "{" * 2_000, "<!ENTITY a 'b'>", "=cmd|' /C calc'!A0", "\ufeff", "\u202e7"),
]
EXTREMES = st.sampled_from([0, 1, -1, -62_167_219_200, 253_402_300_799, 2**40, -(2**62), 2**62])
LARGEST = 6

scalars = st.none() | st.booleans() | st.sampled_from([*WHOLE, *NUMBERS, *TEXTS, 10**30])
odd = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "code"]), inner)
    ),
    max_leaves=3,
)


def _of(kind: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[pa.DataType, list]]:
    column = st.lists(st.none() | values, min_size=LARGEST, max_size=LARGEST)
    return column.map(lambda cells: (pa.type_for_alias(kind), cells))


STAMPS = ("timestamp[s]", "timestamp[ms]", "timestamp[us]", "timestamp[ns]", "date32", "time64[us]")
columns = st.one_of(
    *(_of(kind, EXTREMES if "t" in kind else st.nothing()) for kind in STAMPS),
    *(_of(kind, st.sampled_from(WHOLE)) for kind in ("int64",)),
    *(_of(kind, st.sampled_from([0, 1, 255 - 128])) for kind in ("int8", "uint16", "uint64")),
    *(_of(kind, st.sampled_from(NUMBERS)) for kind in ("float64",)),
    *(_of(kind, st.sampled_from(TEXTS)) for kind in ("string", "large_string", "string_view")),
    _of("uint64", st.sampled_from([0, 7, 2**64 - 1])),
    _of("bool", st.booleans()),
    _of("binary", st.sampled_from([b"", b"\xff", b"x" * 9])),
    _of("null", st.none()),
)
"""A column of any type, with values at its ends."""


def _array(kind: pa.DataType, cells: list[Any], rows: int) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return _stamps(cells[:rows], kind)
    if pa.types.is_date32(kind):
        return pa.array([c and c % 2**31 for c in cells[:rows]], pa.int32()).cast(kind)
    if pa.types.is_time64(kind):
        return pa.array([c and c % 86_400 for c in cells[:rows]], pa.int64()).cast(kind)
    return pa.array(cells[:rows], kind)


def _stamps(cells: list[int | None], kind: pa.DataType) -> pa.Array:
    """Return times of any size; Parquet has no seconds and keeps them as ms."""
    most = 1 << (52 if kind.unit == "s" else 62)
    held = [c if c is None else max(-most, min(most, c)) for c in cells]
    return pa.array(held, pa.int64()).cast(kind)


@st.composite
def tables(draw: st.DrawFn, sound: pa.Table) -> pa.Table:
    """Draw a Parquet table from a sound one: other rows, values, types and columns."""
    rows = draw(st.lists(st.integers(0, sound.num_rows - 1), max_size=LARGEST))
    found = sound.take(pa.array(rows, pa.int64()))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, found.num_columns - 1))
        name, column = found.column_names[at], found.column(at).combine_chunks()
        change = draw(st.sampled_from(["nulls", "ends", "retype", "drop", "twice", "rename"]))
        if change == "nulls":
            mask = draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
            kept = pa.array([None if m else n for n, m in enumerate(mask)], pa.int64())
            # Arrow takes no rows of a view of texts.
            whole = column.cast(pa.string()) if column.type == pa.string_view() else column
            found = found.set_column(at, name, whole.take(kept).cast(column.type))
        elif change == "ends":
            found = found.set_column(at, name, _ends(draw, column))
        elif change == "retype":
            found = found.set_column(at, name, _array(*draw(columns), len(rows)))
        elif change == "drop" and found.num_columns > 1:
            found = found.remove_column(at)
        elif change == "twice":
            found = found.append_column(name, column)
        elif change == "rename":
            renamed = draw(st.sampled_from([name.upper(), f" {name}", "", "subject_id"]))
            found = found.rename_columns([renamed if n == at else c for n, c in _numbered(found)])
    return found


def _numbered(table: pa.Table) -> Iterator[tuple[int, str]]:
    return enumerate(table.column_names)


def _ends(draw: st.DrawFn, column: pa.Array) -> pa.Array:
    """Return a column of the same type with values at the ends of what the type can hold."""
    kind, rows = column.type, len(column)
    if pa.types.is_timestamp(kind):
        cells = draw(st.lists(EXTREMES, min_size=rows, max_size=rows))
        return _stamps(cells, kind)
    if pa.types.is_floating(kind):
        some = st.sampled_from(NUMBERS)
    elif pa.types.is_integer(kind):
        some = st.sampled_from(WHOLE if kind == pa.int64() else [0, 1, 7])
    elif pa.types.is_list(kind):
        one = "x" if pa.types.is_string(kind.value_type) else 1
        some = st.sampled_from([None, [], [one], [one] * 1440, [one] * 1441])
    elif pa.types.is_boolean(kind):
        some = st.booleans()
    else:
        cells = draw(st.lists(st.sampled_from(TEXTS), min_size=rows, max_size=rows))
        return pa.array(cells)
    return pa.array(draw(st.lists(some, min_size=rows, max_size=rows)), kind)


@st.composite
def texts(draw: st.DrawFn, sound: bytes) -> bytes:
    """Draw a table as text: other cells, rows and columns, another encoding, cut off."""
    lines = sound.decode().rstrip("\n").split("\n")
    mark = max(",\t", key=lines[0].count)
    cells = [line.split(mark) for line in lines]
    if draw(st.booleans()):
        body = draw(st.lists(st.sampled_from(cells[1:]), max_size=LARGEST))
        cells = [cells[0], *[list(row) for row in body]]
    for _ in range(draw(st.integers(0, 4))):
        row = draw(st.sampled_from(cells[1:] * 6 + cells[:1]))
        if row:
            row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(TEXTS).map(_quoted))
        if draw(st.integers(0, 9)) == 0:
            row.append(draw(st.sampled_from(TEXTS)))
        if row and draw(st.integers(0, 9)) == 0:
            row.pop(draw(st.integers(0, len(row) - 1)))
    text = draw(st.sampled_from(["\n", "\r\n"])).join(mark.join(row) for row in cells)
    found = text.encode(
        draw(st.sampled_from(["utf-8"] * 9 + ["utf-8-sig", "utf-16", "latin-1"])), "replace"
    )
    return found[: draw(st.integers(0, len(found)))] if draw(st.integers(0, 9)) == 0 else found


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set('\n\r",') else text


@st.composite
def resources(draw: st.DrawFn, sound: bytes) -> bytes:
    """Draw FHIR with odd values anywhere in it."""
    lines = [json.loads(line) for line in sound.decode().split("\n")]
    for _ in range(draw(st.integers(1, 4))):
        holder, key = draw(st.sampled_from([place for one in lines for place in _places(one)]))
        holder[key] = draw(odd)
    return "\n".join(json.dumps(one) for one in lines).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(inside) if isinstance(value, dict | list) else ():
        yield value, key
        yield from _places(inner) if isinstance(inner, dict | list) else ()


@st.composite
def documents(draw: st.DrawFn, sound: bytes) -> bytes:
    """Draw XML with odd values in its attributes, and now and then entities."""
    parts = sound.decode().split('"')
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(parts) // 2 - 1)) * 2 + 1
        text = draw(st.sampled_from(TEXTS))
        parts[at] = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return '"'.join(parts).encode(draw(st.sampled_from(["utf-8"] * 5 + ["utf-16"])), "replace")


def contents(name: str, sound: Content) -> st.SearchStrategy[Content]:
    """Return what a file may hold in place of what it should."""
    if isinstance(sound, pa.Table):
        return tables(sound)
    if name.endswith((".ndjson", ".json")) and not name.startswith("metadata"):
        return resources(sound)
    if name.endswith(".xml"):
        return documents(sound)
    return texts(sound) if name.endswith((".csv", ".sscore")) else st.just(sound)


@st.composite
def hostile(draw: st.DrawFn) -> Source:
    """Draw a source of some reader, one to three of its files hostile."""
    sound = draw(st.sampled_from(SOURCES))()
    files = dict(sound.files)
    for name in draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=3, unique=True)):
        content = files[name]
        if name.endswith(".parquet") and isinstance(content, bytes):
            content = pq.read_table(pa.BufferReader(content))
        files[name] = draw(contents(name, content))
        if name.endswith(".csv") and draw(st.integers(0, 9)) == 0:
            table = _as_table(files[name])
            if table is not None:
                files[f"{name[:-4]}.parquet"] = table
                del files[name]
    return replace(sound, files=files)


def _as_table(text: bytes) -> pa.Table | None:
    """Return a CSV as Parquet would hold it, where it is one still."""
    try:
        return csv.read_csv(pa.BufferReader(text))
    except pa.ArrowException:
        return None


def attempt_source(source: Source) -> str:
    """Return what came of a source, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write(source, place / "in" / "source")
        return outcome(source, place / "in" / "source", place)


def attempt_drawn(count: int, start: int) -> Iterator[tuple[Source, str | Exception]]:
    """Yield so many sources and what came of each."""
    found: list[tuple[Source, str | Exception]] = []

    @seed(start)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(hostile())
    def one(source: Source) -> None:
        try:
            found.append((source, attempt_source(source)))
        except Exception as error:
            found.append((source, error))

    if count:
        one()
    yield from found


def tally(count: int) -> Counter[str]:
    """Return how often so many drawn sources ended in what; raises the first crash."""
    return Counter(came for _, came in attempt_drawn(count, 0) if isinstance(came, str))
