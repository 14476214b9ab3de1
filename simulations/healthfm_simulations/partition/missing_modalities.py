"""Which sites lack a modality."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool
from healthfm_core.config import CohortConfig
from healthfm_simulations.partition.site_plan import Partition, SitePlan


def crossed_absence(
    n_sites: int, share_a: float, share_b: float, rng: np.random.Generator
) -> tuple[Bool, Bool]:
    """Choose the sites that lack modality a and those that lack b.

    ``round(share * n_sites)`` sites lack each. The two are laid across each other as evenly as the
    counts allow, so that both, either and neither occur wherever they can (from four sites on at a
    half each); which site gets which is random.

    Returns:
        Two masks [n_sites], true where the site lacks the modality.
    """
    n_a, n_b = round(share_a * n_sites), round(share_b * n_sites)
    fewest, most = max(0, n_a + n_b - n_sites), min(n_a, n_b)
    if most - fewest >= 2:
        fewest, most = fewest + 1, most - 1
    both = int(np.clip(round(n_a * n_b / n_sites), fewest, most))
    without_a = np.zeros(n_sites, np.bool_)
    without_b = np.zeros(n_sites, np.bool_)
    without_a[:n_a] = True
    without_b[:both] = True
    without_b[n_a : n_a + n_b - both] = True
    order = rng.permutation(n_sites)
    return without_a[order], without_b[order]


def _plan(plan: SitePlan, config: CohortConfig, rng: np.random.Generator) -> SitePlan:
    without_wearable, without_genomics = crossed_absence(
        config.sites, config.without_wearable, config.without_genomics, rng
    )
    return replace(plan, without_wearable=without_wearable, without_genomics=without_genomics)


PARTITION: Final = Partition("modalities", plan=_plan)
