"""How many people each site has, and who they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from healthfm_core.arrays import Int32, Int64
from healthfm_core.config import CohortConfig
from healthfm_core.errors import ConfigError
from healthfm_simulations.partition.site_plan import Partition, SitePlan

SMALLEST_SITE: Final = 20
"""People that every site gets, where there are enough for all."""


def site_sizes(
    n_subjects: int, n_sites: int, alpha: float, rng: np.random.Generator, *, at_least: int = 1
) -> Int64:
    """Draw skewed site sizes that add up to `n_subjects`.

    Shares are Dirichlet(`alpha`, …, `alpha`): 0.1 gives one giant, 2 a factor of a few, 100 equal
    sites. Every site first gets `at_least` people, the rest is shared out by largest remainder.

    Raises:
        ConfigError: HF-103, fewer people than ``n_sites * at_least``.
    """
    rest = n_subjects - n_sites * at_least
    if n_sites < 1 or rest < 0:
        raise ConfigError(
            103,
            where="subjects and sites",
            seen=f"{n_subjects} subjects over {n_sites} sites",
            wanted=f"at least one site, and {at_least} subjects for each",
            do="Ask for more subjects or for fewer sites",
        )
    ideal = rng.dirichlet(np.full(n_sites, alpha)) * rest
    sizes = np.floor(ideal).astype(np.int64)
    order = np.argsort(-(ideal - sizes), kind="stable")
    sizes[order[: rest - int(sizes.sum())]] += 1
    return sizes + at_least


def assign_sites(sizes: Int64, rng: np.random.Generator) -> Int32:
    """Return each person's site index, in random order, with exactly ``sizes[s]`` at site s."""
    return rng.permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))


def _plan(plan: SitePlan, config: CohortConfig, rng: np.random.Generator) -> SitePlan:
    smallest = max(1, min(SMALLEST_SITE, config.subjects // config.sites))
    sizes = site_sizes(config.subjects, config.sites, config.size_skew, rng, at_least=smallest)
    return replace(plan, sizes=sizes)


PARTITION: Final = Partition("sizes", plan=_plan)
