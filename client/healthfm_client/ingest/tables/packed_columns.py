"""Columns that PostgreSQL hands over packed: all values of a column, one behind the other.

The server puts the binary forms of many rows' values into one value (``string_agg`` of
``int8send``), two numbers of concepts at a time; that costs it no more than sending them field by
field, and costs nothing here, where a driver would take every row apart. NULL is a form that no
value has: the least integer, which is nobody's id, -infinity of a time, a NaN that no sum gives, a
text that is a control character. Texts stand between separators; where one has a separator in it,
they come again with their lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.arrays import Bool, Int64

TEXTS: Final = frozenset({"text", "varchar"})
SHORT: Final = frozenset({"int2", "int4"})
_SEPARATOR: Final = "\x1f"
_NO_TEXT: Final = "\x1e"
_LEAST: Final = -(2**31)
_SHIFT: Final = 32
_EPOCH_DAYS: Final = 10_957
"""From 1970 to 2000, where PostgreSQL counts from."""
_EPOCH_US: Final = _EPOCH_DAYS * 86_400_000_000


class _Form(NamedTuple):
    """Of a type of values that are all of one length."""

    sent: str
    null: str
    kind: str
    arrow: pa.DataType


_REAL: Final = _Form("float8send({}::float8)", 8 * "ff", ">i8", pa.float64())
_FORMS: Final = {
    **dict.fromkeys(SHORT, _Form("int4send({})", "80" + 3 * "00", ">i4", pa.int32())),
    "int8": _Form("int8send({})", "80" + 7 * "00", ">i8", pa.int64()),
    **dict.fromkeys(("float4", "float8"), _REAL),
    "date": _Form("date_send({})", "80" + 3 * "00", ">i4", pa.date32()),
    "timestamp": _Form("timestamp_send({})", "80" + 7 * "00", ">i8", pa.timestamp("us")),
    "timestamptz": _Form("timestamptz_send({})", "80" + 7 * "00", ">i8", pa.timestamp("us", "UTC")),
}
PACKED: Final = frozenset({*_FORMS, *TEXTS, "numeric"})
"""PostgreSQL's types that can come packed."""


@dataclass(frozen=True)
class AskedColumn:
    """A column that PostgreSQL is asked for.

    Attributes:
        name: What it is called here.
        kind: PostgreSQL's name of its type.
        sql: Its values.
        beside: Other columns that are asked for; it is NULL where one of them says something: has
            a value, and a number another than 0.
        where: That they say nothing, as SQL; '' where there are none.
    """

    name: str
    kind: str
    sql: str
    beside: tuple[str, ...] = ()
    where: str = ""

    @property
    def type(self) -> pa.DataType:
        """What it is here once unpacked; a number of any precision is a floating one."""
        if self.kind in TEXTS:
            return pa.string()
        return _FORMS[self.kind].arrow if self.kind in _FORMS else pa.float64()


@dataclass(frozen=True)
class Pack:
    """One column, or two of short integers, that come as one value.

    Attributes:
        columns: What is in it; the kind of each is one of `PACKED`.
    """

    columns: tuple[AskedColumn, ...]

    def asked(self, *, lengths: bool = False) -> list[str]:
        """Return what the server is asked for, as SQL over many rows; of texts it may be two.

        Args:
            lengths: Texts come with their lengths, not with separators.
        """
        if len(self.columns) == 2:
            high, low = (f"coalesce({column.sql}, {_LEAST})" for column in self.columns)
            return [f"string_agg(int8send({high} * {1 << _SHIFT} + ({low} + {-_LEAST})), '')"]
        kind, sql = self.columns[0].kind, self.columns[0].sql
        if kind in _FORMS:
            form = _FORMS[kind]
            sent = form.sent.format(f"({sql})")
            return [f"string_agg(coalesce({sent}, '\\x{form.null}'::bytea), '')"]
        text = sql if kind in TEXTS else f"({sql})::text"
        only = f" FILTER (WHERE {self.columns[0].where})" if self.columns[0].where else ""
        if lengths:
            length = f"int4send(coalesce(octet_length({text}), -1))"
            return [f"string_agg({length}, ''){only}", f"string_agg({text}, ''){only}"]
        return [f"string_agg(coalesce({text}, '{_NO_TEXT}'), '{_SEPARATOR}'){only}"]

    def unpacked(self, packed: Sequence[pa.Array], rows: int) -> list[pa.Array]:
        """Return the values of so many rows, of each column; of a text those where it was read.

        Args:
            packed: What came for each of `asked`.
            rows: How many.

        Raises:
            ArrowInvalid: They are not so many.
        """
        kind = self.columns[0].kind
        if not rows:
            return [pa.nulls(0, column.type) for column in self.columns]
        if len(self.columns) == 2:
            found = _pair(packed[0][0])
        elif kind in _FORMS:
            found = [_values(_FORMS[kind], packed[0][0])]
        else:
            texts = _texts(packed[0], rows) if len(packed) == 1 else _long_texts(packed)
            found = [_numbers(texts) if kind == "numeric" else texts]
        if any(len(values) != rows for values in found):
            raise pa.ArrowInvalid("a column has another length than the others")
        return found


def packs_of(columns: Sequence[AskedColumn]) -> list[Pack]:
    """Return the columns as they come: short integers two by two, after others those beside them.

    Raises:
        ValueError: A column that is not a text is `beside` others, or beside one not asked for.
    """
    if any(column.beside and column.kind not in TEXTS for column in columns):
        raise ValueError("only texts are read beside other columns")
    short = [column for column in columns if column.kind in SHORT]
    pairs = [Pack(tuple(short[at : at + 2])) for at in range(0, len(short), 2)]
    alone = [Pack((column,)) for column in columns if column.kind not in SHORT]
    return pairs + sorted(alone, key=lambda pack: bool(pack.columns[0].beside))


def unpacked_rows(
    packs: Sequence[Pack], packed: Sequence[Sequence[pa.Array]], rows: int
) -> dict[str, pa.Array]:
    """Return the columns of so many rows by name, from what came for each pack, see `Pack`."""
    found: dict[str, pa.Array] = {}
    for pack, its in zip(packs, packed, strict=True):
        there = np.ones(rows, np.bool_)
        for name in pack.columns[0].beside:
            nothing = pc.fill_null(pc.equal(found[name], 0), True)
            there &= np.asarray(nothing.to_numpy(zero_copy_only=False), np.bool_)
        values = pack.unpacked(its, int(there.sum()))
        for column, its_values in zip(pack.columns, values, strict=True):
            found[column.name] = its_values if there.all() else _spread(its_values, there)
    return found


def _spread(values: pa.Array, there: Bool) -> pa.Array:
    """Return the values where they are, NULL elsewhere."""
    return pc.replace_with_mask(pa.nulls(len(there), values.type), pa.array(there), values)


def _sent(packed: pa.Scalar, kind: str) -> Int64:
    sent = np.frombuffer(packed.as_buffer(), kind)
    return sent.astype(sent.dtype.newbyteorder("="))


def _pair(packed: pa.Scalar) -> list[pa.Array]:
    both = _sent(packed, ">i8")
    parts = both >> _SHIFT, (both & ((1 << _SHIFT) - 1)) + _LEAST
    return [_known(part.astype(np.int32), part == _LEAST) for part in parts]


def _values(form: _Form, packed: pa.Scalar) -> pa.Array:
    values = _sent(packed, form.kind)
    if pa.types.is_floating(form.arrow):
        return _known(values.view(np.float64), values == -1)
    least, most = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
    if pa.types.is_integer(form.arrow):
        return _known(values, values == least)
    since = values.dtype.type(_EPOCH_DAYS if pa.types.is_date(form.arrow) else _EPOCH_US)
    never = (values == least) | (values >= most - since)  # infinity is no date
    return _known(np.where(never, 0, values + since), never).cast(form.arrow)


def _known(values: Any, absent: Any) -> pa.Array:
    return pa.array(values, mask=absent if absent.any() else None)


def _texts(packed: pa.Array, rows: int) -> pa.Array:
    whole = packed[0].as_buffer()
    if whole.size == 2 * rows - 1 and whole == _none(rows):
        return pa.nulls(rows, pa.string())
    texts: Any = pc.list_flatten(pc.split_pattern(packed, _SEPARATOR))
    absent = pc.equal(texts, _NO_TEXT)
    return pc.if_else(absent, None, texts) if pc.any(absent).as_py() else texts


def _none(rows: int) -> bytes:
    """Return what comes for texts that are all NULL."""
    return _SEPARATOR.join([_NO_TEXT] * rows).encode()


def _long_texts(packed: Sequence[pa.Array]) -> pa.Array:
    lengths, texts = (array[0] for array in packed)
    length = _sent(lengths, ">i4").astype(np.int64)
    there = length >= 0
    ends = np.cumsum(np.where(there, length, 0))
    whole = texts.as_buffer() if texts.is_valid else pa.py_buffer(b"")
    if ends[-1] != whole.size:
        raise pa.ArrowInvalid("texts are not as long as the server says")
    offsets = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    known = pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.StringArray.from_buffers(len(length), pa.py_buffer(offsets), whole, known)


def _numbers(texts: pa.Array) -> pa.Array:
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:  # one is beyond the largest
        numbers = [None if text is None else float(text) for text in texts.to_pylist()]
        return pa.array(numbers, pa.float64())
