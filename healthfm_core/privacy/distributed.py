"""Differential privacy of a sum to which each site adds its share of the noise.

No site trusts another to add noise, nor the coordinator: each adds a discrete Gaussian of variance
σ² to its whole numbers before they are masked, and the sum of h honest sites carries variance h·σ².
A sum of discrete Gaussians is not one, but so near that concentrated differential privacy holds
with (Kairouz, Liu and Steinke, ICML 2021, Proposition 14 and Theorem 5)

    ε² / 2,  ε = min(√(Δ²/(h σ²) + τ d / 2), Δ/(√h σ) + τ √d),
    τ = 10 Σ_{k=1}^{h-1} exp(-2 π² σ² k/(k+1)),

Δ being the L2 sensitivity in whole numbers and d the length. From σ = 4 on τ·d is below 1e-50 for
any model and any number of sites, and less noise than that no site adds (`check_share`): what is
left is Δ²/(2 h σ²), as of a continuous Gaussian, and it is this that ledgers count, never the
tighter bounds (PRV) that hold for a continuous one alone.

The unit is what the caller's Δ is of: a site that takes part or not (its clip, once), or one
subject, whose record can change its site's clipped update into any other (the clip, twice).
Not covered: sites that take their share out again; the caller leaves them out of h.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from healthfm_core.errors import PrivacyError

_DEVIATIONS: Final = 15.4
"""Standard deviations of all sites' noise that the ring has room for: over them lies e^-118."""
LEAST_SHARE: Final = 4
"""Least standard deviation of a site's noise, in units of the ring."""
_MOST_SIGMA: Final = 2.0**24


def distance_to_gaussian(sigma: float, sites: int) -> float:
    """Return τ: how far the sum of `sites` discrete Gaussians is from one, per coordinate."""
    return 10.0 * math.fsum(
        math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in range(1, sites)
    )


def concentrated(sensitivity: float, sigma: float, sites: int, length: int) -> float:
    """Return ρ: the sum is ρ-zCDP, its Rényi divergence of order α at most α·ρ.

    Args:
        sensitivity: Δ, L2, in units of the ring.
        sigma: Parameter of one site's noise, likewise, at least 1/2.
        sites: h, honest sites in the sum.
        length: d, numbers in the sum.

    Raises:
        ValueError: σ is under 1/2, for which nothing is proven.
    """
    if sigma < 0.5:
        raise ValueError("a share of noise under 1/2 is not proven to add up")
    tau = distance_to_gaussian(sigma, sites)
    ratio = sensitivity / (math.sqrt(sites) * sigma)
    epsilon = min(math.sqrt(ratio**2 + tau * length / 2), ratio + tau * math.sqrt(length))
    return epsilon**2 / 2


def check_share(variance: int) -> None:
    """Refuse a share of noise that is so small in units of the ring that sums of it differ.

    Raises:
        PrivacyError: σ is under 4 (HF-604).
    """
    if variance < LEAST_SHARE**2:
        raise PrivacyError(
            604,
            where="federation.aggregation.secure",
            seen="a site's share of the noise is under 4 units of the ring",
            do="Set federation.aggregation.secure.ring_bits=64",
        )


def epsilon_of(rho: float, delta: float) -> float:
    """Return ε so that ρ-zCDP is (ε, δ)-DP (Canonne, Kamath and Steinke 2020, Corollary 13).

    Args:
        rho: Sum of the rounds' ρ; 0 is perfect privacy.
        delta: Between 0 and 1.
    """
    if rho == 0:
        return 0.0
    best = math.sqrt(math.log(1 / delta) / rho) + 1
    orders = 1 + (best - 1) * np.geomspace(1e-2, 1e2, 20_001)
    epsilons = orders * rho + np.log(1 / (orders * delta)) / (orders - 1) + np.log1p(-1 / orders)
    return max(0.0, float(epsilons.min()))


def noise_for(epsilon: float, delta: float, rounds: int) -> float:
    """Return the noise multiplier σ/Δ of the whole sum whose rounds together cost ε at most.

    Args:
        epsilon: Above 0.
        delta: Between 0 and 1.
        rounds: How many sums are opened.
    """
    low, high = 0.0, 1.0
    while epsilon_of(high, delta) < epsilon:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon_of(middle, delta) <= epsilon else (low, middle)
    return math.sqrt(rounds / (2 * low)) * (1 + 1e-12)


def room(signal: float, share: float, sites: int, bits: int) -> float:
    """Return what a ring must reach to hold a sum with its noise, in the unit of the arguments.

    Not less than what keeps a site's noise under 2^24 units of the ring: it is drawn exactly, and
    a finer grid would help nobody.

    Args:
        signal: Most that the sum comes to without noise.
        share: Standard deviation of one site's noise.
        sites: Most sites in the sum.
        bits: The ring is the integers modulo 2^bits.
    """
    noise = _DEVIATIONS * math.sqrt(sites) * share
    return max(signal + noise, 2.0 ** (bits - 1) * share / _MOST_SIGMA)
