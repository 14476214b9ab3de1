"""Shamir's secret sharing (1979) of 32 bytes over the integers modulo a prime of 257 bits."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

PRIME: Final = 2**256 + 297
"""The smallest prime over 2^256: every secret of 32 bytes is one element."""

SECRET_BYTES: Final = 32


def split(secret: bytes, holders: Iterable[int], threshold: int) -> dict[int, int]:
    """Return holder → share; any `threshold` of them give the secret, fewer give nothing.

    The coefficients come from the operating system's entropy.

    Args:
        secret: `SECRET_BYTES` bytes.
        holders: Distinct positions from 1.
        threshold: Shares that `combine` needs, at least 1 and at most one per holder.

    Raises:
        ValueError: The arguments cannot make a sharing.
    """
    places = list(holders)
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= len(places):
        raise ValueError("a sharing needs 32 bytes and a threshold that its holders can meet")
    if len(set(places)) < len(places) or min(places) < 1:
        raise ValueError("a sharing's holders have distinct positions from 1")
    first = int.from_bytes(secret, "big")
    coefficients = [first, *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return {place: _evaluate(coefficients, place) for place in places}


def _evaluate(coefficients: list[int], place: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * place + coefficient) % PRIME
    return value


def combine(shares: Mapping[int, int], threshold: int) -> bytes:
    """Return the secret of at least `threshold` shares; only that many are used.

    Raises:
        ValueError: There are fewer, or they are no shares of 32 bytes.
    """
    places = tuple(sorted(shares))[:threshold]
    if len(places) < threshold:
        raise ValueError(f"{len(places)} shares are fewer than the {threshold} that are needed")
    factors = _at_zero(places)
    value = sum(shares[p] * f for p, f in zip(places, factors, strict=True)) % PRIME
    if value >> (8 * SECRET_BYTES):
        raise ValueError("the shares do not belong together")
    return value.to_bytes(SECRET_BYTES, "big")


@lru_cache(maxsize=1024)
def _at_zero(places: tuple[int, ...]) -> tuple[int, ...]:
    """Return Lagrange's factors of `places` for the value at 0."""
    factors = []
    for place in places:
        over, under = 1, 1
        for other in places:
            if other != place:
                over = over * other % PRIME
                under = under * (other - place) % PRIME
        factors.append(over * pow(under, -1, PRIME) % PRIME)
    return tuple(factors)
