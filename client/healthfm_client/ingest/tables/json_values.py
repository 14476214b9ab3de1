"""Values of JSON whose types nobody promised, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from healthfm_core.arrays import Float64

NO_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for a text that is cut off, damaged or of another form."""


def plain(text: bytes) -> bytes:
    """Return a text without the mark that some programs begin UTF-8 with."""
    return text.removeprefix(b"\xef\xbb\xbf")


def numbers_of(values: Sequence[Any]) -> Float64:
    """Return [N] numbers, or texts of numbers, NaN where one is neither."""
    try:
        found = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        found = np.zeros((0, 0))
    if found.ndim == 1:
        return found
    return np.array([number_of(value) for value in values], np.float64)


def number_of(value: Any) -> float:
    """Return a number, or a text of one; NaN of anything else."""
    try:
        known = isinstance(value, int | float | str) and not isinstance(value, bool)
        return float(value) if known else np.nan
    except (ValueError, OverflowError):
        return np.nan


def text_of(value: Any) -> str | None:
    """Return a text, None of anything else."""
    return value if isinstance(value, str) else None


def mapping_of(value: Any) -> Mapping[str, Any]:
    """Return an object, an empty one of anything else."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> Sequence[Any]:
    """Return a list, an empty one of anything else."""
    return value if isinstance(value, list) else ()
