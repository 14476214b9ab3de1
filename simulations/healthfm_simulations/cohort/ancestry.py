"""Groups of ancestry: polygenic scores that lie elsewhere and say less outside the first group.

A raw score is the person's own plus its group's mean. Normalised within the group (pgsc_calc's
``Z_norm2``) the mean is gone; normalised over a site's people it stays in, and a model that takes
it at its word errs by a constant per group. Either way a score's effect on the hazards outside the
first group is only a share of that inside: scores are found in one population and carry over in
part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from healthfm_core.arrays import Bool, Float64
from healthfm_core.config import CohortConfig
from healthfm_simulations.cohort.simulated_people import SimulatedPeople

CODE = "ANCESTRY//G{}"
"""Static code of a group; the first is ``ANCESTRY//G0``."""


def with_ancestry(
    people: SimulatedPeople, config: CohortConfig, rng: np.random.Generator
) -> SimulatedPeople:
    """Return the people with a group each, the same mix at all sites, and what scores do there."""
    if config.ancestries == 1:
        return people
    others = config.ancestries - 1
    shares = np.r_[config.ancestry_first, np.full(others, (1 - config.ancestry_first) / others)]
    group = rng.choice(config.ancestries, len(people.site), p=shares).astype(np.int32)
    effect = np.where(group == 0, 1.0, config.prs_portability)
    return replace(people, ancestry=group, effect=effect)


def recorded_scores(
    people: SimulatedPeople, has_score: Bool, config: CohortConfig, rng: np.random.Generator
) -> Float64:
    """Return the scores [N, P] as the sites record them: normalised as the configuration says."""
    if config.ancestries == 1 or config.prs_normalised == "ancestry":
        return people.scores
    mean = rng.normal(0.0, config.ancestry_shift, (config.ancestries, people.scores.shape[1]))
    raw = people.scores + mean[people.ancestry]
    recorded = np.zeros_like(raw)
    for site in np.unique(people.site[has_score]):
        here = has_score & (people.site == site)
        spread = raw[here].std(axis=0)
        recorded[here] = (raw[here] - raw[here].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return recorded
