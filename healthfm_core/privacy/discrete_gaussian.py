"""Noise of whole numbers, drawn exactly: the discrete Gaussian.

Algorithms 1 to 3 of Canonne, Kamath and Steinke (2020, arXiv 2004.00010), many draws at a time. A
Bernoulli of probability p is a
comparison of p with a uniform number; floating point decides it where the two are further apart
than its error, and whole numbers of any length decide the rest, with more bits of the uniform one.
So each draw has the stated distribution exactly, given bits that are uniform: they come from
AES-256 in counter mode under a key of the operating system's entropy.

Not covered: the time a draw takes depends on the draw, which somebody at the same machine could
measure.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from healthfm_core.arrays import Bool, Float64, Int64, UInt64

Exact = Callable[[int], Fraction]
"""Place → the number that a float of the same place stands for."""

MOST_SIGMA: Final = 1 << 25
"""So that |y|·t of the algorithm stays below 2^62 for |y| ≤ 1024 t; beyond lies e^-1024."""

_BLOCK: Final = 1 << 16
_DOUBT: Final = 2.0**-44
"""Floats nearer than this to a uniform number do not decide; their own error is below 2^-49."""


class Bits:
    """Uniform words from the operating system's entropy."""

    def __init__(self) -> None:
        key, nonce = os.urandom(32), bytes(16)
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor()

    def words(self, count: int) -> UInt64:
        """Return `count` uniform words of 64 bits."""
        return np.frombuffer(self._encryptor.update(bytes(8 * count)), np.uint64)

    def below(self, limit: int, count: int) -> Int64:
        """Return `count` whole numbers, uniform over 0 … `limit` - 1."""
        most = (1 << 64) // limit * limit
        drawn = self.words(count).copy()
        while most <= 2**64 - 1 and len(again := np.flatnonzero(drawn >= np.uint64(most))):
            drawn[again] = self.words(len(again))
        return (drawn % np.uint64(limit)).astype(np.int64)


def discrete_gaussian(variance: int, count: int, bits: Bits | None = None) -> Int64:
    """Return `count` independent draws x with probability ∝ exp(-x² / (2·variance)).

    Args:
        variance: The parameter σ², a whole number of at least 1; the true variance is below it by
            less than 1e-5 of it from σ² = 1 on.
        count: How many.
        bits: Where randomness comes from; None is a new stream of the system's entropy.

    Raises:
        ValueError: The variance is under 1 or over `MOST_SIGMA` squared.
    """
    if not 1 <= variance <= MOST_SIGMA**2:
        raise ValueError(f"a variance is a whole number from 1 to {MOST_SIGMA}²")
    source = bits or Bits()
    parts = [
        _block(variance, min(_BLOCK, count - start), source) for start in range(0, count, _BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _block(variance: int, count: int, bits: Bits) -> Int64:
    drawn = np.zeros(count, np.int64)
    left = np.arange(count)
    scale = math.isqrt(variance) + 1
    while len(left):
        y = _laplace(scale, len(left), bits)
        excess = np.abs(y) * scale - variance
        below = 2 * variance * scale * scale
        exact = partial(_square_over, excess, below)
        ratio = excess.astype(np.float64) / (math.sqrt(2.0 * variance) * scale)
        taken = _exp_minus(np.square(ratio), exact, bits)
        drawn[left[taken]] = y[taken]
        left = left[~taken]
    return drawn


def _laplace(scale: int, count: int, bits: Bits) -> Int64:
    """Return draws with probability ∝ exp(-|x| / scale)."""
    drawn = np.zeros(count, np.int64)
    left = np.arange(count)
    while len(left):
        rest = bits.below(scale, len(left))
        exact = partial(_over, rest, scale)
        taken = _exp_minus_fraction(rest / float(scale), exact, bits)
        value = rest + scale * _geometric(len(left), bits)
        minus = (bits.words(len(left)) & np.uint64(1)).astype(np.bool_)
        taken &= ~(minus & (value == 0))
        drawn[left[taken]] = np.where(minus, -value, value)[taken]
        left = left[~taken]
    return drawn


def _geometric(count: int, bits: Bits) -> Int64:
    """Return how often a coin of probability 1/e falls heads before its first tails."""
    heads = np.zeros(count, np.int64)
    left = np.arange(count)
    while len(left):
        left = left[_exp_minus_fraction(np.ones(len(left)), _one, bits)]
        heads[left] += 1
    return heads


def _exp_minus(gamma: Float64, exact: Exact, bits: Bits) -> Bool:
    """Return coins of probability exp(-γ), γ ≥ 0: one of exp(-1) per whole, one for the rest."""
    whole = np.floor(gamma)
    for i in np.flatnonzero(np.abs(gamma - np.rint(gamma)) < 1e-9 * (1 + gamma)):
        whole[i] = math.floor(exact(int(i)))
    taken = np.ones(len(gamma), np.bool_)
    for step in range(int(whole.max(initial=0))):
        at = np.flatnonzero(taken & (whole > step))
        if not len(at):
            break
        taken[at] = _exp_minus_fraction(np.ones(len(at)), _one, bits)
    at = np.flatnonzero(taken)
    rest = np.clip(gamma[at] - whole[at], 0.0, 1.0)
    taken[at] = _exp_minus_fraction(rest, partial(_rest, exact, at, whole), bits)
    return taken


def _exp_minus_fraction(gamma: Float64, exact: Exact, bits: Bits) -> Bool:
    """Return coins of probability exp(-γ) for γ in [0, 1]: algorithm 1's first half."""
    odd = np.ones(len(gamma), np.bool_)  # K, the first failure, is 1 so far
    left = np.arange(len(gamma))
    k = 1
    while len(left):
        left = left[_coins(gamma[left] / k, partial(_share, exact, left, k), bits)]
        k += 1
        odd[left] = k % 2 == 1
    return odd


def _one(i: int) -> Fraction:
    return Fraction(1)


def _over(values: Int64, below: int, i: int) -> Fraction:
    return Fraction(int(values[i]), below)


def _square_over(values: Int64, below: int, i: int) -> Fraction:
    return Fraction(int(values[i]) ** 2, below)


def _rest(exact: Exact, at: Int64, whole: Float64, i: int) -> Fraction:
    return exact(int(at[i])) - int(whole[at[i]])


def _share(exact: Exact, at: Int64, k: int, i: int) -> Fraction:
    return exact(int(at[i])) / k


def _coins(p: Float64, exact: Exact, bits: Bits) -> Bool:
    """Return coins of probability p; the few that floats cannot decide are decided exactly."""
    words = bits.words(len(p))
    uniform = words.astype(np.float64) * 2.0**-64
    heads = uniform < p
    for i in np.flatnonzero(np.abs(uniform - p) <= _DOUBT):
        heads[i] = _decide(int(words[i]), exact(int(i)), bits)
    return heads


def _decide(word: int, p: Fraction, bits: Bits) -> bool:
    """Return whether a uniform number that begins with `word` lies below p."""
    drawn, length = word, 64
    while True:
        if Fraction(drawn + 1, 1 << length) <= p:
            return True
        if Fraction(drawn, 1 << length) >= p:
            return False
        drawn, length = (drawn << 64) | int(bits.words(1)[0]), length + 64
