"""Codes from what a row says of itself: made once per distinct combination, not once per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Float32, Float64, Int64
from healthfm_core.data.store.events import as_float32

SEPARATOR: Final = "//"
LONGEST_CODE: Final = 200
"""What is longer is cut: it is a text, and no vocabulary has it."""


@dataclass(frozen=True)
class CodeAndUnit:
    """What a row is called, and how its number comes to the code's own unit.

    Attributes:
        code: None where the row gives no event.
        factor: Its number is multiplied by this,
        offset: and this added.
    """

    code: str | None
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class DistinctRows:
    """The distinct combinations of some columns' values, and which of them each row is.

    Attributes:
        values: Each combination: a value or None of each column.
        index: [N] the row's combination.
    """

    values: list[tuple[Any, ...]]
    index: Int64

    @classmethod
    def of(cls, *columns: pa.ChunkedArray) -> Self:
        """Return the combinations of columns of equal length: integers or texts, null allowed."""
        combined = np.zeros(len(columns[0]), np.int64)
        for column in columns:
            if column.null_count < len(column):
                index, distinct = _numbered(column)
                combined = _numbered(pa.chunked_array([combined * (distinct + 1) + index + 1]))[0]
        first = np.zeros(int(combined.max(initial=-1)) + 1, np.int64)
        first[combined[::-1]] = np.arange(len(combined) - 1, -1, -1)
        taken = (column.take(pa.array(first)).to_pylist() for column in columns)
        return cls(list(zip(*taken, strict=True)), combined)

    def coded(self, named: Sequence[CodeAndUnit]) -> CodedRows:
        """Return the rows' codes, from one of each combination."""
        codes = ["" if one.code is None else tidy(one.code) for one in named]
        known = sorted({code for code in codes if code})
        number = {name: n for n, name in enumerate(known)}
        chosen = np.array([number.get(code, -1) for code in codes], np.int32)[self.index]
        return CodedRows(
            pa.DictionaryArray.from_arrays(
                pa.array(chosen, mask=chosen < 0), pa.array(known, pa.string())
            ),
            np.array([one.factor for one in named], np.float64)[self.index],
            np.array([one.offset for one in named], np.float64)[self.index],
        )


@dataclass(frozen=True)
class CodedRows:
    """The codes of rows as a dictionary array, and what their numbers are changed by."""

    code: pa.Array
    factor: Float64
    offset: Float64


def one_code(code: str, rows: int) -> CodedRows:
    """Return the same code for every row, numbers as they are."""
    return DistinctRows([()], np.zeros(rows, np.int64)).coded([CodeAndUnit(code)])


def _numbered(column: pa.ChunkedArray) -> tuple[Int64, int]:
    """Return each row's value as a number in order of their coming, -1 for null; how many."""
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    index = encoded.indices.cast(pa.int64()).fill_null(-1)
    return np.asarray(index.to_numpy(), np.int64), len(encoded.dictionary)


def tidy(code: str) -> str:
    """Return a code without what breaks a line, and cut to `LONGEST_CODE`."""
    code = code[:LONGEST_CODE]
    if not code.isprintable():
        code = "".join(c if c.isprintable() else " " for c in code)
    return " ".join(code.split()) if " " in code else code


def joined(*parts: str) -> str:
    """Return parts of a code put together, empty ones left out."""
    return SEPARATOR.join(part for part in parts if part)


def converted(value: Float64, factor: Float64, offset: Float64) -> Float32:
    """Return values in their new unit, see `as_float32`."""
    with np.errstate(over="ignore", invalid="ignore"):
        return as_float32(value * factor + offset)
