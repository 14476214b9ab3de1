"""Keys that have another name now: what an old study or run is read with, and told in a refusal."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

RENAMED: Final[Mapping[str, str]] = {
    "federation.aggregation": "federation.aggregation.groups",
    "federation.code_average": "federation.aggregation.code_rows",
    "federation.max_update_norm": "federation.aggregation.max_update_norm",
    "federation.robust.name": "federation.aggregation.method",
    "federation.robust.hostile": "federation.aggregation.byzantine_fraction",
    "federation.server_optimizer": "federation.aggregation.server_optimizer",
    "federation.secure_aggregation.letters_s": "federation.aggregation.secure.message_timeout_s",
    "federation.secure_aggregation.corrupt": "federation.aggregation.secure.colluding_fraction",
    "federation.secure_aggregation.dropout": "federation.aggregation.secure.dropout_fraction",
    "federation.secure_aggregation": "federation.aggregation.secure",
}
"""Key of release 0.1.0 → its name now; what is in a section moves with it, and goes before it."""

RENAMED_VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "federation.aggregation.method": {"none": "weighted_mean", "median": "coordinate_median"},
}
"""Key → value of release 0.1.0 → its name now."""


def with_new_names(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as release 0.1.0 wrote it, under the names of today."""
    config = copy.deepcopy(dict(raw))
    for old, new in RENAMED.items():
        found = _take(config, old.split("."))
        if found is not _MISSING:
            _put(config, new.split("."), RENAMED_VALUES.get(new, {}).get(str(found), found))
    return config


_MISSING: Final = object()


def _take(config: dict[str, Any], path: list[str]) -> Any:
    """Return the value at `path` and leave it out; a section of the same name is a new one."""
    name, *rest = path
    if rest:
        section = config.get(name)
        found = _take(section, rest) if isinstance(section, dict) else _MISSING
        if found is not _MISSING and not section:
            del config[name]
        return found
    is_new = name == "aggregation" and isinstance(config.get(name), dict)
    return _MISSING if is_new else config.pop(name, _MISSING)


def _put(config: dict[str, Any], path: list[str], value: Any) -> None:
    *sections, last = path
    for name in sections:
        config = config.setdefault(name, {})
    known = config.get(last)
    config[last] = {**value, **known} if isinstance(known, dict) else value
