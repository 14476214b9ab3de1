"""Arrays as bytes: what NumPy reads and writes, and nothing else."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from healthfm_core.federation.wire import bundle, pack, unbundle, unpack


@given(
    hnp.arrays(
        st.sampled_from(["<f4", "<f8", "<i8", "<i4", "|u1", "|b1", "<U5"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_what_is_packed_comes_back_and_numpy_reads_it(array: np.ndarray) -> None:
    data = pack(array)
    back = unpack(array.dtype.str, array.shape, data)
    np.testing.assert_array_equal(back, array)
    assert back.shape == array.shape
    np.testing.assert_array_equal(np.load(io.BytesIO(data)), array)


def test_what_numpy_saves_is_read() -> None:
    buffer, array = io.BytesIO(), np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(buffer, array)
    np.testing.assert_array_equal(unpack("float32", (2, 3), buffer.getvalue()), array)


def test_what_is_read_cannot_be_written_to() -> None:
    view = unpack("<f4", (3,), pack(np.ones(3, np.float32)))
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 2


def test_a_transposed_array_travels_in_c_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(unpack("<f4", (3, 2), pack(array)), array)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("<f8", (3,)),
        ("<f4", (4,)),
        ("<f4", (3, 1)),
        ("<f4", (-3,)),
        ("object", (3,)),
        (">f4", (3,)),
        ("no type", (3,)),
        ("<f4", (2**70,)),
    ],
)
def test_bytes_that_do_not_fit_what_they_claim_are_refused(dtype: str, shape: tuple) -> None:
    with pytest.raises(ValueError, match="its"):
        unpack(dtype, shape, pack(np.ones(3, np.float32)))


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"PK" + d[2:]])
def test_truncated_or_padded_bytes_are_refused(change) -> None:
    with pytest.raises(ValueError, match="its"):
        unpack("<f4", (3,), change(pack(np.ones(3, np.float32))))


def test_objects_never_travel() -> None:
    with pytest.raises(ValueError, match="may not travel"):
        pack(np.array([{}], dtype=object))


ARRAYS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array(["I10", "E11"]),
    "c": np.zeros((0, 4), np.int64),
}


def test_a_bundle_comes_back_in_any_order_of_its_names() -> None:
    back = unbundle(bundle(ARRAYS))
    assert list(back) == ["a", "b", "c"]
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].shape == array.shape
    assert bundle(dict(reversed(ARRAYS.items()))) == bundle(ARRAYS)


def test_an_empty_bundle_comes_back() -> None:
    assert unbundle(bundle({})) == {}


@given(st.binary(max_size=200))
def test_no_bytes_but_a_bundle_are_read_as_one(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        unbundle(data)


@given(st.data())
def test_a_bundle_cut_short_or_with_more_is_refused(data) -> None:
    whole = bundle(ARRAYS)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for broken in (whole[:cut], whole + b"x"):
        with pytest.raises(ValueError, match="it"):
            unbundle(broken)


def test_an_index_that_names_an_array_twice_or_lies_about_sizes_is_refused() -> None:
    one = pack(np.ones(2, np.float32))
    for index in (
        [["a", "<f4", [2], len(one)], ["a", "<f4", [2], len(one)]],
        [["a", "<f4", [2], 10**9]],
        [["a", "<f4", [2], -1]],
        [["a", "<f4", [True], len(one)]],
        [["a", "<f4"]],
        {"a": 1},
    ):
        text = json.dumps(index).encode()
        with pytest.raises(ValueError, match="it"):
            unbundle(len(text).to_bytes(8, "big") + text + one + one)
