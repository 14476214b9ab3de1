"""Plain observations read as columns: a subject, a time, a code, and a quantity, an answer or none.

They are most of what a bulk export holds. DuckDB takes lines apart into their fields, which stay
JSON; the distinct ones are decoded as they are in a line that is read by itself, so that they mean
the same. What is not plainly of this form, a panel with components or a field of an odd type, is
left to be read by itself (docs/decisions/0031-plain-observations-as-columns.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, NamedTuple, TypeVar

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_client.ingest.fhir_r4.fhir_concepts import (
    answered,
    called,
    code_of,
    measured,
    unit_text,
)
from healthfm_client.ingest.fhir_r4.fhir_files import id_of
from healthfm_client.ingest.fhir_r4.fhir_types import (
    NOT_SO,
    VALUES_NOT_READ,
    Component,
    Concept,
    Quantity,
)
from healthfm_client.ingest.tables.duckdb_reader import DuckDBReader
from healthfm_client.ingest.tables.local_time import clock_us
from healthfm_core.arrays import Bool, Float64, Int64, UInt8
from healthfm_core.data.store.events import encoded

Thing = TypeVar("Thing")
Decoded = TypeVar("Decoded")
_NOT_PLAIN: Final = (
    *("component", "valueInteger", "valueBoolean", "valueString", *VALUES_NOT_READ),
    *("intent", "verificationStatus"),
)
"""Fields that say more than is read here."""
_FORM: Final = {
    **dict.fromkeys(("resourceType", "status", "code", "effectiveDateTime"), "JSON"),
    "subject": {"reference": "JSON"},
    "valueQuantity": dict.fromkeys(("value", "unit", "system", "code", "comparator"), "JSON"),
    **dict.fromkeys(("valueCodeableConcept", *_NOT_PLAIN), "JSON"),
}
"""What lines are taken apart into."""
_NONE: Final = -1
"""Index of what a line does not have."""
_ODD: Final = -2
"""Index of what must be read by itself."""
_LARGEST: Final = 2**62
_OBSERVATION: Final = re.compile(rb'"Observation"')
_NEAR: Final = 1 << 18
"""Bytes that stay in a processor's cache."""
_CLOCK: Final = r'^"[1-9]\d{3}(-\d\d){2}T\d\d(:\d\d){2}(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?"$'
_USUAL_REFERENCE: Final = r'^"[A-Za-z]+/(?P<id>[A-Za-z0-9.-]+)"$'
_NUMBER: Final = r"^-?\d[\d.eE+-]*$"
_ON_THE_WALL: Final = 1, 20
"""Where such a text has what the clock showed."""


class Said(NamedTuple):
    """What codes are called, and the first line that says it."""

    line: int
    texts: dict[str, str]


@dataclass(frozen=True)
class Plain:
    """Events of plain observations, one of each, in the order of their lines.

    Attributes:
        line: [N] number of the line in its block, from 0.
        subject: [N] texts: the source's ids.
        time: [N] µs since 1970.
        code: [N] dictionary of texts.
        value: [N] numbers; NaN where there is none.
        absent: [N] whether there is none.
        said: What codes are called, by line.
    """

    line: Int64
    subject: pa.Array
    time: Int64
    code: pa.DictionaryArray
    value: Float64
    absent: Bool
    said: list[Said]


def line_ends(block: UInt8) -> Int64:
    """Return where each line ends, behind its line feed; the last may have none."""
    block_ends = [
        np.flatnonzero(block[at : at + _NEAR] == ord("\n")) + at + 1
        for at in range(0, len(block), _NEAR)
    ]
    ends = np.concatenate([np.zeros(0, np.int64), *block_ends])
    whole = not len(block) or block[-1] == ord("\n")
    return ends if whole else np.append(ends, len(block))


def plain_observations(block: UInt8, ends: Int64, zone: str | None) -> Plain | None:
    """Return the plain observations of a block of lines, None where there is none.

    Args:
        block: Whole lines.
        ends: Where the lines end.
        zone: See `clock_us`.
    """
    if not _OBSERVATION.search(block.data):
        return None
    begins = np.concatenate([np.zeros(1, np.int64), ends])
    lines = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(begins), pa.py_buffer(block))
    at = np.flatnonzero(block[begins[:-1]] == ord("{"))
    lines = lines if len(at) == len(lines) else lines.take(pa.array(at))
    fields = _fields(lines)
    return None if fields is None else _plain(fields, lines, at, zone)


def _fields(lines: pa.LargeStringArray) -> pa.Table | None:
    """Return the fields of lines as JSON, null where one is missing, all where it is no JSON."""
    connection = _reader().connection
    connection.register("lines", pa.table({"line": lines}))
    fields_of_line = f"json_transform(line, '{json.dumps(_FORM)}')"
    try:
        for fields in (fields_of_line, f"CASE WHEN json_valid(line) THEN {fields_of_line} END"):
            try:
                sql = f"SELECT r.* FROM (SELECT {fields} AS r FROM lines)"
                return connection.sql(sql).to_arrow_table().flatten()
            except (duckdb.InvalidInputException, UnicodeDecodeError):
                continue  # a line is no JSON, and perhaps no text, as which the error quotes it
        return None
    finally:
        connection.unregister("lines")


@cache
def _reader() -> DuckDBReader:
    return DuckDBReader(threads=1)


def _plain(
    fields: pa.Table, lines: pa.LargeStringArray, at: Int64, zone: str | None
) -> Plain | None:
    plain = _mask(pc.equal(fields["resourceType"], '"Observation"'))
    for name in _NOT_PLAIN:
        plain &= _mask(fields[name].is_null())
    plain &= _mask(fields["valueQuantity.comparator"].is_null())
    status, _ = _distinct(fields["status"], _happened)
    concept, concepts = _distinct(fields["code"], _concept)
    whose, ids = _ids(fields["subject.reference"])
    time, known = _times(fields["effectiveDateTime"], zone)
    number, counted = _numbers(fields["valueQuantity.value"], lines)
    unit, units = _distinct(fields["valueQuantity.unit"], _text)
    short, shorts = _distinct(fields["valueQuantity.code"], _text)
    its, systems = _distinct(fields["valueQuantity.system"], _text)
    answer, answers = _distinct(fields["valueCodeableConcept"], _answer)
    plain &= known & (counted >= _NONE) & (concept >= 0) & (whose >= 0)
    for index in (status, unit, short, its, answer):
        plain &= index >= _NONE
    rows = np.flatnonzero(plain)
    if not len(rows):
        return None
    parts = [index[rows] for index in (concept, counted, short, unit, its, answer)]
    first, which = _kinds(parts)
    kinds = zip(*(part[first].tolist() for part in parts), strict=True)
    meant = [
        _meaning(
            concepts[c],
            None if n == _NONE else _Unit(_of(units, u), _of(systems, y), _of(shorts, s)),
            _of(answers, a),
        )
        for c, n, s, u, y, a in kinds
    ]
    said = [
        Said(line, one.texts) for line, one in zip(at[rows[first]].tolist(), meant, strict=True)
    ]
    with np.errstate(over="ignore", invalid="ignore"):
        value = number[rows] * np.array([one.factor for one in meant])[which]
        value += np.array([one.offset for one in meant])[which]
    return Plain(
        line=at[rows],
        subject=pa.array(ids, pa.string()).take(pa.array(whose[rows])),
        time=time[rows],
        code=_dictionary([one.named for one in meant], which),
        value=value,
        absent=counted[rows] == _NONE,
        said=sorted(said, key=lambda one: one.line),
    )


def _kinds(parts: list[Int64]) -> tuple[Int64, Int64]:
    """Return (first row of each combination of indices, [N] which of them a row is of)."""
    key, most = np.zeros(len(parts[0]), np.int64), 1
    for part in parts:
        size = int(part.max(initial=_NONE)) + 2
        if most * size > _LARGEST:
            key = np.unique(key, return_inverse=True)[1]
            most = len(key)
        key, most = key * size + part + 1, most * size
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    return first, which


def _dictionary(names: list[str], which: Int64) -> pa.DictionaryArray:
    distinct = {name: n for n, name in enumerate(dict.fromkeys(names))}
    index = np.array([distinct[name] for name in names], np.int32)[which]
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(list(distinct), pa.string()))


def _distinct(
    column: pa.ChunkedArray, meaning: Callable[[str], Thing | None]
) -> tuple[Int64, list[Thing]]:
    """Return ([N] index into meanings, `_NONE` of null, `_ODD` without one; the meanings)."""
    index, texts = encoded(column)
    meanings: list[Thing] = []
    new = np.full(len(texts) + 1, _NONE, np.int64)
    for n, text in enumerate(texts.to_pylist()):
        meant = meaning(text)
        new[n] = _ODD if meant is None else len(meanings)
        if meant is not None:
            meanings.append(meant)
    return new[index], meanings


def _of(things: Sequence[Thing], index: int) -> Thing | None:
    return None if index == _NONE else things[index]


def _as(form: type[Decoded]) -> Callable[[str], Decoded | None]:
    """Return what decodes a field; None of what is not of that form, and of null."""
    decoder = msgspec.json.Decoder(form)

    def decoded(text: str) -> Decoded | None:
        try:
            return decoder.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return None

    return decoded


_text, _as_concept = _as(str), _as(Concept)


def _happened(text: str) -> str | None:
    status = _text(text)
    return None if status in NOT_SO else status


def _ids(column: pa.ChunkedArray) -> tuple[Int64, list[str]]:
    """Return what `_distinct` returns of `_id`, the usual form at once."""
    index, texts = encoded(column)
    ids = pc.struct_field(pc.extract_regex(texts, _USUAL_REFERENCE), "id")
    subject_ids = ids.to_pylist()
    for n in np.flatnonzero(_mask(ids.is_null())):
        subject_ids[n] = _id(texts[n].as_py())
    new = np.array([*(_ODD if one is None else n for n, one in enumerate(subject_ids)), _NONE])
    return new[index], [one or "" for one in subject_ids]


def _id(text: str) -> str | None:
    return id_of(_text(text)) or None


def _numbers(column: pa.ChunkedArray, lines: pa.LargeStringArray) -> tuple[Float64, Int64]:
    """Return ([N] numbers, [N] 0 where there is one, `_NONE` or `_ODD`).

    A line without a number is odd where it has a quantity nevertheless.
    """
    number = np.full(len(column), np.nan)
    counted = np.full(len(column), _ODD, np.int64)
    usual = _mask(pc.match_substring_regex(column, _NUMBER))
    number[usual] = column.filter(pa.array(usual)).cast(pa.float64()).to_numpy()
    counted[np.isfinite(number)] = 0
    without = np.flatnonzero(_mask(column.is_null()))
    other = _mask(pc.match_substring(lines.take(pa.array(without)), "valueQuantity"))
    counted[without[~other]] = _NONE
    return number, counted


@lru_cache(1 << 16)
def _concept(text: str) -> str | None:
    return text if code_of(_as_concept(text)) else None


@lru_cache(1 << 16)
def _answer(text: str) -> str | None:
    return None if _as_concept(text) is None else text


class _Unit(NamedTuple):
    """That there is a number, and its unit, if it has one, as `Quantity` has it."""

    text: str | None
    system: str | None
    code: str | None


class _Meaning(NamedTuple):
    """What is made of a concept with a unit or an answer."""

    named: str
    factor: float
    offset: float
    texts: dict[str, str]


@lru_cache(1 << 16)
def _meaning(concept: str, unit: _Unit | None, answer: str | None) -> _Meaning:
    """Return what an observation means, given its concept's and answer's JSON."""
    one = Component(code=_as_concept(concept))
    if answer is not None:
        one.valueCodeableConcept = _as_concept(answer)
    code = code_of(one.code) or ""
    named, factor, offset = answered(code, one)[0], 1.0, 0.0
    if unit is not None:
        quantity = Quantity(unit=unit.text, system=unit.system, code=unit.code)
        named, factor, offset = measured(code, unit_text(quantity))
    return _Meaning(named, factor, offset, called(code, named, one))


def _times(column: pa.ChunkedArray, zone: str | None) -> tuple[Int64, Bool]:
    """Return ([N] µs, [N] whether there is a time), as `clock_us` has them."""
    us = np.zeros(len(column), np.int64)
    known = np.zeros(len(column), np.bool_)
    if zone is None:
        usual = _mask(pc.match_substring_regex(column, _CLOCK))
        clocks = pc.utf8_slice_codeunits(column.filter(pa.array(usual)), *_ON_THE_WALL)
        try:
            us[usual] = clocks.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
            known |= usual
        except pa.ArrowInvalid:  # one is no date, such as the 30th of February
            pass
    for row in np.flatnonzero(~known & _mask(pc.starts_with(column, '"'))):
        moment = clock_us(msgspec.json.decode(column[row].as_py()), zone)
        if moment is not None:
            us[row], known[row] = moment, True
    return us, known


def _mask(column: pa.Array | pa.ChunkedArray) -> Bool:
    return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)
