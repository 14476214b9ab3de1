"""The generating process of the simulated people: drawn once per cohort, and known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float64, Int64
from healthfm_core.config import CohortConfig

CHANNELS: Final = (
    "heart_rate",
    "activity",
    "skin_temperature",
    "respiration",
    "heart_rate_variability",
    "sleep_movement",
)
CHANNEL_MEAN: Final = (72.0, 30.0, 33.0, 15.0, 45.0, 8.0)
CHANNEL_SD: Final = (8.0, 6.0, 0.8, 1.5, 9.0, 1.5)
"""Units: beats/min, milli-g, °C, breaths/min, ms, counts/min; one SD is one SD of the latent."""

SHARE_CHRONIC: Final = 2 / 3
SLOW_LOADING: Final = 2.0
FAST_LOADING: Final = 1.5
SIDE_LOADING: Final = 0.4
LAB_NOISE: Final = 2.0
LAB_ORDERED: Final = 0.3
LAB_SCALE: Final = 10.0
LAB_MEAN: Final = 100.0


@dataclass(frozen=True)
class DataGeneratingProcess:
    """Parameters of a cohort with K latents, C conditions, D drugs, G labs and H channels.

    A latent is an Ornstein-Uhlenbeck process with mean 0 and variance 1: its correlation over Δ
    days is 2^(−Δ / half-life). At a visit, with latents z, a person who never had condition c gets
    it with probability 1 − exp(−exp(η)), η = intercept + site offset + age slope · (age − 50)/20 +
    loading · z + score effect · PRS. Who had it before gets it again with probability
    logistic(recurrence + ½ · loading · z) if it is chronic, else by the law of a new onset with
    twice the hazard.

    Attributes:
        half_life_days: [K].
        intercept: [C] log hazard per visit.
        age_slope: [C] per 20 years.
        loading: [C, K] log hazard per SD of a latent.
        score: [C] index of the condition's polygenic score, -1 where none is planted.
        score_effect: log hazard per SD of the score.
        chronic: [C].
        recurrence: [C] log odds.
        drug_for: [D, C] probability that the condition, coded at the visit, brings the drug.
        lab_loading: [G + 1, K]; row 0 is the vital sign taken at every visit.
        lab_ordered: [G + 1] probability that it is taken at a visit.
        channel_loading: [H, K] of the wearable's channels, in their SD.
        site_offset: [sites, C] log hazard (label shift).
        gap_scale: [sites] factor on the gaps between visits.
    """

    half_life_days: Float64
    intercept: Float64
    age_slope: Float64
    loading: Float64
    score: Int64
    score_effect: float
    chronic: Bool
    recurrence: Float64
    drug_for: Float64
    lab_loading: Float64
    lab_ordered: Float64
    channel_loading: Float64
    site_offset: Float64
    gap_scale: Float64

    @property
    def latents(self) -> int:
        """Number of latents K."""
        return len(self.half_life_days)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the wearable's channels."""
        return tuple(channel_name(i) for i in range(len(self.channel_loading)))

    def correlation(self, gap_days: Float64) -> Float64:
        """Correlation [..., K] of each latent with itself `gap_days` earlier."""
        return np.asarray(np.exp2(-gap_days[..., None] / self.half_life_days))

    def score_loading(self) -> Float64:
        """Effects [C, P] of the scores on the log hazards."""
        effects = np.zeros((len(self.intercept), int(self.score.max(initial=-1)) + 1))
        planted = np.flatnonzero(self.score >= 0)
        effects[planted, self.score[planted]] = self.score_effect
        return effects


def channel_name(index: int) -> str:
    """Name of wearable channel `index`."""
    return CHANNELS[index] if index < len(CHANNELS) else f"channel_{index:02d}"


def draw_process(
    config: CohortConfig,
    site_offset: Float64,
    rng: np.random.Generator,
    gap_scale: Float64 | None = None,
) -> DataGeneratingProcess:
    """Draw the laws of a cohort.

    Args:
        config: The cohort's.
        site_offset: [sites, conditions] label shift.
        rng: Where the randomness comes from.
        gap_scale: [sites] factor on the gaps between visits; None is 1 everywhere.
    """
    slow, fast = config.latents_slow, config.latents_fast
    latents, n = slow + fast, config.conditions
    main = np.repeat([SLOW_LOADING, FAST_LOADING], [slow, fast])
    loading = _loadings(n, main, rng, SIDE_LOADING)
    n_scores = min(config.prs, n)
    score = np.full(n, -1, np.int64)
    score[np.sort(rng.permutation(n)[:n_scores])] = np.arange(n_scores)
    age_slope = rng.uniform(0.1, 0.5, n)
    rate = rng.permutation(np.geomspace(0.015, 0.05, n))
    spread = (loading**2).sum(1) + age_slope**2 * 0.6 + (score >= 0) * config.prs_effect**2
    return DataGeneratingProcess(
        half_life_days=np.repeat(
            [config.half_life_slow_days, config.half_life_fast_days], [slow, fast]
        ),
        intercept=np.log(rate) - 0.5 * spread * 0.7,
        age_slope=age_slope,
        loading=loading,
        score=score,
        score_effect=config.prs_effect,
        chronic=rng.permutation(n) < round(SHARE_CHRONIC * n),
        recurrence=rng.uniform(-0.8, 0.8, n),
        drug_for=_drugs(config.drugs, n, rng),
        lab_loading=np.vstack(
            [np.full(latents, 0.2), _loadings(config.labs, np.ones(latents), rng, 0.2)]
        ),
        lab_ordered=np.r_[1.0, np.full(config.labs, LAB_ORDERED)],
        channel_loading=np.eye(latents) + rng.normal(0, 0.15, (latents, latents)),
        site_offset=site_offset,
        gap_scale=np.ones(len(site_offset)) if gap_scale is None else gap_scale,
    )


def _loadings(rows: int, main: Float64, rng: np.random.Generator, side: float) -> Float64:
    """One strong loading per row, latents in turn, signs at random, and weak ones beside it."""
    latents = len(main)
    loading = rng.normal(0.0, side / math.sqrt(latents), (rows, latents))
    index = np.arange(rows)
    loading[index, index % latents] = main[index % latents] * rng.choice([-1.0, 1.0], rows)
    return loading


def _drugs(drugs: int, conditions: int, rng: np.random.Generator) -> Float64:
    """Each drug treats one or two conditions."""
    table = np.zeros((drugs, conditions))
    for drug in range(drugs):
        treated = rng.permutation(conditions)[: 1 + drug % 2]
        table[drug, treated] = rng.uniform(0.4, 0.8, len(treated))
    return table
