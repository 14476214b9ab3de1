"""Masks: a key's AES-256-CTR stream, added to an array of a ring or taken away from it, in place.

The stream is made block by block and never as a whole, so that a mask costs one pass over the
array and a block of memory. A key masks one session only, and each of the session's arrays has a
stream of its own: the upper half of the counter block is its number.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Ring = npt.NDArray[np.unsignedinteger[Any]]
"""One-dimensional, uint16, uint32 or uint64: addition wraps, which is the ring's own."""

KEY_BYTES: Final = 32
_BLOCK: Final = 1 << 20


def add_mask(values: Ring, key: bytes, stream: int, sign: Literal[1, -1] = 1) -> None:
    """Add the key's stream to `values` in place, or take it away.

    Args:
        values: Contiguous array of the ring.
        key: `KEY_BYTES` secret bytes of this session.
        stream: Number of the array in its session; no two arrays share one.
        sign: 1 adds, -1 takes away.

    Raises:
        ValueError: The array is not one that the ring's arithmetic works on.
    """
    rings = (np.uint16, np.uint32, np.uint64)
    if values.dtype not in rings or not values.flags.c_contiguous:
        raise ValueError("a mask is added to a contiguous array of uint16, uint32 or uint64")
    counter = stream.to_bytes(8, "big") + bytes(8)
    encryptor = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
    flat, width = values.reshape(-1), values.dtype.itemsize
    zeros = bytes(min(_BLOCK, flat.nbytes))
    block = np.empty(len(zeros), np.uint8)
    for start in range(0, flat.size, _BLOCK // width):
        part = flat[start : start + _BLOCK // width]
        encryptor.update_into(memoryview(zeros)[: part.nbytes], block.data)
        mask = block[: part.nbytes].view(values.dtype)
        (np.add if sign > 0 else np.subtract)(part, mask, out=part)
