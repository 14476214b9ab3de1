"""Which half-life attention weights ought to have, given how noisy the readings are.

    python simulations/experiments/half_lives/best_weights.py [--days 300]

People's latent follows an Ornstein-Uhlenbeck process, read with a variance R at the cohort's
visits. Its value at the next visit is forecast as in an attention of one head that decays with
time: the readings' mean with weights exp(-rate · days), beside a weight that does not decay
(whatever else the head may look at), times a scale. Rate, weight and scale are those of the least
squared error. Prints the half-life of that rate for several R.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from scipy.optimize import minimize

from healthfm_simulations.cohort.simulated_people import (
    LONG_GAP_DAYS,
    SHORT_GAP_DAYS,
    SHORTEST_GAP_DAYS,
)

PEOPLE = 6000
VISITS = 14
FOLLOWED_DAYS = 365.0 * 5.5
SHARE_SHORT = 0.55
VARIANCES = (0.3, 1.0, 3.0, 10.0, 30.0)


def lives(half_life: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return [PEOPLE, VISITS] days of the visits and the latent then, of variance 1."""
    short = rng.random((PEOPLE, VISITS)) < SHARE_SHORT
    mean = np.where(short, SHORT_GAP_DAYS, LONG_GAP_DAYS)
    gap = SHORTEST_GAP_DAYS + rng.standard_exponential((PEOPLE, VISITS)) * mean
    latent = rng.standard_normal((PEOPLE, VISITS))
    for visit in range(1, VISITS):
        keep = np.exp2(-gap[:, visit] / half_life)
        latent[:, visit] *= np.sqrt(1 - keep**2)
        latent[:, visit] += keep * latent[:, visit - 1]
    return np.cumsum(gap, 1), latent


def best_half_life(days: np.ndarray, latent: np.ndarray, readings: np.ndarray) -> float:
    """Return the half-life, in days, of the weights that forecast best."""
    there = days - days[:, :1] < FOLLOWED_DAYS
    asked = [
        (days[seen, visit, None] - days[seen, :visit], readings[seen, :visit], latent[seen, visit])
        for visit in range(2, VISITS)
        if (seen := there[:, visit]).any()
    ]

    def squared_error(tried: np.ndarray) -> float:
        rate, beside, scale = np.exp(tried[0]), np.exp(tried[1]), tried[2]
        total, n = 0.0, 0
        for ago, read, truth in asked:
            weight = np.exp(-rate * ago)
            forecast = scale * (weight * read).sum(1) / (weight.sum(1) + beside)
            total, n = total + float(((forecast - truth) ** 2).sum()), n + len(truth)
        return total / n

    starts = [np.array([np.log(np.log(2) / start), 0.0, 1.0]) for start in (10.0, 60.0, 600.0)]
    options = {"maxiter": 600, "xatol": 1e-3, "fatol": 1e-6}
    fits = [minimize(squared_error, x, method="Nelder-Mead", options=options) for x in starts]
    return float(np.log(2) / np.exp(min(fits, key=lambda fit: fit.fun).x[0]))


def main() -> None:
    """Print a line for each variance of the readings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=300.0, help="half-life of the process [300]")
    half_life = parser.parse_args().days
    rng = np.random.default_rng(0)
    days, latent = lives(half_life, rng)
    noise = rng.standard_normal(latent.shape)
    for variance in VARIANCES:
        half_life = best_half_life(days, latent, latent + np.sqrt(variance) * noise)
        sys.stdout.write(f"variance {variance:4}: {half_life:.0f} days\n")


if __name__ == "__main__":
    main()
