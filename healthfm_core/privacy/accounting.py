"""What training has cost: ε from the noise, the sampling rate and the number of steps.

The mechanism is the Poisson-subsampled Gaussian: in each step every person of the site is drawn by
itself with the sampling rate, the drawn people's clipped gradients are summed, and noise of
noise_multiplier times the clipping norm is added. Two sets of people are neighbours when one holds
one person more (add or remove); how many there are is public, and no ε covers it. Who would have
one person replaced by another counts both: 2ε, at a δ of (1 + e^ε)·δ.

Both accountants are Opacus's: PRV (Gopi et al. 2021), nearly exact, and RDP (Mironov et al. 2019),
looser and faster; both give upper bounds.

Noise that sites share is a sum of discrete Gaussians, of which PRV knows nothing: it is counted by
its concentrated differential privacy (`distributed`), which is proven for it, with everybody in
every sum. No bound is claimed for discrete noise on a drawn sample; nothing here makes any.

Opacus is imported where it counts: it brings PyTorch, and a command that only reads a policy need
not wait for that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from healthfm_core.arrays import Float64
from healthfm_core.privacy.distributed import epsilon_of

Accountant = Literal["prv", "rdp"]

ORDERS: Final = (*(x / 4 for x in range(8, 48)), *map(float, range(12, 64)), 128.0, 256.0, 512.0)
"""Rényi orders; the last three are for small ε. Under 2 the series for little noise never ends."""

_QUICK_ORDERS: Final = tuple(order for order in ORDERS if order.is_integer())
"""Those that take milliseconds."""

PRV_MECHANISMS_AT_MOST: Final = 12
"""Different mechanisms PRV composes; each takes about a second, RDP answers for more."""

LEAST_EPSILON: Final = 1e-3
"""Smaller ε are not resolved."""

MEANINGLESS_EPSILON: Final = 200.0
"""From here on the Rényi bound is good enough: nothing is protected."""

NOISE_AT_LEAST: Final = 0.05
NOISE_AT_MOST: Final = 1e4


@dataclass(frozen=True)
class Mechanism:
    """Steps of the subsampled Gaussian.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the L2 norm one person can move.
        sample_rate: Probability that a person takes part in a step, in (0, 1].
        steps: How many, 0 or more.
        discrete: Whether the noise is a sum of sites' shares in whole numbers; the rate is 1 then.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    discrete: bool = False


def merge_steps(spent: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
    """Return the same with steps of one kind together, in an order of their own; none of 0."""
    steps: dict[tuple[float, float, bool], int] = {}
    for part in spent:
        key = part.noise_multiplier, part.sample_rate, part.discrete
        steps[key] = steps.get(key, 0) + part.steps
    return tuple(
        Mechanism(noise, rate, count, discrete)
        for (noise, rate, discrete), count in sorted(steps.items())
        if count > 0
    )


def epsilon(spent: Iterable[Mechanism], delta: float, accountant: Accountant = "prv") -> float:
    """Return an upper bound of ε at `delta` of everything in `spent` together; 0 for nothing."""
    parts = merge_steps(spent)
    if not parts:
        return 0.0
    discrete = tuple(part for part in parts if part.discrete)
    if discrete:
        return _with_discrete(
            tuple(p for p in parts if not p.discrete), discrete, delta, accountant
        )
    loose = _by_rdp(parts, delta)
    if (
        accountant == "rdp"
        or len(parts) > PRV_MECHANISMS_AT_MOST
        or not loose < MEANINGLESS_EPSILON
    ):
        return loose
    return min(loose, _by_prv(parts, delta, loose))


def _with_discrete(
    others: tuple[Mechanism, ...],
    discrete: tuple[Mechanism, ...],
    delta: float,
    accountant: Accountant,
) -> float:
    """Return the bound where some of the noise is discrete.

    Raises:
        ValueError: Discrete noise on a drawn sample, for which nothing is proven.
    """
    if any(part.sample_rate != 1 for part in discrete):
        raise ValueError("discrete noise is counted with everybody in every sum")
    rho = math.fsum(part.steps / (2 * part.noise_multiplier**2) for part in discrete)
    if not others:
        return epsilon_of(rho, delta)
    apart = epsilon(others, delta / 2, accountant) + epsilon_of(rho, delta / 2)
    return min(apart, _by_rdp((*others, *discrete), delta))


def within_epsilon(spent: Collection[Mechanism], delta: float, most: float) -> bool:
    """Return whether `spent` stays within ε of `most`; PRV is asked only where it decides."""
    return epsilon(spent, delta, "rdp") <= most or epsilon(spent, delta, "prv") <= most


@lru_cache(maxsize=256)
def noise_multiplier_for(epsilon_: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return a noise multiplier whose `steps` stay within `epsilon_`, and at most 1 % too large.

    The quick Rényi bound says where to begin; where it is loose (few people drawn in a step: up to
    twice the noise that is needed) PRV goes down from there, a fifth at a time, then closes in.
    About twenty evaluations, each of which takes a second at most.

    Raises:
        ValueError: No noise multiplier up to 10⁴ does.
    """

    def exactly(noise: float) -> float:
        return epsilon([Mechanism(noise, sample_rate, steps)], delta)

    def roughly(noise: float) -> float:
        part = Mechanism(noise, sample_rate, steps)
        return _by_rdp((part,), delta, _QUICK_ORDERS)

    high = 0.3
    while roughly(high) > epsilon_:
        high *= 2
        if high > NOISE_AT_MOST:
            raise ValueError("no noise is enough for this epsilon")
    high = _least(high / 2, high, epsilon_, roughly)
    low = 0.8 * high
    while low > NOISE_AT_LEAST and exactly(low) <= epsilon_:
        low, high = 0.8 * low, low
    return _least(low, high, epsilon_, exactly)


def _least(low: float, high: float, target: float, cost: Callable[[float], float]) -> float:
    """Return the least noise that costs at most `target`, to 1 %; `high` does.

    Each guess is where a line through both ends, of logarithms, meets the target.
    """
    at_low, at_high = cost(low), cost(high)
    while high > 1.01 * low and at_low > target:
        share = math.log(target / at_low) / math.log(at_high / at_low)
        guess = low * (high / low) ** share
        guess = min(max(guess, 1.004 * low), high / 1.004)
        price = cost(guess)
        if price > target:
            low, at_low = guess, price
        else:
            high, at_high = guess, price
    return high


@lru_cache(maxsize=4096)
def _rdp_of_a_step(
    noise_multiplier: float, sample_rate: float, orders: tuple[float, ...]
) -> Float64:
    from opacus.accountants.analysis import rdp as renyi

    rdp = renyi.compute_rdp(
        q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=list(orders)
    )
    return np.asarray(rdp, np.float64)


def _by_rdp(
    parts: tuple[Mechanism, ...], delta: float, orders: tuple[float, ...] = ORDERS
) -> float:
    """Return the bound by Theorem 21 of Balle et al. 2020."""
    with np.errstate(over="ignore"):
        costs = [_rdp_of_a_step(p.noise_multiplier, p.sample_rate, orders) * p.steps for p in parts]
    total = np.sum(costs, axis=0)
    at = np.array(orders)
    epsilons = total - (np.log(delta) + np.log(at)) / (at - 1) + np.log1p(-1 / at)
    return max(LEAST_EPSILON, float(np.nanmin(epsilons)))


@lru_cache(maxsize=1024)
def _by_prv(parts: tuple[Mechanism, ...], delta: float, loose: float) -> float:
    """Return PRV's bound; where its grid cannot hold the mechanisms, RDP's, which holds as well."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(p.noise_multiplier, p.sample_rate, p.steps) for p in parts]
    error = min(0.01, max(0.001 * loose, LEAST_EPSILON / 5))
    # Opacus sizes its grid by a Rényi bound and remarks on it, and takes log(1 - rate) at rate 1.
    with warnings.catch_warnings(), np.errstate(divide="ignore", over="ignore"):
        warnings.filterwarnings("ignore", message="Optimal order is the")
        try:
            return float(accountant.get_epsilon(delta=delta, eps_error=error))
        except (RuntimeError, ValueError):
            return loose
