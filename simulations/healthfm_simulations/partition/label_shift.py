"""Sites that differ in how often a label occurs."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from healthfm_core.arrays import Float64, Int32, Int64
from healthfm_core.config import CohortConfig
from healthfm_simulations.partition.site_plan import Partition, SitePlan

MOST_OFFSET: Final = 3.0
"""No site's rate is shared down or up by more than e^3, a factor of 20."""


def rate_offsets(n_sites: int, n_codes: int, sd: float, rng: np.random.Generator) -> Float64:
    """Draw log-rate offsets [n_sites, n_codes], normal with `sd`, each code's mean over sites 0."""
    offsets = rng.normal(0.0, 1.0, (n_sites, n_codes)) * sd
    centred: Float64 = offsets - offsets.mean(axis=0, keepdims=True)
    return centred


def shared_rate_offsets(
    n_sites: int, n_codes: int, alpha: float, rng: np.random.Generator
) -> Float64:
    """Draw log-rate offsets [n_sites, n_codes] from each code's Dirichlet(`alpha`) shares.

    A site with the share p of a code's rate has it at n_sites · p times the common rate, so that
    the mean over the sites is the common rate but for the bound: offsets lie within ±`MOST_OFFSET`.
    """
    shares = rng.dirichlet(np.full(n_sites, alpha), n_codes).T
    offsets = np.log(np.maximum(n_sites * shares, np.exp(-MOST_OFFSET)))
    return np.asarray(np.minimum(offsets, MOST_OFFSET))


def shifted_assignment(group: Int64, n_sites: int, alpha: float, rng: np.random.Generator) -> Int32:
    """Return each person's site such that the mix of `group` differs between the sites.

    Each group is divided by its own Dirichlet(`alpha`) shares (Hsu et al. 2019): a small
    `alpha` gives sites that hold one group almost alone. A site may end up with nobody.

    Args:
        group: [n] any label of the people, 0, 1, ….
        n_sites: Number of sites.
        alpha: Concentration, > 0.
        rng: Where the randomness comes from.
    """
    site = np.empty(len(group), np.int32)
    for value in np.unique(group):
        members = rng.permutation(np.flatnonzero(group == value))
        shares = rng.dirichlet(np.full(n_sites, alpha))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.int64)
        for index, part in enumerate(np.split(members, cuts)):
            site[part] = index
    return site


def _plan(plan: SitePlan, config: CohortConfig, rng: np.random.Generator) -> SitePlan:
    sites, conditions = config.sites, config.conditions
    if config.label_alpha is not None:
        offsets = shared_rate_offsets(sites, conditions, config.label_alpha, rng)
    else:
        offsets = rate_offsets(sites, conditions, config.label_shift, rng)
    return replace(plan, log_rate_offset=offsets)


PARTITION: Final = Partition("labels", plan=_plan)
