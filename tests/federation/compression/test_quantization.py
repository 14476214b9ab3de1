"""Fewer bits: right on average, never off by more than is said, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from healthfm_core.federation.compression.quantization import BLOCK, QUANTIZERS

LARGE = 1e30
FLOATS = arrays(
    np.float32,
    st.integers(0, 3 * BLOCK),
    elements=st.floats(-np.float32(LARGE), np.float32(LARGE), width=32),
)


def read_back(codec: str, values: np.ndarray, seed: int = 0) -> np.ndarray:
    quantizer = QUANTIZERS[codec]
    codes, scales = quantizer.quantize(values, np.random.default_rng(seed))
    assert codes.dtype.str == quantizer.dtype
    assert codes.shape == values.shape
    assert scales.shape == (quantizer.scales(values.size),)
    assert scales.dtype == np.float32
    back = quantizer.dequantize(codes, scales)
    assert back.dtype == np.float32
    return back


@given(FLOATS)
def test_int8_is_off_by_less_than_its_blocks_largest_over_127(values: np.ndarray) -> None:
    back = read_back("int8", values)
    for start in range(0, values.size, BLOCK):
        block = values[start : start + BLOCK].astype(np.float64)
        step = np.abs(block).max() / 127
        assert np.abs(back[start : start + BLOCK] - block).max() <= 1.0001 * step + 1e-30


@given(FLOATS)
def test_bf16_is_off_by_a_256th_and_the_nearest(values: np.ndarray) -> None:
    back, exact = read_back("bf16", values), values.astype(np.float64)
    assert (np.abs(back - exact) <= np.abs(exact) * 2.0**-8 + 1e-40).all()
    assert (read_back("bf16", back) == back).all()


@given(arrays(np.float32, 50, elements=st.floats(-65504, 65504, width=32)))
def test_fp16_is_off_by_a_2048th_above_its_smallest_normal_number(values: np.ndarray) -> None:
    off = np.abs(read_back("fp16", values) - values.astype(np.float64))
    assert (off <= np.maximum(np.abs(values) * 2.0**-11, 2.0**-25)).all()


def test_bf16_rounds_ties_to_even_as_torch_does() -> None:
    import torch

    bits = np.arange(0, 2**32, 2**13 + 1, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3e38)]
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    assert (read_back("bf16", values) == expected).all()


@pytest.mark.parametrize("codec", ["fp16", "bf16"])
def test_what_is_too_large_for_half_precision_is_its_largest_number(codec: str) -> None:
    most = np.float32(np.finfo(np.float32).max)
    back = read_back(codec, np.array([most, -most], np.float32))
    assert np.isfinite(back).all()
    assert back[0] == -back[1] > 60_000


def test_int8_is_right_on_average() -> None:
    values = np.random.default_rng(1).normal(size=2 * BLOCK).astype(np.float32)
    rounds = 4000
    mean = np.mean([read_back("int8", values, seed) for seed in range(rounds)], axis=0)
    step = np.repeat(np.abs(values.reshape(2, BLOCK)).max(1) / 127, BLOCK)
    assert np.abs(mean - values).max() < 5 * 0.5 * step.max() / np.sqrt(rounds)
    nearest = np.rint(values / step) * step
    assert np.abs(nearest - values).max() > 0.45 * step.min(), "rounding to the nearest is not"


@pytest.mark.parametrize("codec", QUANTIZERS)
def test_the_same_seed_gives_the_same_bits(codec: str) -> None:
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    one, other = (read_back(codec, values, seed=7) for _ in range(2))
    assert one.tobytes() == other.tobytes()


def test_another_seed_rounds_otherwise() -> None:
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    assert read_back("int8", values, 7).tobytes() != read_back("int8", values, 8).tobytes()


@pytest.mark.parametrize("codec", QUANTIZERS)
def test_zeros_stay_zeros_and_a_number_too_small_to_scale_is_one(codec: str) -> None:
    assert not read_back(codec, np.zeros(BLOCK + 3, np.float32)).any()
    if codec == "int8":
        assert not read_back(codec, np.full(3, 1e-31, np.float32)).any()


def test_a_block_is_scaled_by_itself() -> None:
    values = np.concatenate([np.full(BLOCK, 1e-6), np.full(BLOCK, 1e6)]).astype(np.float32)
    np.testing.assert_allclose(read_back("int8", values), values, rtol=1e-6)


class Highest(np.random.Generator):
    """Draws the largest number below 1, always."""

    def random(self, size, dtype):
        """As NumPy's."""
        return np.full(size, np.nextafter(dtype(1), dtype(0)), dtype)


def test_the_largest_number_of_a_block_never_wraps_around() -> None:
    """Over its scale it may come to a little more than 127."""
    values = np.random.default_rng(1).normal(size=2000 * BLOCK).astype(np.float32)
    codes, _ = QUANTIZERS["int8"].quantize(values, Highest(np.random.PCG64(0)))
    assert codes.min() >= -127
    assert (np.sign(codes) * np.sign(values) >= 0).all()
