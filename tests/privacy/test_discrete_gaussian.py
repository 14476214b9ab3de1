"""Noise of whole numbers: its distribution, its exactness, and what a sum of shares costs."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from healthfm_core.privacy import discrete_gaussian as noise
from healthfm_core.privacy.discrete_gaussian import Bits, discrete_gaussian
from healthfm_core.privacy.distributed import (
    concentrated,
    distance_to_gaussian,
    epsilon_of,
    noise_for,
)


def mass(variance: float, reach: int) -> np.ndarray:
    """Probabilities of -reach … reach."""
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x**2) / (2 * variance))
    return weight / weight.sum()


@pytest.mark.parametrize("variance", [1, 3, 25])
def test_draws_fit_the_distribution(variance: int) -> None:
    """Chi-square over whole numbers; a sampler that is off by a hundredth would fail."""
    n, reach = 120_000, 3 * math.isqrt(variance) + 3
    drawn = np.clip(discrete_gaussian(variance, n), -reach, reach)
    expected = mass(variance, 40 * reach)
    middle = len(expected) // 2
    cells = expected[middle - reach : middle + reach + 1].copy()
    cells[0] += expected[: middle - reach].sum()
    cells[-1] += expected[middle + reach + 1 :].sum()
    counts = np.bincount(drawn + reach, minlength=2 * reach + 1)
    keep = cells * n >= 5
    counts, cells = (
        np.append(counts[keep], counts[~keep].sum()),
        np.append(cells[keep], cells[~keep].sum()),
    )
    busy = cells > 0
    assert stats.chisquare(counts[busy], cells[busy] / cells.sum() * n).pvalue > 1e-5


@pytest.mark.parametrize("sigma", [1000, 2**20])
def test_wide_draws_fit_the_normal_distribution_they_stand_for(sigma: int) -> None:
    drawn = discrete_gaussian(sigma**2, 60_000)
    assert stats.kstest(drawn / sigma, "norm").pvalue > 1e-5
    assert drawn.var() / sigma**2 == pytest.approx(1, abs=0.03)


def test_what_floats_do_not_decide_whole_numbers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all coins left to the exact comparison the distribution is the same."""
    monkeypatch.setattr(noise, "_DOUBT", 2.0)
    drawn = discrete_gaussian(4, 1500)
    cells = mass(4, 60)[60 - 5 : 60 + 6]
    counts = np.bincount(np.clip(drawn, -5, 5) + 5, minlength=11)
    cells[0] = cells[-1] = (1 - cells[1:-1].sum()) / 2
    assert stats.chisquare(counts, cells / cells.sum() * 1500).pvalue > 1e-5


def test_a_coin_that_hangs_on_the_last_bit_is_decided_exactly() -> None:
    half = Fraction(1, 2)
    assert noise._decide(2**63 - 1, half, Bits())
    assert not noise._decide(2**63, half, Bits())
    third = Fraction(1, 3)
    word = 2**64 // 3
    decided = [noise._decide(word, third, Bits()) for _ in range(3000)]
    assert np.mean(decided) == pytest.approx(1 / 3, abs=0.05)  # the next bits decide


def test_whole_numbers_below_a_limit_are_uniform() -> None:
    for limit in (1, 2, 3, 1000):
        drawn = Bits().below(limit, 30_000)
        counts = np.bincount(drawn, minlength=limit)
        assert len(counts) == limit
        if limit > 1:
            assert stats.chisquare(counts).pvalue > 1e-5


def test_noise_does_not_follow_a_seed() -> None:
    np.random.seed(0)  # noqa: NPY002  (the very thing that must not matter)
    one = discrete_gaussian(10**6, 100)
    np.random.seed(0)  # noqa: NPY002
    assert not (one == discrete_gaussian(10**6, 100)).all()


@pytest.mark.parametrize("variance", [0, -1, 2**51])
def test_a_variance_that_cannot_be_drawn_is_refused(variance: int) -> None:
    with pytest.raises(ValueError, match="whole number"):
        discrete_gaussian(variance, 1)
    assert discrete_gaussian(1, 0).shape == (0,)


@pytest.mark.parametrize(("sigma", "sites"), [(0.5, 1), (0.6, 2), (0.8, 4), (1.5, 3), (3.0, 5)])
@pytest.mark.parametrize("shift", [1, 2])
@pytest.mark.parametrize("order", [1.5, 2.0, 8.0])
def test_the_divergence_of_a_real_sum_is_within_the_bound(sigma, sites, shift, order) -> None:
    """Rényi divergence of the convolved masses, worked out, against α·ρ."""
    one = mass(sigma**2, 60)
    total = one
    for _ in range(sites - 1):
        total = np.convolve(total, one)
    there, moved = total[shift:], total[:-shift]
    seen = (there > 1e-250) & (moved > 1e-250)
    sums = np.sum(np.exp(order * np.log(there[seen]) + (1 - order) * np.log(moved[seen])))
    divergence = math.log(sums) / (order - 1)
    assert divergence <= order * concentrated(float(shift), sigma, sites, 1) * (1 + 1e-9)
    if sigma >= 1.5:
        assert divergence == pytest.approx(order * shift**2 / (2 * sites * sigma**2), rel=1e-6)


def test_shares_of_noise_add_up_to_the_central_guarantee() -> None:
    whole = concentrated(10.0, 40.0, 1, 10**6)
    assert whole == pytest.approx(10.0**2 / (2 * 40.0**2), rel=1e-12)
    assert concentrated(10.0, 10.0, 16, 10**6) == pytest.approx(whole, rel=1e-12)
    assert distance_to_gaussian(0.5, 1) == 0
    assert distance_to_gaussian(2.0, 100) < 1e-15
    with pytest.raises(ValueError, match="1/2"):
        concentrated(1.0, 0.4, 10, 1)


@pytest.mark.parametrize("rho", [0.01, 0.1, 0.5, 2.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-8])
def test_epsilon_lies_between_the_exact_gaussian_and_the_simple_bound(rho, delta) -> None:
    """Below ρ + 2√(ρ ln(1/δ)) (Bun and Steinke 2016), above the Gaussian mechanism's own ε."""
    epsilon = epsilon_of(rho, delta)
    assert epsilon < rho + 2 * math.sqrt(rho * math.log(1 / delta))
    mu = math.sqrt(2 * rho)  # Balle and Wang 2018: δ(ε) of the Gaussian mechanism with Δ/σ = μ
    exact = stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(
        -mu / 2 - epsilon / mu
    )
    assert exact <= delta
    assert epsilon_of(0.0, delta) == 0


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_the_noise_for_a_budget_spends_it_and_no_more(epsilon: float) -> None:
    multiplier = noise_for(epsilon, 1e-6, rounds=20)
    spent = epsilon_of(20 / (2 * multiplier**2), 1e-6)
    assert spent == pytest.approx(epsilon, rel=1e-6)
    assert spent <= epsilon
