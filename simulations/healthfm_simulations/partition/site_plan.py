"""How the sites of a simulated cohort differ: the plan before people are drawn, and their records.

A `Partition` is one way to differ. It changes the plan, the finished records of each site, or both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Bool, Float64, Int64
from healthfm_core.config import CohortConfig


@dataclass(frozen=True)
class SitePlan:
    """The S sites of a cohort with C conditions, before anybody is drawn.

    Attributes:
        names: [S] ``site-00``, ….
        sizes: [S] people.
        without_wearable: [S] whether the site lacks wearables.
        without_genomics: [S] whether it lacks polygenic scores.
        log_rate_offset: [S, C] added to the log hazards of new onsets.
        gap_scale: [S] factor on the gaps between visits.
    """

    names: tuple[str, ...]
    sizes: Int64
    without_wearable: Bool
    without_genomics: Bool
    log_rate_offset: Float64
    gap_scale: Float64


@dataclass(frozen=True)
class CohortSite:
    """One site's people.

    Attributes:
        name: ``site-00``, ….
        modalities: Of ehr, wearable, genomics: those the site holds.
        events: MEDS columns, sorted.
        scores: Columns subject_id, score, z; empty where the site has no genomics.
        wearable: Columns as in a store, empty where the site has no wearables.
        codes: The site's code table.
        local_names: Code → the site's own name for it; the oracle's table keeps the common one.
        truth: A row per (visit asked about, condition), see `cohort.oracle`.
        returns: Labels of `cohort_tables.RETURN_TASK`, one per person with two visits.
    """

    name: str
    modalities: frozenset[str]
    events: pa.Table
    scores: pa.Table
    wearable: pa.Table
    codes: pa.Table
    local_names: dict[str, str]
    truth: pa.Table
    returns: pa.Table


@dataclass(frozen=True)
class Partition:
    """One way in which sites differ.

    Attributes:
        name: Names its random numbers: with the run's seed, and for records the site's index.
        plan: Changes the plan of all sites; None changes nothing.
        records: Changes one site's finished records; None changes nothing.
    """

    name: str
    plan: Callable[[SitePlan, CohortConfig, np.random.Generator], SitePlan] | None = None
    records: Callable[[CohortSite, CohortConfig, np.random.Generator], CohortSite] | None = None


def equal_sites(config: CohortConfig) -> SitePlan:
    """Return sites that do not differ: equal sizes, all modalities, the same rates and gaps."""
    n = config.sites
    return SitePlan(
        names=tuple(site_name(index, n) for index in range(n)),
        sizes=np.diff(np.arange(n + 1) * config.subjects // n),
        without_wearable=np.zeros(n, np.bool_),
        without_genomics=np.zeros(n, np.bool_),
        log_rate_offset=np.zeros((n, config.conditions)),
        gap_scale=np.ones(n),
    )


def site_name(index: int, sites: int) -> str:
    """Name of site `index`: ``site-03``, with as many digits as the last one needs."""
    return f"site-{index:0{max(2, len(str(sites - 1)))}d}"
