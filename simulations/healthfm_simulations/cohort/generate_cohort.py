"""The whole cohort in memory: people dealt to sites, their records, and the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from healthfm_core.arrays import Bool, Float64, Int64
from healthfm_core.config import CohortConfig
from healthfm_core.errors import ConfigError
from healthfm_core.modalities.ehr import EHR
from healthfm_core.modalities.genomics import GENOMICS
from healthfm_core.modalities.wearable import WEARABLES
from healthfm_core.seeding import numpy_generator
from healthfm_simulations.cohort.ancestry import recorded_scores, with_ancestry
from healthfm_simulations.cohort.cohort_tables import (
    CodeBook,
    clinical_events,
    return_labels,
    rows_of,
    score_rows,
    truth_rows,
    wearable_rows,
)
from healthfm_simulations.cohort.generating_process import World, draw_world
from healthfm_simulations.cohort.oracle import ask_oracle
from healthfm_simulations.cohort.readings import take_labs, wear
from healthfm_simulations.cohort.simulated_people import draw_people, live
from healthfm_simulations.partition import (
    crossed_absence,
    dialect,
    parents,
    rate_offsets,
    shared_rate_offsets,
    site_sizes,
    speak,
)

FIRST_ID: Final = 1_000_001
WEARERS: Final = 0.95
GENOTYPED: Final = 0.95
"""Share of people who have the modality at a site that holds it."""
SMALLEST_SITE: Final = 20


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
        local_names: Code → the site's own name for it; the truth keeps the common one.
        truth: A row per (visit asked about, condition), see `oracle`.
        returns: Labels of `tables.RETURN_TASK`, one per person with two visits.
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
class Cohort:
    """Simulated people at several sites, and the world that made them."""

    config: CohortConfig
    seed: int
    world: World
    sites: tuple[CohortSite, ...]


def generate(config: CohortConfig, seed: int) -> Cohort:
    """Simulate a cohort; equal arguments give equal people, whatever the machine.

    Raises:
        ConfigError: HF-102, a name in ``gap_sites`` that no site has; HF-103, more sites than the
            people can fill.
    """
    smallest = min(SMALLEST_SITE, config.subjects // config.sites)
    sizes = site_sizes(
        config.subjects,
        config.sites,
        config.size_skew,
        numpy_generator(seed, "cohort", "sizes"),
        at_least=max(1, smallest),
    )
    no_wearable, no_genomics = crossed_absence(
        config.sites,
        config.without_wearable,
        config.without_genomics,
        numpy_generator(seed, "cohort", "modalities"),
    )
    no_wearable = no_wearable | (min(config.wearable_hours, config.worn_hours) == 0)
    no_genomics = no_genomics | (config.prs == 0)
    world = draw_world(
        config,
        _label_skew(config, seed),
        numpy_generator(seed, "cohort", "world"),
        _gap_scale(config),
    )
    tables = _simulate(config, world, sizes, no_wearable, no_genomics, seed)
    last = FIRST_ID - 1 + np.cumsum(sizes)
    sites = tuple(
        _site(config, world, tables, s, (int(last[s] - sizes[s]) + 1, int(last[s])), held, seed)
        for s, held in enumerate(_modalities(no_wearable, no_genomics))
    )
    return Cohort(config, seed, world, sites)


def _label_skew(config: CohortConfig, seed: int) -> Float64:
    """Return the sites' log-rate offsets [sites, conditions]."""
    rng, shape = numpy_generator(seed, "cohort", "labels"), (config.sites, config.conditions)
    if config.label_alpha is not None:
        return shared_rate_offsets(*shape, config.label_alpha, rng)
    return rate_offsets(*shape, config.label_shift, rng)


def _gap_scale(config: CohortConfig) -> Float64:
    """Return each site's factor on the gaps between visits."""
    names = [site_name(i, config.sites) for i in range(config.sites)]
    unknown = sorted(set(config.gap_sites) - set(names))
    if unknown:
        raise ConfigError(
            102,
            where="data.cohort.gap_sites",
            seen=f"no site is called {unknown[0]}",
            wanted=f"the sites are {names[0]} to {names[-1]}",
            do="Correct the name",
        )
    return np.array([config.gap_scale if name in config.gap_sites else 1.0 for name in names])


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
    world: World,
    sizes: Int64,
    no_wearable: Bool,
    no_genomics: Bool,
    seed: int,
) -> _Tables:
    """Simulate everybody, sites one after the other, ids ascending."""
    site = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    scores = int(world.score.max()) + 1
    people = draw_people(site, config.years, scores, numpy_generator(seed, "cohort", "people"))
    people = with_ancestry(people, config, numpy_generator(seed, "cohort", "ancestry"))
    lives = live(world, people, numpy_generator(seed, "cohort", "lives"))
    labs = take_labs(world, lives, numpy_generator(seed, "cohort", "labs"))
    holds = numpy_generator(seed, "cohort", "holders").random((2, len(site)))
    has_score = ~no_genomics[site] & (holds[0] < GENOTYPED)
    wearing = wear(
        world,
        people,
        lives,
        ~no_wearable[site] & (holds[1] < WEARERS),
        hours_per_visit=config.wearable_hours,
        hours_in_all=config.worn_hours,
        noise=config.wearable_noise,
        rng=numpy_generator(seed, "cohort", "wearing"),
    )
    oracle = ask_oracle(world, people, lives, labs, wearing, has_score, config.wearable_noise)
    ids = FIRST_ID + np.arange(len(site), dtype=np.int64)
    coins = numpy_generator(seed, "cohort", "drugs")
    z = recorded_scores(people, has_score, config, numpy_generator(seed, "cohort", "raw scores"))
    return _Tables(
        clinical_events(world, people, lives, labs, ids, coins),
        score_rows(world, z, has_score, ids),
        wearable_rows(world, lives, wearing, ids),
        truth_rows(world, lives, oracle, ids),
        return_labels(lives, ids, numpy_generator(seed, "cohort", "returns")),
    )


def _site(
    config: CohortConfig,
    world: World,
    tables: _Tables,
    index: int,
    ids: tuple[int, int],
    modalities: frozenset[str],
    seed: int,
) -> CohortSite:
    book = CodeBook.of(world)
    name = site_name(index, config.sites)
    rng = numpy_generator(seed, "cohort", "dialect", index)
    names = dialect(book.timed, config.code_dialect, name, rng)
    return CohortSite(
        name=name,
        modalities=modalities,
        events=speak(rows_of(tables.events, *ids), names),
        scores=rows_of(tables.scores, *ids),
        wearable=rows_of(tables.wearable, *ids),
        codes=parents(book.table(world), names),
        local_names=names,
        truth=rows_of(tables.truth, *ids),
        returns=rows_of(tables.returns, *ids),
    )


def site_name(index: int, sites: int) -> str:
    """Name of site `index`: ``site-03``, with as many digits as the last one needs."""
    return f"site-{index:0{max(2, len(str(sites - 1)))}d}"
