"""What is measured of the latents: labs at visits, a wearable in the hours before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from healthfm_core.arrays import Bool, Float32, Float64, Int64
from healthfm_simulations.cohort.generating_process import LAB_NOISE, DataGeneratingProcess
from healthfm_simulations.cohort.simulated_people import SimulatedPeople, SimulatedVisits

READINGS_PER_HOUR: Final = 4
NOT_WORN: Final = 0.1
HOUR_US: Final = 3_600_000_000


@dataclass(frozen=True)
class LabReadings:
    """Labs of U visits, in SD of the latents.

    Attributes:
        taken: [U, G + 1].
        value: [U, G + 1], 0 where not taken.
    """

    taken: Bool
    value: Float64


@dataclass(frozen=True)
class WearableReadings:
    """Wearing before W of the visits, H channels, quarter-hourly.

    Attributes:
        visit: [W] index into the visits.
        hours: [W] whole hours, ≥ 1.
        start_us: [W] start of the first hour, on the hour; the last ends before the visit.
        reading: flat, for each visit, then channel, then quarter of an hour; SD of the latents.
        worn: flat likewise; where false there is no reading.
        mean: [W, H] mean of the readings made.
        count: [W, H] how many were made.
    """

    visit: Int64
    hours: Int64
    start_us: Int64
    reading: Float32
    worn: Bool
    mean: Float64
    count: Int64


def take_labs(
    process: DataGeneratingProcess, lives: SimulatedVisits, rng: np.random.Generator
) -> LabReadings:
    """Measure the labs: loading · latent plus noise of SD `LAB_NOISE`."""
    true = lives.latent @ process.lab_loading.T
    taken = rng.random(true.shape) < process.lab_ordered
    value = true + LAB_NOISE * rng.standard_normal(true.shape)
    return LabReadings(taken, np.where(taken, value, 0.0))


def wear(
    process: DataGeneratingProcess,
    people: SimulatedPeople,
    lives: SimulatedVisits,
    wearer: Bool,
    *,
    hours_per_visit: int,
    hours_in_all: int,
    noise: float,
    rng: np.random.Generator,
) -> WearableReadings:
    """Make the readings: one value per channel and quarter of an hour, less what was not worn.

    Args:
        process: The laws of the cohort.
        people: The people.
        lives: Their visits.
        wearer: [N] who has a wearable.
        hours_per_visit: At most so many hours before a visit.
        hours_in_all: About so many hours of one person, shared over the visits.
        noise: SD of a reading, in SD of the latent.
        rng: Where the randomness comes from.
    """
    visits = np.bincount(lives.person, minlength=len(people.site))
    share = np.clip(hours_in_all // np.maximum(visits, 1), 1, max(hours_per_visit, 1))
    hours = np.where(wearer, share, 0)[lives.person] * (hours_per_visit > 0) * (hours_in_all > 0)
    room = np.where(lives.number > 0, lives.gap_days * 24.0 - 2.0, np.inf)
    hours = np.minimum(hours, np.maximum(room, 0.0)).astype(np.int64)
    visit = np.flatnonzero(hours)
    hours = hours[visit]
    start_us = (lives.time_us[visit] // HOUR_US - hours) * HOUR_US
    channels = len(process.channel_loading)
    level = lives.latent[visit] @ process.channel_loading.T
    length = np.repeat(hours * READINGS_PER_HOUR, channels)
    level_flat = np.repeat(level.ravel(), length).astype(np.float32)
    reading = level_flat + np.float32(noise) * rng.standard_normal(len(level_flat), np.float32)
    worn = rng.random(len(reading), np.float32) >= NOT_WORN
    begin = np.cumsum(length) - length
    count = _segment_sums(worn.astype(np.float64), begin)
    total = _segment_sums(np.where(worn, reading, 0.0), begin)
    shape = (len(visit), channels)
    mean = (total / np.maximum(count, 1.0)).reshape(shape)
    return WearableReadings(
        visit, hours, start_us, reading, worn, mean, count.astype(np.int64).reshape(shape)
    )


def _segment_sums(values: Float64, begin: Int64) -> Float64:
    if len(begin) == 0:
        return np.zeros(0)
    return np.asarray(np.add.reduceat(values.astype(np.float64), begin))
