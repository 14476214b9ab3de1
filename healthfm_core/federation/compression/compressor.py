"""An update's groups as the arrays that travel, and the residual that its sender keeps.

What is sent is C(Δ + e), with e what earlier messages left out; what this one leaves out is kept,
e⁺ = Δ + e − C(Δ + e) (error feedback: Seide et al. 2014; Karimireddy et al. 2019). So all that was
sent, and the last residual, add up to all updates: Σ C = Σ Δ + e₀ − e⁺.

A group travels as one array of codes, its parameters one after the other, with their scales and,
where not every number is sent, a bit for each number that says which are. An array is compressed
(zstd) where that makes it shorter, which its name says.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from healthfm_core.arrays import ArrayDict, Arrays, Float32, Float32Arrays, UInt8
from healthfm_core.federation.compression.quantization import QUANTIZERS, Quantizer
from healthfm_core.seeding import numpy_generator

SCALES: Final = "scales"
MASK: Final = "mask"
COMPRESSED: Final = ".zst"
"""Ends the name of an array that travels compressed."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class EncodedUpdate:
    """What a sender sends, and what it keeps.

    Attributes:
        arrays: What travels: ``group/int8``, ``group/scales``, ``group/mask`` and the like.
        residual: Parameter → what they leave out, float32.
    """

    arrays: ArrayDict
    residual: Float32Arrays


@dataclass(frozen=True)
class Compressor:
    """One codec.

    Attributes:
        codec: ``fp16``, ``bf16`` or ``int8``.
        top_k: Share of each parameter's numbers that are sent, the largest, 0 < share < 1 (Deep
            Gradient Compression, Lin et al. 2018); None: all.
    """

    codec: str
    top_k: float | None = None

    def encode(
        self, groups: Mapping[str, Collection[str]], update: Arrays, residual: Arrays, seed: int
    ) -> EncodedUpdate:
        """Return how `update` and what was left out before travel.

        Args:
            groups: Group → its parameters, in the order that both sides know.
            update: Parameter → float32 change, finite; those of `groups` at least.
            residual: Parameter → what earlier messages left out; none of a parameter is zeros.
            seed: Of the rounding; each parameter has a stream of its own.
        """
        arrays: ArrayDict = {}
        kept: Float32Arrays = {}
        for group, names in groups.items():
            parts: dict[str, list[npt.NDArray[Any]]] = {}
            for name in names:
                wanted = np.asarray(update[name], np.float32)
                if name in residual:
                    wanted = np.asarray(wanted + residual[name])
                encoded, kept[name] = self._encode(wanted, numpy_generator(seed, "codec", name))
                for part, array in encoded.items():
                    parts.setdefault(part, []).append(array)
            for part, pieces in parts.items():
                arrays |= _packed(f"{group}/{part}", np.concatenate(pieces))
        return EncodedUpdate(arrays, kept)

    def _encode(self, wanted: Float32, generator: np.random.Generator) -> tuple[ArrayDict, Float32]:
        """Return one parameter's part of each array, and what they leave out of it."""
        flat, quantizer = wanted.reshape(-1), QUANTIZERS[self.codec]
        chosen = slice(None) if self.top_k is None else _largest(flat, self.top_k)
        codes, scales = quantizer.quantize(flat[chosen], generator)
        parts: ArrayDict = {self.codec: codes}
        if quantizer.scales(1):
            parts[SCALES] = scales
        if isinstance(chosen, np.ndarray):
            parts[MASK] = np.packbits(chosen)
        left = flat.copy()
        left[chosen] -= quantizer.dequantize(codes, scales)
        return parts, left.reshape(wanted.shape)

    def decode(
        self, groups: Mapping[str, Collection[str]], shapes: Shapes, arrays: Arrays
    ) -> DecodedArrays:
        """Return the parameters of `groups` from what arrived, which nothing is believed of.

        Args:
            groups: Group → its parameters, in the sender's order.
            shapes: Parameter → shape.
            arrays: What arrived.

        Raises:
            ValueError: It is not exactly `groups` in this codec; the message says what differs.
        """
        quantizer, left = QUANTIZERS[self.codec], dict.fromkeys(arrays)
        spans: dict[str, _Span] = {}
        for group, names in groups.items():
            sizes = {name: math.prod(shapes[name]) for name in names}
            masks, counts = {}, sizes
            if self.top_k is not None:
                masks = _masks(
                    _unpacked(arrays, left, f"{group}/{MASK}", "|u1", _bytes(sizes)), sizes
                )
                counts = {name: int(np.count_nonzero(masks[name])) for name in sizes}
            where, each = f"{group}/{self.codec}", counts.values()
            codes = _unpacked(arrays, left, where, quantizer.dtype, sum(each))
            many = sum(map(quantizer.scales, each))
            scales = np.zeros(0, np.float32)
            if quantizer.scales(1):
                scales = _unpacked(arrays, left, f"{group}/{SCALES}", "<f4", many)
                if not (np.isfinite(scales).all() and (scales >= 0).all()):
                    raise ValueError(f"{group}/{SCALES} holds a scale that is no positive number")
            at = first = 0
            for name, count in counts.items():
                end, last = at + count, first + quantizer.scales(count)
                spans[name] = _Span(codes[at:end], scales[first:last], masks.get(name))
                at, first = end, last
        if left:
            raise ValueError(
                f"it has {len(left)} arrays that {self.codec} does not, {min(left)[:80]}"
            )
        return DecodedArrays(quantizer, spans, shapes)


@dataclass(frozen=True)
class _Span:
    """Where one parameter stands: its codes, its scales, and which of its numbers they are."""

    codes: npt.NDArray[Any]
    scales: Float32
    mask: npt.NDArray[np.bool_] | None


class DecodedArrays(Arrays):
    """Parameters that are decoded each time one is asked for, so that none waits in memory.

    Args:
        quantizer: Reads the codes.
        spans: Parameter → where it stands.
        shapes: Parameter → shape.
    """

    def __init__(self, quantizer: Quantizer, spans: Mapping[str, _Span], shapes: Shapes) -> None:
        self._quantizer = quantizer
        self._spans = spans
        self._shapes = shapes

    def __getitem__(self, name: str) -> Float32:
        span = self._spans[name]
        values = self._quantizer.dequantize(span.codes, span.scales)
        if span.mask is not None:
            sent, values = values, np.zeros(span.mask.size, np.float32)
            values[span.mask] = sent
        return values.reshape(self._shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)


def _largest(values: Float32, share: float) -> npt.NDArray[np.bool_]:
    """Return which numbers are the largest in magnitude, that share of them and at least one."""
    count = min(values.size, max(1, math.ceil(share * values.size)))
    chosen = np.zeros(values.size, np.bool_)
    if count:
        chosen[np.argpartition(-np.abs(values), count - 1)[:count]] = True
    return chosen


def _bytes(sizes: Mapping[str, int]) -> int:
    return sum(-(-size // 8) for size in sizes.values())


def _masks(packed: UInt8, sizes: Mapping[str, int]) -> dict[str, npt.NDArray[np.bool_]]:
    """Return parameter → which of its numbers travel; each parameter begins with a byte."""
    masks, at = {}, 0
    for name, size in sizes.items():
        end = at + -(-size // 8)
        masks[name] = np.unpackbits(packed[at:end], count=size).view(np.bool_)
        at = end
    return masks


def _packed(name: str, array: npt.NDArray[Any]) -> ArrayDict:
    """Return `array` as it travels: compressed where that is shorter."""
    raw = array.tobytes()
    short = pa.compress(raw, codec="zstd", asbytes=True)
    if len(short) < len(raw):
        return {name + COMPRESSED: np.frombuffer(short, np.uint8)}
    return {name: array}


def _unpacked(
    arrays: Arrays, left: dict[str, None], name: str, dtype: str, size: int
) -> npt.NDArray[Any]:
    """Return the array of that name and size, however it travels, and take it off `left`.

    Raises:
        ValueError: It is not there, or is another one.
    """
    if name in left:
        left.pop(name)
        array = arrays[name]
        if array.dtype.str != dtype or array.shape != (size,):
            raise ValueError(f"{name} is not {size} numbers of type {dtype}")
        return array
    if name + COMPRESSED not in left:
        raise ValueError(f"it has no {name}")
    left.pop(name + COMPRESSED)
    packed, length = arrays[name + COMPRESSED], size * np.dtype(dtype).itemsize
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise ValueError(f"{name}{COMPRESSED} is not a row of bytes")
    try:
        raw = pa.decompress(packed.tobytes(), length, codec="zstd", asbytes=True)
    except (OSError, ValueError) as error:  # its text may quote what arrived
        raise ValueError(f"{name}{COMPRESSED} is not {length} bytes of zstd") from error
    return np.frombuffer(raw, dtype)
