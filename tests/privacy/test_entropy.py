"""Noise is normal, sampling is Poisson's, and neither is the same twice."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy import stats

from healthfm_core.privacy.entropy import Entropy, noised


def counted(name: str = "a"):
    """Bytes that are the same in every run of the tests: a false alarm would come back."""
    calls = iter(range(10**9))

    def source(count: int) -> bytes:
        return hashlib.sha256(f"{name}/{next(calls)}".encode()).digest()[:count]

    return source


def test_noise_is_standard_normal_to_its_tails():
    z = Entropy(counted()).normal(1_000_001).numpy()
    assert len(z) == 1_000_001
    assert stats.kstest(z, "norm").pvalue > 0.01
    for edge in (2.0, 3.0, 4.0):
        expected = len(z) * 2 * stats.norm.sf(edge)
        assert abs((np.abs(z) > edge).sum() - expected) < 4 * expected**0.5
    assert abs(stats.kurtosis(z)) < 0.02


def test_noise_values_do_not_know_of_each_other():
    z = Entropy(counted()).normal(1 << 18).numpy()
    half = len(z) // 2
    pairs = [(z[:-1], z[1:]), (z[:half], z[half:]), (np.abs(z[:-1]), np.abs(z[1:]))]
    for first, second in pairs:
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / len(first) ** 0.5


def test_every_request_is_keyed_anew_by_the_operating_system():
    entropy = Entropy()
    assert not torch.equal(entropy.normal(64), entropy.normal(64))
    assert not torch.equal(Entropy().normal(64), Entropy().normal(64))
    assert len({entropy.seed() for _ in range(100)}) == 100


def test_nobodys_seed_moves_the_noise():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    first = Entropy().normal(64)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    assert not torch.equal(first, Entropy().normal(64))


def test_a_noised_sum_lies_on_the_grid_and_has_its_spread():
    total = torch.linspace(-5, 5, 200_000).view(400, 500)
    found = noised(total, 0.7, Entropy(counted()))
    assert found.shape == total.shape
    assert torch.equal(found * 2048, (found * 2048).round())
    z = ((found - total.double()) / 0.7).flatten().numpy()
    assert stats.kstest(z, "norm").pvalue > 0.01


@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_people_are_drawn_each_by_itself(rate):
    entropy = Entropy(counted())
    drawn = np.stack([entropy.chosen(500, rate) for _ in range(400)])
    sizes = drawn.sum(1)
    spread = (500 * rate * (1 - rate)) ** 0.5
    assert abs(sizes.mean() - 500 * rate) < 4 * spread / 20
    assert stats.chisquare(drawn.sum(0) + 1e-9, sum_check=False).pvalue > 0.001
    assert 0.75 < sizes.std() / spread < 1.25  # fixed sizes would have none


def test_a_rate_of_one_draws_everybody_and_a_tiny_one_often_nobody():
    entropy = Entropy(counted())
    assert entropy.chosen(7, 1.0).all()
    assert sum(not entropy.chosen(5, 0.01).any() for _ in range(200)) > 150
