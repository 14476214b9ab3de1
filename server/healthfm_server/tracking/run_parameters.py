"""A run's configuration as a tracker's parameters: no folder, host, site or token is among them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from pydantic import BaseModel

from healthfm_core.config.run import RunConfig
from healthfm_core.federation.protocol import for_the_wire

_COORDINATORS_OWN: Final = ("out", "resume", "data.path", "data.stores", "federation.start_from")
_NAMES_SITES: Final = ("evaluation.test_sites",)
_OF_THE_MACHINE: Final = ("simulation", "network", "plan")


def run_parameters(config: RunConfig) -> dict[str, str]:
    """Return dotted key → value as text, of every setting that the sites of a run know too."""
    kept = dict(_flat(for_the_wire(config), ""))
    for key in (*_COORDINATORS_OWN, *_NAMES_SITES):
        kept.pop(key, None)
    return kept


def _flat(section: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in section:
        key = f"{prefix}{name}"
        if key in _OF_THE_MACHINE:
            continue
        if isinstance(value, BaseModel):
            yield from _flat(value, f"{key}.")
        else:
            plain = section.model_dump(mode="json", include={name})[name]
            yield key, plain if isinstance(plain, str) else json.dumps(plain)
