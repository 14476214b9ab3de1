"""All partitions of the simulated cohort: the files of this package that define ``PARTITION``.

A further partition is one file here, with its keys in `healthfm_core.config.data.CohortConfig`.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Final

from healthfm_core.config import CohortConfig
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.partition.site_plan import CohortSite, Partition, SitePlan, equal_sites

_PACKAGE: Final = __name__.rpartition(".")[0]


@cache
def partitions() -> tuple[Partition, ...]:
    """Return all partitions, by the names of their files."""
    folder = importlib.import_module(_PACKAGE).__path__
    names = sorted(module.name for module in pkgutil.iter_modules(folder))
    modules = [importlib.import_module(f"{_PACKAGE}.{name}") for name in names]
    return tuple(module.PARTITION for module in modules if hasattr(module, "PARTITION"))


def plan_sites(config: CohortConfig, seed: int) -> SitePlan:
    """Return the sites of a cohort as all partitions plan them.

    Raises:
        ConfigError: HF-102 or HF-103 where a partition's keys do not fit the cohort.
    """
    plan = equal_sites(config)
    for partition in partitions():
        if partition.plan is not None:
            plan = partition.plan(plan, config, numpy_generator(seed, "cohort", partition.name))
    return plan


def partitioned_records(
    site: CohortSite, index: int, config: CohortConfig, seed: int
) -> CohortSite:
    """Return a site's records as all partitions leave them."""
    for partition in partitions():
        if partition.records is not None:
            rng = numpy_generator(seed, "cohort", partition.name, index)
            site = partition.records(site, config, rng)
    return site
