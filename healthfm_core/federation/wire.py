"""How an array travels: the bytes of a .npy file, read back without a copy and without trust.

The layout is NumPy's own (format 1.0, C order), so that Flower's `Array` and `np.load` read it
too. Reading does not parse the header: it builds the only header that the declared type and shape
can have and compares, which is quicker and leaves a hostile sender nothing to be parsed.

Flower moves every array as several objects, each a request of its own: a model of a hundred small
parameters took 500 requests a site and round. So arrays travel many in one (`bundle`): the length
of an index, the index as JSON, then each array's bytes as above.
"""

from __future__ import annotations

import io
import json
import math
from functools import lru_cache
from itertools import chain
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import ArrayDict, Arrays

STYPE: Final = "numpy.ndarray"
"""Flower's name for this layout."""

BUNDLE: Final = "healthfm.arrays"
"""Our name for many arrays in one."""

_T = TypeVar("_T", str, int)
_ALIGNED: Final = 64
_MOST_INDEX: Final = 1 << 24
_KINDS: Final = frozenset("biufU")


@lru_cache(maxsize=8192)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    kind = np.dtype(dtype)
    if kind.kind not in _KINDS or kind.byteorder == ">":
        raise ValueError(f"type {dtype} may not travel")
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer,
        {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape},
    )
    return buffer.getvalue()


def pack(array: npt.NDArray[Any]) -> bytes:
    """Return `array` as the bytes of a .npy file.

    Raises:
        ValueError: The type is none of bool, integer, float or fixed-width text.
    """
    return b"".join(_parts(array))


def _parts(array: npt.NDArray[Any]) -> tuple[bytes, bytes | memoryview]:
    """Return header and contents, which are the array's own bytes and no copy of them."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    header = _header(array.dtype.str, array.shape)
    return header, array.data.cast("B") if array.size else b""


def unpack(dtype: str, shape: tuple[int, ...], data: bytes | memoryview) -> npt.NDArray[Any]:
    """Return a read-only view of `data` as an array of `dtype` and `shape`.

    Raises:
        ValueError: `data` is not exactly such an array; the message names what differs.
    """
    try:
        kind = np.dtype(dtype)
        header = _header(kind.str, shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("its type or shape cannot travel") from error
    if min(shape, default=0) < 0 or data[: len(header)] != header:
        raise ValueError("its header does not say the declared type and shape")
    if len(data) != len(header) + math.prod(shape) * kind.itemsize:
        raise ValueError("its length does not fit its shape")
    return np.frombuffer(data, dtype=kind, offset=len(header)).reshape(shape)


def bundle(arrays: Arrays) -> bytes:
    """Return `arrays` in one piece: equal arrays give equal bytes.

    Raises:
        ValueError: A type is none that travels.
    """
    packed = {name: _parts(array) for name, array in sorted(arrays.items())}
    index = [
        [name, arrays[name].dtype.str, list(arrays[name].shape), sum(map(len, parts))]
        for name, parts in packed.items()
    ]
    text = json.dumps(index, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNED)
    return b"".join((len(text).to_bytes(8, "big"), text, *chain.from_iterable(packed.values())))


def unbundle(data: bytes | memoryview) -> ArrayDict:
    """Return read-only views of the arrays in `data`, without a copy.

    Raises:
        ValueError: `data` is not exactly such a piece; the message names what differs.
    """
    view = memoryview(data)
    length = int.from_bytes(view[:8], "big")
    if len(view) < 8 or length > min(_MOST_INDEX, len(view) - 8):
        raise ValueError("its index is cut off or too long")
    arrays: ArrayDict = {}
    start = 8 + length
    for name, dtype, shape, size in _index(bytes(view[8:start])):
        if name in arrays or size > len(view) - start:
            raise ValueError("its index names an array twice, or more than is there")
        arrays[name] = unpack(dtype, shape, view[start : start + size])
        start += size
    if start != len(view):
        raise ValueError("its length does not fit its index")
    return arrays


def _index(text: bytes) -> list[tuple[str, str, tuple[int, ...], int]]:
    try:
        rows = json.loads(text)
        return [
            (_as(name, str), _as(dtype, str), tuple(_as(n, int) for n in shape), _as(size, int))
            for name, dtype, shape, size in rows
        ]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("its index cannot be read") from error


def _as(value: Any, kind: type[_T]) -> _T:
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise ValueError("an entry of another kind")
    return value
