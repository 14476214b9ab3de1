"""The laws behind the cohort, on numbers small enough to check by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.config import CohortConfig
from healthfm_simulations.cohort.generating_process import (
    LAB_NOISE,
    DataGeneratingProcess,
    draw_process,
)
from healthfm_simulations.cohort.oracle import filter_latents
from healthfm_simulations.cohort.readings import LabReadings, WearableReadings
from healthfm_simulations.cohort.simulated_people import (
    SimulatedVisits,
    condition_probability,
    draw_people,
    simulate_visits,
)


@pytest.fixture(scope="module")
def process() -> DataGeneratingProcess:
    return draw_process(CohortConfig(), np.zeros((1, 24)), np.random.default_rng(0))


def test_a_latent_halves_its_correlation_over_its_half_life(process):
    assert process.correlation(np.array([20.0]))[0, -1] == pytest.approx(0.5)
    assert process.correlation(np.array([1400.0]))[0, 0] == pytest.approx(0.25)


def test_a_new_onset_follows_the_hazard_and_a_chronic_condition_its_recurrence(process):
    two = replace(
        process,
        chronic=np.array([True, False]),
        recurrence=np.array([0.0, 0.0]),
    )
    fixed, signal = np.full((2, 2), np.log(0.1)), np.zeros((2, 2))
    earlier = np.array([[0, 0], [3, 3]], np.int16)
    found = condition_probability(two, fixed, signal, earlier)
    once, twice = 1 - np.exp(-0.1), 1 - np.exp(-0.2)
    assert found == pytest.approx(np.array([[once, once], [0.5, twice]]))


def test_latents_keep_variance_one_and_the_correlation_of_their_half_life(process):
    rng = np.random.default_rng(0)
    people = draw_people(np.zeros(4000, np.int32), 6.0, 6, rng)
    lives = simulate_visits(process, people, rng)
    assert lives.latent.std(axis=0) == pytest.approx(np.ones(4), abs=0.03)
    later = np.flatnonzero((lives.number > 0) & (lives.gap_days > 600) & (lives.gap_days < 800))
    now, before = lives.latent[later], lives.latent[later - 1]
    slow, fast = np.corrcoef(now[:, 0], before[:, 0])[0, 1], np.corrcoef(now[:, 3], before[:, 3])
    assert slow == pytest.approx(0.5, abs=0.05)
    assert abs(fast[0, 1]) < 0.05


def test_lives_are_sorted_and_count_earlier_visits_with_the_condition(process):
    rng = np.random.default_rng(0)
    lives = simulate_visits(process, draw_people(np.zeros(50, np.int32), 6.0, 6, rng), rng)
    same = lives.person[1:] == lives.person[:-1]
    assert (np.diff(lives.time_us)[same] > 0).all()
    assert (lives.number[1:][~same] == 0).all()
    grown = lives.earlier[1:] - lives.earlier[:-1]
    assert np.array_equal(grown[same], lives.present[:-1][same])


def test_the_filter_weighs_one_reading_by_its_noise():
    """A latent of variance 1 read once with noise variance 4: mean = y/5, variance 4/5."""
    process = draw_process(
        CohortConfig(latents_fast=1, latents_slow=1, labs=0),
        np.zeros((1, 24)),
        np.random.default_rng(0),
    )
    process = replace(
        process, lab_loading=np.array([[1.0, 0.0]]), half_life_days=np.array([700.0, 20.0])
    )
    lives = SimulatedVisits(
        person=np.array([0, 0]),
        number=np.array([0, 1]),
        time_us=np.array([0, 1]),
        gap_days=np.array([0.0, 700.0]),
        latent=np.zeros((2, 2)),
        earlier=np.zeros((2, 24), np.int16),
        probability=np.zeros((2, 24)),
        present=np.zeros((2, 24), np.bool_),
    )
    labs = LabReadings(np.array([[True], [False]]), np.array([[3.0], [0.0]]))
    none = np.zeros(0, np.int64)
    wearing = WearableReadings(
        none,
        none,
        none,
        np.zeros(0, np.float32),
        np.zeros(0, np.bool_),
        np.zeros((0, 2)),
        np.zeros((0, 2), np.int64),
    )
    mean, covariance = filter_latents(process, lives, labs, wearing, 0.7)
    noise = LAB_NOISE**2
    assert mean[0] == pytest.approx([3.0 / (1 + noise), 0.0])
    assert covariance[0, 0, 0] == pytest.approx(noise / (1 + noise))
    assert mean[1, 0] == pytest.approx(0.5 * mean[0, 0])
    assert covariance[1, 0, 0] == pytest.approx(0.25 * covariance[0, 0, 0] + 0.75)
    assert covariance[1, 1, 1] == pytest.approx(1.0)
