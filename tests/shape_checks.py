"""The type checker that tests/conftest.py puts around every function of healthfm_core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import beartype


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` with its arguments and result checked at each call.

    beartype knows `Self` only where it decorates a whole class, and jaxtyping's hook decorates
    methods one by one; so a result of type `Self` is left to mypy.
    """
    if function.__annotations__.get("return") in ("Self", Self):
        del function.__annotations__["return"]
    return beartype.beartype(function)
