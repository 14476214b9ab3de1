"""Ways in which sites differ: one file each, found by `partition_registry`.

Of the simulated cohort: how many people a site has (`size_skew`), which modalities it lacks
(`missing_modalities`), how often conditions occur (`label_shift`), how often people come
(`visit_gaps`), its own names for codes (`code_dialect`), and which of the codes below a condition
it writes (`code_habits`). Each is built from pure functions of a seeded generator. Of real stores:
`split_store` deals the people of one store to several sites, and `early_store` keeps what came
before the last months of each record.
"""

from healthfm_simulations.partition.code_dialect import (
    draw_local_names,
    rename_codes,
    with_local_codes,
)
from healthfm_simulations.partition.label_shift import (
    rate_offsets,
    shared_rate_offsets,
    shifted_assignment,
)
from healthfm_simulations.partition.missing_modalities import crossed_absence
from healthfm_simulations.partition.size_skew import assign_sites, site_sizes
from healthfm_simulations.partition.split_stores import split_store
from healthfm_simulations.partition.temporal_split import RecordCuts, early_store

__all__ = [
    "RecordCuts",
    "assign_sites",
    "crossed_absence",
    "draw_local_names",
    "early_store",
    "rate_offsets",
    "rename_codes",
    "shared_rate_offsets",
    "shifted_assignment",
    "site_sizes",
    "split_store",
    "with_local_codes",
]
