"""Keys renamed in this minor version: their old names are taken until the next.

What ended is refused with the new name by `renamed`. docs/releasing.md has the promise; a test
fails once a row's time is over.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from healthfm_core.config.renamed import Renames


@dataclass(frozen=True)
class Deprecation:
    """A key's old name that is still taken.

    Attributes:
        new: Its dotted name now; a section stands for all that is in it.
        ends: The minor version that refuses the old one, as ``0.11``.
    """

    new: str
    ends: str


RUN: Final[Mapping[str, Deprecation]] = {}
"""Old dotted key of a run's configuration → what it is now."""

SITE: Final[Mapping[str, Deprecation]] = {}
"""The same for ``site.yaml``."""


def key_now(key: str, table: Mapping[str, Deprecation], file: str = "") -> str:
    """Return the name that a dotted key has today, and say on stderr where that is another."""
    olds = [old for old in table if key == old or key.startswith(f"{old}.")]
    if not olds:
        return key
    old = max(olds, key=len)
    new = table[old].new + key.removeprefix(old)
    where = f"{file}, " if file else ""
    sys.stderr.write(
        f"{where}{key}: renamed; it is {new} now. "
        f"The old name is refused from {table[old].ends} on.\n"
    )
    return new


def under_new_names(
    values: Mapping[str, Any], table: Mapping[str, Deprecation], file: str = ""
) -> dict[str, Any]:
    """Return what YAML holds under the names of today, and say which had an old one.

    Args:
        values: Nested, as YAML has them.
        table: `RUN` or `SITE`.
        file: Name of the file they stand in; "" for a run's configuration.
    """
    found = [old for old in table if _has(values, old.split("."))]
    if not found:
        return dict(values)
    return Renames({old: key_now(old, table, file) for old in found}).upgrade(values)


def _has(values: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True
