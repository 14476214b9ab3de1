"""The type checker that tests/conftest.py puts around every function of healthfm_core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import beartype
import numpy as np

from healthfm_core.arrays import Text


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with its arguments and result checked at each call.

    Two annotations are left to mypy: a result of type `Self`, which beartype knows only where it
    decorates a whole class; and the width of an array of text, which it takes to be 0.
    """
    hints = function.__annotations__
    if hints.get("return") in ("Self", Self):
        del hints["return"]
    for name, hint in hints.items():
        if hint == Text:
            hints[name] = np.ndarray
    return beartype.beartype(function)
