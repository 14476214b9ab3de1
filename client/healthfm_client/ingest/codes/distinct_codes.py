"""Codes from what a row says of itself: made once per distinct combination, not once per row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Float32, Float64, Int64

SEPARATOR: Final = "//"
LONGEST_CODE: Final = 200
"""What is longer is cut: it is a text, and no vocabulary has it."""

Namer = Callable[..., tuple[str | None, float, float]]
"""A combination of values → (code or None for no event, factor, offset of the number)."""


def combine(columns: Sequence[pa.ChunkedArray], namer: Namer) -> tuple[pa.Array, Float64, Float64]:
    """Return each row's code as a dictionary array, and what its number is to be changed by.

    Args:
        columns: What the code depends on, of equal length; integers or texts, null allowed.
        namer: Called once per distinct combination, a column's value or None each.
    """
    combined = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        if column.null_count < len(column):
            index, distinct = _numbered(column)
            combined = _numbered(pa.chunked_array([combined * (distinct + 1) + index + 1]))[0]
    first = np.zeros(int(combined.max(initial=-1)) + 1, np.int64)
    first[combined[::-1]] = np.arange(len(combined) - 1, -1, -1)
    rows, at = pa.array(first), combined
    values = [column.take(rows).to_pylist() for column in columns]
    made = [namer(*of) for of in zip(*values, strict=True)]
    codes = ["" if code is None else tidy(code) for code, _, _ in made]
    known = sorted({code for code in codes if code})
    number = {name: n for n, name in enumerate(known)}
    chosen = np.array([number.get(code, -1) for code in codes], np.int32)[at]
    code = pa.DictionaryArray.from_arrays(
        pa.array(chosen, mask=chosen < 0), pa.array(known, pa.string())
    )
    factor = np.array([factor for _, factor, _ in made], np.float64)
    offset = np.array([offset for _, _, offset in made], np.float64)
    return code, factor[at], offset[at]


def _numbered(column: pa.ChunkedArray) -> tuple[Int64, int]:
    """Return each row's value as a number in order of their coming, -1 for null; how many."""
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    index = encoded.indices.cast(pa.int64()).fill_null(-1)
    return np.asarray(index.to_numpy(), np.int64), len(encoded.dictionary)


def tidy(code: str) -> str:
    """Return a code without what breaks a line, and cut to `LONGEST_CODE`."""
    if len(code) <= LONGEST_CODE and code.isprintable() and " " not in code:
        return code
    return " ".join("".join(c if c.isprintable() else " " for c in code[:LONGEST_CODE]).split())


def joined(*parts: str) -> str:
    """Return parts of a code put together, empty ones left out."""
    return SEPARATOR.join(part for part in parts if part)


def converted(value: Float64, factor: Float64, offset: Float64) -> Float32:
    """Return values in their new unit, see `as_float32`."""
    with np.errstate(over="ignore", invalid="ignore"):
        return as_float32(value * factor + offset)


def as_float32(value: Float64) -> Float32:
    """Return values as a store keeps them; what float32 cannot hold becomes infinite, NaN stays."""
    with np.errstate(over="ignore", invalid="ignore"):
        return value.astype(np.float32)
