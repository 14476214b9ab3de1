"""Numbers in 8 or 16 bits: half precision, and blocks of whole numbers under one scale each.

``int8`` takes `BLOCK` numbers at a time, divides them by their largest magnitude over 127 and
rounds up or down by chance, so that what is read back is right on average (QSGD, Alistarh et al.
2017; the blocks are those of 8-bit optimisers, Dettmers et al. 2022). ``fp16`` and ``bf16`` round
to the nearest, as a machine's own conversion does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Float32

BLOCK: Final = 256
"""Numbers under one scale: its four bytes are a 64th of theirs."""
_LEVELS: Final = 127
_LEAST: Final = np.float32(1e-30)
"""A block whose largest magnitude is below it is zeros: its scale would have no precision left."""
_MOST_FP16: Final = float(np.finfo(np.float16).max)
_MOST_BF16: Final = np.frombuffer(np.uint32(0x7F7F0000).tobytes(), np.float32)[0]

Codes = npt.NDArray[Any]
"""One-dimensional, of the quantizer's `dtype`."""


@runtime_checkable
class Quantizer(Protocol):
    """How the numbers of one array stand in fewer bits."""

    @property
    def dtype(self) -> str:
        """Type of the codes, as NumPy writes it."""

    def scales(self, size: int) -> int:
        """Return how many float32 scales go with `size` numbers."""

    def quantize(self, values: Float32, generator: np.random.Generator) -> tuple[Codes, Float32]:
        """Return codes and scales of one-dimensional, finite `values`."""

    def dequantize(self, codes: Codes, scales: Float32) -> Float32:
        """Return the numbers that codes and scales stand for."""


@dataclass(frozen=True)
class HalfPrecision:
    """IEEE 754 binary16: off by 2^-11 of a number at most, from 6.1e-5 to 65504."""

    dtype: str = "<f2"

    def scales(self, size: int) -> int:
        """None."""
        return 0

    def quantize(self, values: Float32, generator: np.random.Generator) -> tuple[Codes, Float32]:
        """Return the nearest half; what is larger than the largest half is that one."""
        return np.clip(values, -_MOST_FP16, _MOST_FP16).astype(self.dtype), _no_scales()

    def dequantize(self, codes: Codes, scales: Float32) -> Float32:
        """Return the halves as float32, which has each exactly."""
        return codes.astype(np.float32)


@dataclass(frozen=True)
class BrainFloat:
    """bfloat16, float32 without its lower half: off by 2^-8 of a number at most."""

    dtype: str = "<u2"

    def scales(self, size: int) -> int:
        """None."""
        return 0

    def quantize(self, values: Float32, generator: np.random.Generator) -> tuple[Codes, Float32]:
        """Return the nearest bfloat16 as its bits, ties to even."""
        bits = np.clip(values, -_MOST_BF16, _MOST_BF16).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(self.dtype), _no_scales()

    def dequantize(self, codes: Codes, scales: Float32) -> Float32:
        """Return the bits as float32, which has each exactly."""
        return (codes.astype(np.uint32) << 16).view(np.float32)


@dataclass(frozen=True)
class BlockQuantizer:
    """Whole numbers from -127 to 127, `BLOCK` of them under one scale: off by less than a scale."""

    dtype: str = "|i1"

    def scales(self, size: int) -> int:
        """One for each block, of which the last may be shorter."""
        return -(-size // BLOCK)

    def quantize(self, values: Float32, generator: np.random.Generator) -> tuple[Codes, Float32]:
        """Return each number over its block's scale, rounded up with the chance of its fraction."""
        starts = np.arange(0, values.size, BLOCK)
        largest = np.maximum.reduceat(np.abs(values), starts) if values.size else _no_scales()
        scales = np.where(largest < _LEAST, 0, largest / np.float32(_LEVELS)).astype(np.float32)
        each = _repeated(np.where(scales > 0, scales, np.float32(np.inf)), values.size)
        steps = np.floor(values / each + generator.random(values.size, np.float32))
        return np.clip(steps, -_LEVELS, _LEVELS).astype(self.dtype), scales

    def dequantize(self, codes: Codes, scales: Float32) -> Float32:
        """Return each whole number times its block's scale."""
        with np.errstate(over="ignore"):  # a sender's scale may be anything; norms are checked next
            return codes * _repeated(scales, codes.size)


QUANTIZERS: Final[Mapping[str, Quantizer]] = MappingProxyType(
    {"fp16": HalfPrecision(), "bf16": BrainFloat(), "int8": BlockQuantizer()}
)
"""Name of a codec → how it writes numbers."""


def _repeated(scales: Float32, size: int) -> Float32:
    return np.repeat(scales, BLOCK)[:size]


def _no_scales() -> Float32:
    return np.zeros(0, np.float32)
