"""Real numbers in a ring: a declared clip, a scale that follows from it, and no overflow.

A site adds round(w·x·s) with |x| ≤ clip and its integer weight w; all sites' weights together are
at most `capacity`. The scale is the largest power of two with s·clip·capacity + sites/2 below half
the ring, so that no sum of these sites can wrap. The sum is off by at most sites/(2·s), rounded by
chance by sites/s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Float64
from healthfm_core.errors import PrivacyError
from healthfm_core.privacy.secure_aggregation.masks import Ring

_BLOCK: Final = 1 << 16
RingBits = Literal[16, 32, 64]
_SIGNED: Final = {16: np.int16, 32: np.int32, 64: np.int64}
_UNSIGNED: Final[dict[int, type[np.unsignedinteger[Any]]]] = {
    16: np.uint16,
    32: np.uint32,
    64: np.uint64,
}


@dataclass(frozen=True)
class FixedPoint:
    """How numbers up to a clip stand in a ring.

    Attributes:
        bits: The ring is the integers modulo 2^bits.
        clip: Largest magnitude of a number.
        capacity: Most weight that all sites bring together, at least 1.
        sites: Most sites in a sum.
    """

    bits: RingBits
    clip: float
    capacity: int
    sites: int

    @cached_property
    def scale(self) -> float:
        """Units of the ring per unit of weight times number."""
        room = 2.0 ** (self.bits - 1) - 1 - self.sites
        return 2.0 ** math.floor(math.log2(room / (self.clip * self.capacity)))

    @property
    def resolution(self) -> float:
        """Most that the sum of all sites, each rounded to the nearest, can be off."""
        return self.sites / (2 * self.scale)

    def encode(
        self,
        values: npt.NDArray[Any],
        weight: int,
        out: Ring,
        generator: np.random.Generator | None = None,
    ) -> None:
        """Write round(weight · values · scale) to `out`.

        Args:
            values: One-dimensional floats, finite.
            weight: 0 … `capacity`.
            out: Array of the ring, of the same length.
            generator: Rounds up with the chance of the fraction, so that a sum of small parts is
                right on average; None: to the nearest.

        Raises:
            PrivacyError: A value is not finite or over the clip, or the weight over the capacity
                (HF-613); nothing of it can be sent.
        """
        if not 0 <= weight <= self.capacity:
            raise unfit_value("a weight over what the site registered with")
        signed, factor = _SIGNED[self.bits], weight * self.scale
        for start in range(0, values.size, _BLOCK):
            part = values[start : start + _BLOCK]
            if not float(np.abs(part).max()) <= self.clip:
                raise unfit_value("a value that is not finite or over the declared clip")
            units = np.multiply(part, factor, dtype=np.float64)
            units = np.rint(units) if generator is None else _by_chance(units, generator)
            out[start : start + part.size] = units.astype(signed).view(out.dtype)

    def decode(self, total: Ring) -> Float64:
        """Return the sum of the sites' weighted numbers."""
        return total.view(_SIGNED[self.bits]).astype(np.float64) / self.scale

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """Type of the ring's arrays."""
        return _UNSIGNED[self.bits]


def _by_chance(units: Float64, generator: np.random.Generator) -> Float64:
    return np.floor(units + generator.random(units.size, np.float32))


def unfit_value(seen: str) -> PrivacyError:
    """Return the error for a number that cannot stand in the ring (HF-613)."""
    return PrivacyError(613, where="secure aggregation", seen=seen)
