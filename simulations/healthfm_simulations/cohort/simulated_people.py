"""Histories: latents, visits and conditions of many people at once, one visit after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Bool, Float64, Int16, Int32, Int64
from healthfm_simulations.cohort.generating_process import DataGeneratingProcess

DAY_US: Final = 86_400_000_000
YEAR_DAYS: Final = 365.25
FIRST_START_US: Final = 1_262_304_000_000_000
"""2010-01-01, when the earliest history begins."""

SHORT_GAP_DAYS: Final = 16.0
LONG_GAP_DAYS: Final = 520.0
SHORTEST_GAP_DAYS: Final = 3.0
MAX_VISITS: Final = 80


@dataclass(frozen=True)
class SimulatedPeople:
    """N people: who they are before anything happens.

    Attributes:
        site: [N] index of the site.
        male: [N].
        birth_us: [N] µs since 1970.
        start_us: [N] first visit.
        span_days: [N] length of the observed history.
        frailty: [N] multiplies the rate of visits, mean 1.
        scores: [N, P] polygenic scores, standard normal within a group.
        ancestry: [N] group.
        effect: [N] share of the scores' effects that holds for the person.
    """

    site: Int32
    male: Bool
    birth_us: Int64
    start_us: Int64
    span_days: Float64
    frailty: Float64
    scores: Float64
    ancestry: Int32
    effect: Float64


@dataclass(frozen=True)
class SimulatedVisits:
    """U visits, sorted by person and time.

    Attributes:
        person: [U] index into `SimulatedPeople`.
        number: [U] 0 for a person's first visit.
        time_us: [U].
        gap_days: [U] days since the previous visit, 0 for the first.
        latent: [U, K] true latents at the visit.
        earlier: [U, C] number of earlier visits at which the condition was coded.
        probability: [U, C] true probability of the condition at this visit, given all latents.
        present: [U, C] whether it was coded.
    """

    person: Int64
    number: Int64
    time_us: Int64
    gap_days: Float64
    latent: Float64
    earlier: Int16
    probability: Float64
    present: Bool


def draw_people(
    site: Int32, years: float, scores: int, rng: np.random.Generator
) -> SimulatedPeople:
    """Draw people for the given sites, with histories of `years` on average."""
    n = len(site)
    start_days = rng.integers(0, 5 * 365, n)
    start_us = (
        FIRST_START_US + start_days * DAY_US + rng.integers(0, DAY_US // 1_000_000, n) * 1_000_000
    )
    age_days = rng.uniform(20.0, 78.0, n) * YEAR_DAYS
    birth_us = (start_us - (age_days * DAY_US).astype(np.int64)) // DAY_US * DAY_US
    return SimulatedPeople(
        site=site,
        male=rng.random(n) < 0.5,
        birth_us=birth_us,
        start_us=start_us,
        span_days=rng.uniform(0.5, 1.5, n) * years * YEAR_DAYS,
        frailty=rng.gamma(4.0, 0.25, n),
        scores=rng.standard_normal((n, scores)),
        ancestry=np.zeros(n, np.int32),
        effect=np.ones(n),
    )


def fixed_log_hazard(
    process: DataGeneratingProcess, people: SimulatedPeople, person: Int64, time_us: Int64
) -> Float64:
    """Log hazard [U, C] of a new onset, less what the latents add."""
    age = (time_us - people.birth_us[person]) / (DAY_US * YEAR_DAYS)
    fixed = process.intercept + process.site_offset[people.site[person]]
    fixed = fixed + process.age_slope * ((age - 50.0) / 20.0)[:, None]
    result: Float64 = fixed + score_log_hazard(process, people, person)
    return result


def score_log_hazard(
    process: DataGeneratingProcess, people: SimulatedPeople, person: Int64
) -> Float64:
    """What the scores add [U, C] to the log hazards of `person` [U]."""
    felt = people.scores[person] * people.effect[person, None]
    return np.asarray(felt @ process.score_loading().T)


def condition_probability(
    process: DataGeneratingProcess, fixed: Float64, signal: Float64, earlier: Int16
) -> Float64:
    """Probability [..., C] of each condition at a visit.

    Args:
        process: The laws of the cohort.
        fixed: Log hazard without the latents.
        signal: What the latents add, loading · z.
        earlier: Earlier visits with the condition.
    """
    seen = earlier > 0
    onset = -np.expm1(-np.exp(fixed + signal + np.log(2.0) * seen))
    again = 1.0 / (1.0 + np.exp(-(process.recurrence + 0.5 * signal)))
    return np.asarray(np.where(seen & process.chronic, again, onset))


def simulate_visits(
    process: DataGeneratingProcess, people: SimulatedPeople, rng: np.random.Generator
) -> SimulatedVisits:
    """Run everybody's life: exact OU steps from visit to visit, no time grid.

    The next gap is short (a fortnight) more often while the first fast latent is high, and long
    gaps are shorter while the first slow latent is high: the visits are a marked point process
    whose times also tell something about the latents.
    """
    n, k, c = len(people.site), process.latents, len(process.intercept)
    latent = rng.standard_normal((n, k))
    earlier = np.zeros((n, c), np.int16)
    time_us = people.start_us.copy()
    end_us = people.start_us + (people.span_days * DAY_US).astype(np.int64)
    gap = np.zeros(n)
    alive = np.arange(n)
    steps: list[SimulatedVisits] = []
    for number in range(MAX_VISITS):
        fixed = fixed_log_hazard(process, people, alive, time_us)
        probability = condition_probability(process, fixed, latent @ process.loading.T, earlier)
        present = rng.random(probability.shape) < probability
        visits = np.full(len(alive), number)
        steps.append(
            SimulatedVisits(alive, visits, time_us, gap, latent, earlier, probability, present)
        )
        gap = _next_gap(process, latent, people.frailty[alive], rng)
        gap = gap * process.gap_scale[people.site[alive]]
        time_us = time_us + (gap * 86_400.0).astype(np.int64) * 1_000_000
        stay = time_us < end_us[alive]
        alive, time_us, gap = alive[stay], time_us[stay], gap[stay]
        earlier = earlier[stay] + present[stay].astype(np.int16)
        keep = process.correlation(gap)
        latent = keep * latent[stay] + np.sqrt(1.0 - keep**2) * rng.standard_normal((len(alive), k))
        if len(alive) == 0:
            break
    return _by_person(steps)


def _next_gap(
    process: DataGeneratingProcess, latent: Float64, frailty: Float64, rng: np.random.Generator
) -> Float64:
    slow = int(np.argmax(process.half_life_days))
    fast = int(np.argmin(process.half_life_days))
    short = rng.random(len(latent)) < 1.0 / (1.0 + np.exp(-0.2 - 0.8 * latent[:, fast]))
    mean = np.where(short, SHORT_GAP_DAYS, LONG_GAP_DAYS * np.exp(-0.3 * latent[:, slow]) / frailty)
    return np.asarray(SHORTEST_GAP_DAYS + rng.standard_exponential(len(latent)) * mean)


def _by_person(steps: list[SimulatedVisits]) -> SimulatedVisits:
    """Join the steps (all people's visit 0, then visit 1, …) and sort by person."""
    order = np.argsort(np.concatenate([step.person for step in steps]), kind="stable")

    def joined(name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([getattr(step, name) for step in steps])[order]

    return SimulatedVisits(**{name: joined(name) for name in SimulatedVisits.__dataclass_fields__})  # type: ignore[arg-type]
