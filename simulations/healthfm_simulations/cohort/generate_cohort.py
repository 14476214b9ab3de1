"""The whole cohort in memory: people at their sites, their records, and the oracle's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Bool, Int64
from healthfm_core.config import CohortConfig
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.genomics import GENOMICS
from healthfm_core.modalities.wearable import WEARABLES
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.cohort.ancestry import recorded_scores, with_ancestry
from healthfm_simulations.cohort.cohort_tables import (
    CodeBook,
    clinical_events,
    oracle_rows,
    return_labels,
    rows_of,
    score_rows,
    wearable_rows,
)
from healthfm_simulations.cohort.generating_process import DataGeneratingProcess, draw_process
from healthfm_simulations.cohort.oracle import ask_oracle
from healthfm_simulations.cohort.readings import take_labs, wear
from healthfm_simulations.cohort.simulated_people import draw_people, simulate_visits
from healthfm_simulations.partition.partition_registry import partitioned_records, plan_sites
from healthfm_simulations.partition.site_plan import CohortSite

FIRST_ID: Final = 1_000_001
WEARERS: Final = 0.95
GENOTYPED: Final = 0.95
"""Share of people who have the modality at a site that holds it."""


@dataclass(frozen=True)
class Cohort:
    """Simulated people at several sites, and the process that generated them."""

    config: CohortConfig
    seed: int
    process: DataGeneratingProcess
    sites: tuple[CohortSite, ...]


def generate(config: CohortConfig, seed: int) -> Cohort:
    """Simulate a cohort; equal arguments give equal people, whatever the machine.

    Raises:
        ConfigError: HF-102, a name in ``gap_sites`` that no site has; HF-103, more sites than the
            people can fill.
    """
    plan = plan_sites(config, seed)
    no_wearable = plan.without_wearable | (min(config.wearable_hours, config.worn_hours) == 0)
    no_genomics = plan.without_genomics | (config.prs == 0)
    process = draw_process(
        config, plan.log_rate_offset, numpy_generator(seed, "cohort", "world"), plan.gap_scale
    )
    tables = _simulate(config, process, plan.sizes, no_wearable, no_genomics, seed)
    last = FIRST_ID - 1 + np.cumsum(plan.sizes)
    first = last - plan.sizes + 1
    held = _modalities(no_wearable, no_genomics)
    codes = CodeBook.of(process).table(process)
    sites = [
        _site(plan.names[s], tables, (int(first[s]), int(last[s])), held[s], codes)
        for s in range(len(plan.names))
    ]
    differing = (partitioned_records(site, s, config, seed) for s, site in enumerate(sites))
    return Cohort(config, seed, process, tuple(differing))


def _modalities(no_wearable: Bool, no_genomics: Bool) -> list[frozenset[str]]:
    return [
        frozenset({EHR} | (set() if w else {WEARABLES}) | (set() if g else {GENOMICS}))
        for w, g in zip(no_wearable, no_genomics, strict=True)
    ]


@dataclass(frozen=True)
class _Tables:
    events: pa.Table
    scores: pa.Table
    wearable: pa.Table
    truth: pa.Table
    returns: pa.Table


def _simulate(
    config: CohortConfig,
    process: DataGeneratingProcess,
    sizes: Int64,
    no_wearable: Bool,
    no_genomics: Bool,
    seed: int,
) -> _Tables:
    """Simulate everybody, sites one after the other, ids ascending."""
    site = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    scores = int(process.score.max()) + 1
    people = draw_people(site, config.years, scores, numpy_generator(seed, "cohort", "people"))
    people = with_ancestry(people, config, numpy_generator(seed, "cohort", "ancestry"))
    lives = simulate_visits(process, people, numpy_generator(seed, "cohort", "lives"))
    labs = take_labs(process, lives, numpy_generator(seed, "cohort", "labs"))
    holds = numpy_generator(seed, "cohort", "holders").random((2, len(site)))
    has_score = ~no_genomics[site] & (holds[0] < GENOTYPED)
    wearing = wear(
        process,
        people,
        lives,
        ~no_wearable[site] & (holds[1] < WEARERS),
        hours_per_visit=config.wearable_hours,
        hours_in_all=config.worn_hours,
        noise=config.wearable_noise,
        rng=numpy_generator(seed, "cohort", "wearing"),
    )
    oracle = ask_oracle(process, people, lives, labs, wearing, has_score, config.wearable_noise)
    ids = FIRST_ID + np.arange(len(site), dtype=np.int64)
    coins = numpy_generator(seed, "cohort", "drugs")
    z = recorded_scores(people, has_score, config, numpy_generator(seed, "cohort", "raw scores"))
    return _Tables(
        clinical_events(process, people, lives, labs, ids, coins),
        score_rows(process, z, has_score, ids),
        wearable_rows(process, lives, wearing, ids),
        oracle_rows(process, lives, oracle, ids),
        return_labels(lives, ids, numpy_generator(seed, "cohort", "returns")),
    )


def _site(
    name: str,
    tables: _Tables,
    ids: tuple[int, int],
    modalities: frozenset[str],
    codes: pa.Table,
) -> CohortSite:
    return CohortSite(
        name=name,
        modalities=modalities,
        events=rows_of(tables.events, *ids),
        scores=rows_of(tables.scores, *ids),
        wearable=rows_of(tables.wearable, *ids),
        codes=codes,
        local_names={},
        truth=rows_of(tables.truth, *ids),
        returns=rows_of(tables.returns, *ids),
    )
