"""Sites whose people come more rarely, or more often."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from healthfm_core.config import CohortConfig
from healthfm_core.errors import ConfigError
from healthfm_simulations.partition.site_plan import Partition, SitePlan


def _plan(plan: SitePlan, config: CohortConfig, _rng: np.random.Generator) -> SitePlan:
    unknown = sorted(set(config.gap_sites) - set(plan.names))
    if unknown:
        raise ConfigError(
            102,
            where="data.cohort.gap_sites",
            seen=f"no site is called {unknown[0]}",
            wanted=f"the sites are {plan.names[0]} to {plan.names[-1]}",
        )
    scale = [config.gap_scale if name in config.gap_sites else 1.0 for name in plan.names]
    return replace(plan, gap_scale=np.array(scale))


PARTITION: Final = Partition("gaps", plan=_plan)
