"""How an array travels: the bytes of a .npy file, read back without a copy and without trust.

The layout is NumPy's own (format 1.0, C order), so that Flower's `Array` and `np.load` read it
too. Reading does not parse the header: it builds the only header that the declared type and shape
can have and compares, which is quicker and leaves a hostile sender nothing to be parsed.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

STYPE: Final = "numpy.ndarray"
"""Flower's name for this layout."""

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
    array = np.ascontiguousarray(array).reshape(array.shape)
    header = _header(array.dtype.str, array.shape)
    return b"".join((header, array.data.cast("B") if array.size else b""))


def unpack(dtype: str, shape: tuple[int, ...], data: bytes) -> npt.NDArray[Any]:
    """Return a read-only view of `data` as an array of `dtype` and `shape`.

    Raises:
        ValueError: `data` is not exactly such an array; the message names what differs.
    """
    try:
        kind = np.dtype(dtype)
        header = _header(kind.str, shape)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("its type or shape cannot travel") from error
    if min(shape, default=0) < 0 or not data.startswith(header):
        raise ValueError("its header does not say the declared type and shape")
    if len(data) != len(header) + math.prod(shape) * kind.itemsize:
        raise ValueError("its length does not fit its shape")
    return np.frombuffer(data, dtype=kind, offset=len(header)).reshape(shape)
