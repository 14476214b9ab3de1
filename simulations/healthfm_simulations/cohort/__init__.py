"""The default cohort: simulated people at several sites, from a known generating process.

Each person carries a few latents that move on their own, fast ones (half-life three weeks) and slow
ones (two years). Conditions strike at visits with hazards that read the latents, age and, where a
score is planted, the genome; chronic ones come back. Labs read the latents noisily, a wearable
reads them well, drugs follow conditions. So it is known what each modality can add, and how well
any model could do at best: `ceiling` gives the predictions of an oracle for the report.

`generate` simulates, `write_sites` writes a store per site with the oracle's tables beside them.
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
