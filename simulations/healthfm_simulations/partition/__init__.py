"""Ways in which sites differ, as pure functions of a seeded generator.

Size skew (`site_sizes`, `assign_sites`), missing modalities (`crossed_absence`), label shift
(`rate_offsets` and `shared_rate_offsets` on the rates of simulated people, `shifted_assignment` on
real people's labels) and
code dialects (`dialect`, `speak`, `parents`). The simulated cohort is built from them;
`split_store` deals the people of one real store to several sites; `early_store` keeps of a store
what came before the last months of each record.
"""

from healthfm_simulations.partition.code_dialect import dialect, parents, speak
from healthfm_simulations.partition.label_shift import (
    rate_offsets,
    shared_rate_offsets,
    shifted_assignment,
)
from healthfm_simulations.partition.missing_modalities import crossed_absence
from healthfm_simulations.partition.size_skew import assign_sites, site_sizes
from healthfm_simulations.partition.split_stores import split_store
from healthfm_simulations.partition.temporal_split import Cuts, early_store

__all__ = [
    "Cuts",
    "assign_sites",
    "crossed_absence",
    "dialect",
    "early_store",
    "parents",
    "rate_offsets",
    "shared_rate_offsets",
    "shifted_assignment",
    "site_sizes",
    "speak",
    "split_store",
]
