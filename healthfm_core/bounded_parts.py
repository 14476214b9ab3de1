"""Neighbours in parts of a bounded size, for what cannot be looked at all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

AT_ONCE: Final = 1 << 21
"""Elements of segments that are looked at together."""


def in_parts(sizes: npt.NDArray[np.integer], most: int = AT_ONCE) -> Iterator[tuple[int, int]]:
    """Yield ``(low, high)``: neighbours whose sizes sum to `most` at most, or one that is larger.

    Args:
        sizes: [n] how large each is.
        most: The sum of a part.
    """
    ends, low, done = np.cumsum(sizes, dtype=np.int64), 0, 0
    while low < len(ends):
        high = max(int(np.searchsorted(ends, done + most, side="right")), low + 1)
        yield low, high
        low, done = high, int(ends[high - 1])
