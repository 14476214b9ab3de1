"""Events as MEDS rows: order, duplicates and impossible values, a column at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from meds import birth_code

from healthfm_core.arrays import Bool, Float32, Float64, Int64
from healthfm_core.data.store import event_order
from healthfm_core.data.store.schemas import EVENTS
from healthfm_core.data.store.splits import mix
from healthfm_core.errors import StoreError

STATIC_TIME: Final = event_order.STATIC_TIME
"""Stands for a null time in int64 columns, so that static rows sort first."""
EARLIEST_US: Final = -3_786_825_600 * 1_000_000
"""1850: whose record is older? Exports write a date that is not known as 1753 or the year 1."""

Limits = Mapping[str, tuple[float, float]]
"""Code → least and greatest value that can be true, both allowed."""


def ids(table: pa.Table, name: str = "subject_id") -> Int64:
    """Return an int64 column without nulls as an array."""
    return np.asarray(table[name].to_numpy(), dtype=np.int64)


def times_us(table: pa.Table, name: str = "time") -> Int64:
    """Return a timestamp column as µs since 1970, `STATIC_TIME` where null."""
    return np.asarray(table[name].cast(pa.int64()).fill_null(STATIC_TIME).to_numpy(), np.int64)


def coded(column: pa.ChunkedArray) -> tuple[Int64, list[str]]:
    """Return a text column as ([N] index into the names, -1 where null; the distinct names)."""
    index, names = encoded(column)
    return index, names.to_pylist()


def encoded(column: pa.ChunkedArray) -> tuple[Int64, pa.Array]:
    """Return a text column as `coded` does, the names as an array."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0) if whole.num_chunks else pa.array([], whole.type)
    index = whole.indices.cast(pa.int64()).fill_null(-1).to_numpy()
    return np.asarray(index, np.int64), whole.dictionary


def is_ascending(subject: Int64, time: Int64) -> bool:
    """Whether rows are in order of subject, then time."""
    later = subject[1:] > subject[:-1]
    return bool(np.all(later | ((subject[1:] == subject[:-1]) & (time[1:] >= time[:-1]))))


def sort_events(table: pa.Table) -> pa.Table:
    """Return the rows by subject, then time (static first); rows that tie keep their order."""
    subject, time = ids(table), times_us(table)
    if is_ascending(subject, time):
        return table
    return table.take(pa.array(event_order.order_of(subject, time)))


def with_plain_codes(table: pa.Table) -> pa.Table:
    """Return the rows with their codes as texts, not as a dictionary."""
    at = table.column_names.index("code")
    return table.set_column(at, "code", table["code"].cast(pa.string()))


def repeated(keys: list[Int64]) -> Bool:
    """Return where a row equals an earlier row in all of `keys`."""
    return np.asarray(first_equals(keys) != np.arange(len(keys[0])), np.bool_)


def first_equals(keys: list[Int64]) -> Int64:
    """Return the first row that each row equals in all of `keys`, itself where there is no earlier.

    Rows are compared by a 64-bit hash first and exactly where hashes agree.
    """
    size = len(keys[0])
    hashed = np.zeros(size, np.uint64)
    for key in keys:
        hashed = mix(hashed * np.uint64(0x9E3779B97F4A7C15) + key.view(np.uint64))
    ranked = np.sort(hashed)
    twice = ranked[1:][ranked[1:] == ranked[:-1]]
    first = np.arange(size)
    if not len(twice):
        return first
    rows = np.flatnonzero(np.isin(hashed, twice))
    rows = rows[np.lexsort([key[rows] for key in keys])]  # which keeps the order of equal rows
    same = np.logical_and.reduce([key[rows[1:]] == key[rows[:-1]] for key in keys])
    begins = np.insert(~same, 0, True)
    first[rows] = rows[begins][np.cumsum(begins) - 1]
    return first


def are_among(table: pa.Table, others: pa.Table) -> Bool:
    """Return where an event equals one of `others`, as `duplicates` compares."""
    both = pa.concat_tables([others, table], promote_options="permissive")
    first = first_equals(_keys(both, coded(both["code"])[0]))
    return np.asarray(first[others.num_rows :] < others.num_rows, np.bool_)


def duplicates(table: pa.Table, code: Int64 | None = None) -> Bool:
    """Return where an event equals an earlier one in subject, time, code and both values.

    Where rows are sorted, only those are compared whose subject and time another row has too.

    Args:
        table: MEDS columns in any order of rows.
        code: [N] the codes as numbers, where the caller has them already.
    """
    code = coded(table["code"])[0] if code is None else code
    subject, time = ids(table), times_us(table)
    if not is_ascending(subject, time):
        return repeated(_keys(table, code))
    result = np.zeros(table.num_rows, np.bool_)
    as_before = (subject[1:] == subject[:-1]) & (time[1:] == time[:-1])
    shared = np.flatnonzero(np.append(as_before, False) | np.insert(as_before, 0, False))
    if len(shared):
        result[shared] = repeated(_keys(table.take(pa.array(shared)), code[shared]))
    return result


def _keys(table: pa.Table, code: Int64) -> list[Int64]:
    """Return what makes an event another one, as numbers."""
    numbers = table["numeric_value"]
    values = np.asarray(numbers.fill_null(0.0).to_numpy(), np.float32) + np.float32(0.0)
    bits = values.view(np.uint32).astype(np.int64)
    if numbers.null_count:
        bits[~np.asarray(numbers.is_valid().to_numpy(), np.bool_)] = -1
    keys = [ids(table), times_us(table), code, bits]
    if "text_value" in table.column_names and table["text_value"].null_count < table.num_rows:
        keys.append(coded(table["text_value"])[0])
    return keys


def check_events(table: pa.Table, where: str) -> None:
    """Check that each subject is contiguous and in order of time, and no event occurs twice.

    Raises:
        StoreError: HF-203 or HF-204, with the number of rows and nothing of their content.
    """
    subject, time = ids(table), times_us(table)
    changes = subject[1:] != subject[:-1]
    backwards = int(np.sum(~changes & (time[1:] < time[:-1])))
    runs = int(np.sum(changes)) + (len(subject) > 0)
    apart = runs - len(np.unique(subject))
    if backwards or apart:
        raise StoreError(
            203,
            where=where,
            seen=f"events go back in time or a subject's rows lie apart, {backwards + apart}×",
            do="Sort the file by subject_id and time, or ingest it as an event table",
        )
    again = int(np.sum(duplicates(table)))
    if again:
        raise StoreError(
            204,
            where=where,
            seen=f"{again} events equal another in subject, time, code and value",
            do="Remove the duplicates, or ingest it as an event table, which sets them aside",
        )


def births(table: pa.Table) -> tuple[Int64, Int64]:
    """Return the subjects with a birth (sorted) and its time in µs; the first where there are two.

    Args:
        table: MEDS columns in any order.
    """
    rows = table.filter(pc.equal(table["code"].cast(pa.string()), birth_code))
    subject, time = ids(rows), times_us(rows)
    order = np.lexsort((time, subject))
    subject, time = subject[order], time[order]
    known = time != STATIC_TIME
    subject, first = np.unique(subject[known], return_index=True)
    return subject, time[known][first]


def _before_birth(table: pa.Table, time: Int64, is_birth: Bool) -> Bool:
    born, born_us = births(table.filter(pa.array(is_birth)))
    if not len(born):
        return np.zeros(len(time), np.bool_)
    subject = ids(table)
    at = np.minimum(np.searchsorted(born, subject), len(born) - 1)
    return np.asarray((born[at] == subject) & (time != STATIC_TIME) & (time < born_us[at]))


def _beyond_limits(index: Int64, names: pa.Array, value: Float32, limits: Limits) -> Bool:
    known = pc.index_in(names, pa.array(list(limits), names.type)).fill_null(len(limits))
    at = np.append(known.to_numpy(), len(limits))[index]
    bounds = np.array([*limits.values(), (-np.inf, np.inf)], np.float32)
    return np.asarray((value < bounds[at, 0]) | (value > bounds[at, 1]))


def _is_code(index: Int64, names: pa.Array, code: str) -> Bool:
    """Return where a row's code is `code`; a null one is none."""
    same = pc.fill_null(pc.equal(names, pa.scalar(code, names.type)), False)
    return np.append(same.to_numpy(zero_copy_only=False), False)[index]


def set_aside(
    table: pa.Table, *, now_us: int, limits: Limits | None = None
) -> tuple[pa.Table, dict[str, pa.Table]]:
    """Part events that can be true from those that cannot.

    Args:
        table: The columns of `EVENTS`, in any order of rows.
        now_us: µs since 1970; what is dated later has not happened.
        limits: Values of a code outside its limits are impossible.

    Returns:
        The events to keep, in their order, and reason → events set aside. An event is counted
        under the first reason that fits: no_code, duplicate, after_today, before_1850,
        before_birth, not_finite, impossible_value.
    """
    time = times_us(table)
    code, names = encoded(table["code"])
    names = pc.fill_null(names, "")
    value = np.asarray(table["numeric_value"].fill_null(0.0).to_numpy(), np.float32)
    reasons: dict[str, Bool] = {
        "no_code": (code < 0) | _is_code(code, names, ""),
        "duplicate": duplicates(table, code),
        "after_today": time > now_us,
        "before_1850": (time < EARLIEST_US) & (time != STATIC_TIME),
        "before_birth": _before_birth(table, time, _is_code(code, names, birth_code)),
        "not_finite": ~np.isfinite(value),
    }
    if limits:
        known = np.asarray(table["numeric_value"].is_valid().to_numpy(), np.bool_)
        reasons["impossible_value"] = known & _beyond_limits(code, names, value, limits)
    kept = np.ones(table.num_rows, np.bool_)
    rejected: dict[str, pa.Table] = {}
    for reason, where in reasons.items():
        rows = kept & where
        if rows.any():
            rejected[reason] = table.filter(pa.array(rows))
            kept &= ~rows
    return (table if kept.all() else table.filter(pa.array(kept))), rejected


def static_rows(subject_id: Int64, code: list[str] | pa.Array, value: pa.Array | None) -> pa.Table:
    """Return events without a time; `value` null or None where a code has no number."""
    size = len(subject_id)
    return pa.table(
        {
            "subject_id": pa.array(subject_id, pa.int64()),
            "time": pa.nulls(size, pa.timestamp("us")),
            "code": pa.array(code, pa.string()),
            "numeric_value": pa.nulls(size, pa.float32()) if value is None else value,
            "text_value": pa.nulls(size, pa.large_string()),
        },
        schema=pa.schema([field.with_nullable(True) for field in EVENTS]),
    )


def as_float32(value: Float64) -> Float32:
    """Return values as a store keeps them; what float32 cannot hold becomes infinite, NaN stays."""
    with np.errstate(over="ignore", invalid="ignore"):
        return value.astype(np.float32)
