"""Arrays that are written to files in parts and read as views into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from healthfm_core.npy_files import ArrayViews, ArrayWriter


def written(file: Path, *parts: np.ndarray) -> Path:
    out = ArrayWriter(file)
    for part in parts:
        out.append(part)
    out.close()
    return file


def test_parts_become_one_array_that_numpy_reads(tmp_path: Path):
    parts = [np.arange(n * 6, dtype=np.float32).reshape(n, 2, 3) for n in (4, 0, 3)]
    file = written(tmp_path / "x.npy", *parts)
    whole = np.concatenate(parts)
    assert np.array_equal(np.load(file), whole)
    arrays = ArrayViews.of({"x": file})
    assert np.array_equal(arrays["x"], whole)
    arrays.release()
    assert np.array_equal(arrays["x"], whole)
    assert not arrays["x"].flags.writeable


def test_an_array_of_nothing_keeps_its_type_and_shape(tmp_path: Path):
    arrays = ArrayViews.of({"x": written(tmp_path / "x.npy", np.zeros((0, 5), np.int32))})
    assert arrays["x"].shape == (0, 5)
    assert arrays["x"].dtype == np.int32


def test_a_part_of_another_type_or_shape_is_refused(tmp_path: Path):
    out = ArrayWriter(tmp_path / "x.npy")
    out.append(np.zeros((1, 2), np.int64))
    for other in (np.zeros((1, 2), np.int32), np.zeros((1, 3), np.int64)):
        with pytest.raises(ValueError, match="behind"):
            out.append(other)
    out.abandon()


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path):
    file = written(tmp_path / "x.npy", np.arange(100))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="cut off"):
        ArrayViews.of({"x": file})


def test_a_file_that_was_never_closed_is_refused(tmp_path: Path):
    out = ArrayWriter(tmp_path / "x.npy")
    out.append(np.arange(100))
    out.abandon()
    with pytest.raises(ValueError, match="cut off"):
        ArrayViews.of({"x": tmp_path / "x.npy"})
