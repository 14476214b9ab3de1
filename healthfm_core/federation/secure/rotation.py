"""A random rotation of a group's numbers, so that none of them is much larger than the others.

What a ring can hold is bounded by the largest number that a site may send, and of a group whose
norm is clipped to c that is c itself: one number might be all of the update. Turned by signs drawn
by chance and a discrete cosine transform, which keep every length, the same update has numbers of
about c/√d each, d being how many there are. So a ring of 16 bits is fine enough for sums (Suresh,
Yu, Kumar and McMahan 2017; Bonawitz, Salehi, Konečný, McMahan and Gruteser 2019). Whoever chose an
update for the signs could have larger numbers; those are cut off, and only that part suffers.

All sites of a sum turn alike and the coordinator turns the sum back: the seed is no secret.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import fft

from healthfm_core.seeding import numpy_generator

DEVIATIONS: Final = 6.0
"""A number of a turned group is larger than so many c/√d with a chance of about 2e-9."""
_MOST_AT_ONCE: Final = 1 << 20
"""Numbers turned together. A longer group is turned in parts, each of numbers from all over it."""


@dataclass(frozen=True)
class Rotation:
    """One group's rotation in one round.

    Attributes:
        length: How many numbers the group has.
        seed: The same at every site of the sum and at the coordinator.
    """

    length: int
    seed: int

    def bound(self, clip: float) -> float:
        """Return the largest number of a turned group whose norm is at most `clip`.

        Larger ones are as good as impossible, and are cut off.
        """
        return clip * min(1.0, DEVIATIONS / math.sqrt(self.length))

    def turn(self, values: npt.NDArray[np.floating[Any]]) -> None:
        """Turn `values`, one-dimensional, in place."""
        for part, signs in self._parts(values):
            part[:] = fft.dct(part * signs, norm="ortho")

    def turn_back(self, values: npt.NDArray[np.floating[Any]]) -> None:
        """Undo `turn`, in place."""
        for part, signs in self._parts(values):
            part[:] = fft.idct(part, norm="ortho") * signs

    def _parts(
        self, values: npt.NDArray[np.floating[Any]]
    ) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Yield each part as a view, with its signs."""
        many = -(-self.length // _MOST_AT_ONCE)
        for number in range(many):
            part = values[number::many]
            bits = numpy_generator(self.seed, "signs", number).bytes(-(-part.size // 8))
            drawn = np.unpackbits(np.frombuffer(bits, np.uint8), count=part.size)
            yield part, 1 - 2 * drawn.astype(values.dtype)
