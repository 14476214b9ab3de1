"""The default cohort: simulated people at several sites, and the truth about them.

Each person carries a few latents that move on their own, fast ones (half-life three weeks) and slow
ones (two years). Conditions strike at visits with hazards that read the latents, age and, where a
score is planted, the genome; chronic ones come back. Labs read the latents noisily, a wearable
reads them well, drugs follow conditions. So what each modality can add is known, and so is the best
any model could do: `ceiling` gives the oracle's own predictions for the report.

`generate` simulates, `write_sites` writes a store per site with the truth beside them.
"""

from healthfm_simulations.cohort.cohort_stores import write_sites
from healthfm_simulations.cohort.generate_cohort import Cohort, generate
from healthfm_simulations.cohort.oracle_predictions import (
    ceiling,
    half_lives,
    is_condition,
    scores_at,
)
from healthfm_simulations.partition.site_plan import CohortSite

__all__ = [
    "Cohort",
    "CohortSite",
    "ceiling",
    "generate",
    "half_lives",
    "is_condition",
    "scores_at",
    "write_sites",
]
