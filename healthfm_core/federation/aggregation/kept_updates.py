"""A round's updates kept site by site, for algorithms that compare them with one another.

Each group is judged over the sites that moved it, so that a Byzantine site among three with
wearables is one of three there, however many others there are. Every site counts once, whatever
its size: a weight is a claim of the site's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from healthfm_core.arrays import Arrays, Float32
from healthfm_core.federation.update_checks import UpdateSchema

LEAST_SITES: Final = 3
"""Of two updates nobody can say which is the Byzantine one."""

_BLOCK: Final = 1 << 14


class KeptUpdates:
    """Each group's updates, flat, until the round closes.

    Args:
        schema: Names and shapes; updates have passed `check_update`.
    """

    def __init__(self, schema: UpdateSchema) -> None:
        self._schema = schema
        self._rows: dict[str, dict[str, Float32]] = {}

    def add(self, site: str, update: Arrays, weights: Mapping[str, float]) -> None:
        """Keep one update.

        Raises:
            ValueError: The site was added already.
        """
        if any(site in self._rows.get(group, {}) for group in weights):
            raise ValueError("a site is added once a round")
        for group in weights:
            flat = [update[name].reshape(-1) for name in self._schema.groups[group]]
            self._rows.setdefault(group, {})[site] = np.concatenate(flat)

    def count(self, group: str) -> int:
        """Return how many sites moved `group`."""
        return len(self._rows.get(group, ()))

    def take(self, group: str) -> list[Float32]:
        """Return the group's updates in the order of the sites' names, and forget them.

        Raises:
            KeyError: No site moved the group, or they were taken already.
        """
        rows = self._rows.pop(group)
        return [rows[site] for site in sorted(rows)]


def byzantine_sites(fraction: float, sites: int) -> int:
    """Return f, the whole number of `sites` that the fraction comes to."""
    return math.floor(fraction * sites + 1e-9)


def blocks(rows: list[Float32]) -> Iterator[Float32]:
    """Yield the rows side by side, [sites, some of the coordinates] at a time."""
    for start in range(0, max(1, rows[0].size), _BLOCK):
        yield np.stack([row[start : start + _BLOCK] for row in rows])
