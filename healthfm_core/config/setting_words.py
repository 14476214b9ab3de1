"""What can be typed of a run's settings, for a shell that completes them."""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from healthfm_core.config.compose import ALIASES, GROUPS, options, schema_keys


def setting_words() -> dict[str, tuple[str, ...]]:
    """Return every key with its values, groups first; no values: any number or text may stand."""
    words = {group: options(group) for group in GROUPS}
    words |= dict.fromkeys(ALIASES, ())
    for key, field in schema_keys():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        if not is_section:
            words[key] = tuple(_values(field.annotation))
    return words


def _values(kind: Any) -> list[str]:
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if get_origin(kind) in (Union, UnionType):
        return [value for one in get_args(kind) for value in _values(one)]
    return ["null"] if kind is type(None) else []
