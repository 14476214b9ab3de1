"""Random numbers that nobody can foresee: which people a step reads, and the noise it adds.

Amplification by sampling holds only against one who does not know who was drawn, and noise hides
only what nobody can subtract. Neither may come from the seed of a run, which the coordinator sends,
nor from a generator whose state its outputs betray (NumPy's, PyTorch's). Here every request takes
32 fresh bytes of the operating system's entropy as a key of AES-256 in counter mode; its keystream
is the numbers.

Normals are Box and Muller's, in float64, of one 64-bit word for the radius and one for the angle
(two normals of each pair); the smallest radius word gives 9.4 standard deviations, beyond which
lies 10⁻²⁰ of a normal. The noised sum is then rounded to a multiple of about 2⁻¹⁰ standard
deviations (`noised`): a float's low bits are not spread evenly around every sum, and would tell
sums apart (Mironov 2012); a grid 2⁴² times coarser than they are leaves of that what its rounding
does not average out. This is a mitigation and not a proof, and it is not constant in time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from jaxtyping import Float
from torch import Tensor

from healthfm_core.arrays import Bool, UInt64

GRID_BITS: Final = 10
"""A noised sum is a multiple of the power of two that lies so many below its noise."""

_BLOCK: Final = 1 << 15
"""Pairs of normals made at once, so that the passes over them stay in cache."""

Source = Callable[[int], bytes]


class Entropy:
    """A cryptographic generator, keyed anew at every request.

    Args:
        source: Gives so many unforeseeable bytes; the operating system's unless a test says
            otherwise.
    """

    def __init__(self, source: Source = os.urandom) -> None:
        self._source = source

    def words(self, count: int) -> UInt64:
        """Return `count` uniform 64-bit words."""
        return np.frombuffer(self._cipher().update(bytes(8 * count)), np.uint64)

    def seed(self) -> int:
        """Return 63 unforeseeable bits, to seed what draws masks and dropout with."""
        return int(self.words(1)[0] >> np.uint64(1))

    def chosen(self, count: int, rate: float) -> Bool:
        """Return who of `count` people is drawn, each by itself with probability `rate`."""
        if rate >= 1:
            return np.ones(count, np.bool_)
        return np.asarray(self.words(count) < np.uint64(int(rate * 2.0**64)), np.bool_)

    def normal(self, count: int) -> Float[Tensor, " n"]:
        """Return `count` standard normals, float64."""
        normals = torch.empty(count, dtype=torch.float64)
        pairs = min(_BLOCK, -(-count // 2))
        cipher, zeros = self._cipher(), bytes(16 * pairs)
        for low in range(0, count, 2 * pairs):
            words = np.frombuffer(cipher.update(zeros), np.uint64).reshape(2, pairs)
            block = _normals(words)
            normals[low : low + len(block)] = block[: count - low]
        return normals

    def _cipher(self) -> CipherContext:
        return Cipher(AES(self._source(32)), CTR(bytes(16))).encryptor()


def _normals(words: UInt64) -> Float[Tensor, " n"]:
    """Return two normals of each column of two words (Box and Muller)."""
    uniform = torch.from_numpy(words.astype(np.float64)).mul_(2.0**-64)  # [0, 1]
    radius = uniform[0].clamp_min_(2.0**-64).log_().mul_(-2).sqrt_()
    angle = uniform[1].mul_(2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()])


def noised(sum_: Tensor, std: float, entropy: Entropy) -> Tensor:
    """Return `sum_` with normal noise of `std`, on the grid; float64, where `sum_` is.

    Args:
        sum_: Any shape.
        std: Standard deviation, above 0.
        entropy: Where the noise comes from.
    """
    noise = entropy.normal(sum_.numel()).to(sum_.device).view(sum_.shape)
    step = 2.0 ** (math.floor(math.log2(std)) - GRID_BITS)
    return noise.mul_(std).add_(sum_.double()).div_(step).round_().mul_(step)
