"""How a message of a session is written and read: canonical JSON, checked before it is believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from healthfm_core.errors import PrivacyError

_Read = TypeVar("_Read")


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def unfit(where: str, seen: str, do: str | None = None) -> PrivacyError:
    """Return the error for keys or shares that are not what they should be (HF-610)."""
    return PrivacyError(610, where=f"secure aggregation, {where}", seen=seen, do=do)


def reading(what: str, text: str, read: Callable[[Any], _Read]) -> _Read:
    """Return what `read` makes of a JSON text.

    Raises:
        PrivacyError: It cannot be read (HF-610).
    """
    try:
        return read(json.loads(text))
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise unfit(what, f"a text that cannot be used ({type(error).__name__})") from error
