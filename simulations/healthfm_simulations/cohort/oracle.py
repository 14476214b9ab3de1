"""The oracle: the best possible forecasts, as the generating process is known.

For every (visit asked about, condition) three probabilities, each given more than the one before:

* ``filtered``: what the readings tell. A Kalman filter over all labs and wearable readings up to
  the previous visit that the site holds, the person's score where the site holds it (else
  integrated out), age, site and history. It does not use what diagnoses, their absence and visit
  times say of the latents and of a score the site lacks, so a model can pass it, but not by much
  where the site holds both.
* ``present``: the latents known exactly up to the previous visit, and every score: no model can
  pass it but by chance, since all else is independent of the next visit given these.
* ``all``: the latents at the visit asked about too; the probability the coin was tossed with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float64, Int16, Int64
from healthfm_simulations.cohort.generating_process import LAB_NOISE, DataGeneratingProcess
from healthfm_simulations.cohort.readings import LabReadings, WearableReadings
from healthfm_simulations.cohort.simulated_people import (
    SimulatedPeople,
    SimulatedVisits,
    condition_probability,
    fixed_log_hazard,
    score_log_hazard,
)

NODES: Final = 7
"""Nodes of the Gauss-Hermite quadrature."""


@dataclass(frozen=True)
class OracleProbabilities:
    """Probabilities [A, C] at the A visits that follow another visit.

    Attributes:
        visit: [A] index into the visits.
        filtered: Given the readings the site holds up to the previous visit.
        present: Given the true latents up to the previous visit.
        all: Given everything.
    """

    visit: Int64
    filtered: Float64
    present: Float64
    all: Float64


def ask_oracle(
    process: DataGeneratingProcess,
    people: SimulatedPeople,
    lives: SimulatedVisits,
    labs: LabReadings,
    wearing: WearableReadings,
    has_score: Bool,
    noise: float,
) -> OracleProbabilities:
    """Compute the three probabilities for every visit but each person's first.

    Args:
        process: The laws of the cohort.
        people: The people.
        lives: Their visits.
        labs: What was measured there.
        wearing: What was worn before.
        has_score: [N] whose scores the site holds.
        noise: SD of one wearable reading.
    """
    visit = np.flatnonzero(lives.number > 0)
    person = lives.person[visit]
    fixed = fixed_log_hazard(process, people, person, lives.time_us[visit])
    earlier = lives.earlier[visit]
    keep = process.correlation(lives.gap_days[visit])
    loading = process.loading
    fresh = (1.0 - keep**2) @ (loading**2).T
    present = _expected(
        process, fixed, (keep * lives.latent[visit - 1]) @ loading.T, fresh, earlier
    )
    mean, covariance = filter_latents(process, lives, labs, wearing, noise)
    unknown = ~has_score[person]
    score_loading = process.score_loading()
    hidden = score_log_hazard(process, people, person) * unknown[:, None]
    carried = keep[:, :, None] * covariance[visit - 1] * keep[:, None, :]
    spread = np.einsum("ck,ukj,cj->uc", loading, carried, loading, optimize=True) + fresh
    felt = people.effect[person] ** 2 * unknown
    spread = spread + felt[:, None] * (score_loading**2).sum(1)
    signal = (keep * mean[visit - 1]) @ loading.T
    filtered = _expected(process, fixed - hidden, signal, spread, earlier)
    return OracleProbabilities(visit, filtered, present, lives.probability[visit])


def _expected(
    process: DataGeneratingProcess,
    fixed: Float64,
    signal: Float64,
    variance: Float64,
    earlier: Int16,
) -> Float64:
    """Mean probability when the signal is normal with the given mean and variance."""
    node, weight = np.polynomial.hermite_e.hermegauss(NODES)
    sd = np.sqrt(np.maximum(variance, 0.0))
    total = np.zeros_like(signal)
    for x, w in zip(node, weight / weight.sum(), strict=True):
        total += w * condition_probability(process, fixed, signal + x * sd, earlier)
    return total


def filter_latents(
    process: DataGeneratingProcess,
    lives: SimulatedVisits,
    labs: LabReadings,
    wearing: WearableReadings,
    noise: float,
) -> tuple[Float64, Float64]:
    """Return mean [U, K] and covariance [U, K, K] of the latents given all readings so far."""
    precision, weighted = _information(process, labs, wearing, noise)
    mean = np.zeros_like(weighted)
    covariance = np.zeros_like(precision)
    order = np.argsort(lives.number, kind="stable")
    ends = np.cumsum(np.bincount(lives.number))
    identity = np.eye(process.latents)
    for number, visits in enumerate(np.split(order, ends[:-1])):
        if number == 0:
            prior_mean = np.zeros((len(visits), process.latents))
            prior = np.broadcast_to(identity, (len(visits), *identity.shape))
        else:
            keep = process.correlation(lives.gap_days[visits])
            prior_mean = keep * mean[visits - 1]
            prior = keep[:, :, None] * covariance[visits - 1] * keep[:, None, :]
            prior = prior + (1.0 - keep**2)[:, :, None] * identity
        inverse = np.linalg.inv(prior)
        covariance[visits] = np.linalg.inv(inverse + precision[visits])
        right = np.einsum("ukj,uj->uk", inverse, prior_mean) + weighted[visits]
        mean[visits] = np.einsum("ukj,uj->uk", covariance[visits], right)
    return mean, covariance


def _information(
    process: DataGeneratingProcess, labs: LabReadings, wearing: WearableReadings, noise: float
) -> tuple[Float64, Float64]:
    """Precision [U, K, K] and precision-weighted reading [U, K] that each visit brings."""
    outer = np.einsum("gk,gj->gkj", process.lab_loading, process.lab_loading)
    precision = np.tensordot(labs.taken / LAB_NOISE**2, outer, 1)
    weighted = labs.value @ process.lab_loading / LAB_NOISE**2
    variance = max(noise, 1e-3) ** 2
    channels = process.channel_loading
    outer = np.einsum("hk,hj->hkj", channels, channels)
    precision[wearing.visit] += np.tensordot(wearing.count / variance, outer, 1)
    weighted[wearing.visit] += (wearing.count * wearing.mean) @ channels / variance
    return precision, weighted
