"""Arrays in files: the library's own format, and no memory that is not needed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from healthfm_server.transport.array_file import (
    MappedArrays,
    PagedArrays,
    digest_of,
    mapped,
    pieces,
)

ARRAYS = {
    "backbone.w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "backbone.b": np.array(7, np.float32),
    "encoders.prs.ü": np.zeros((0, 4), np.float32),
}


def written(folder: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(b"".join(pieces(ARRAYS)))
    return path


def test_a_checkpoint_is_written_as_the_library_writes_it(tmp_path: Path) -> None:
    assert written(tmp_path).read_bytes() == save(ARRAYS)
    assert sorted(load(written(tmp_path).read_bytes())) == sorted(ARRAYS)


def test_columns_and_steps_are_written_in_the_arrays_own_order(tmp_path: Path) -> None:
    turned = {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "s": np.zeros(8, "f4")[::2]}
    assert b"".join(pieces(turned)) == save({k: v.copy() for k, v in turned.items()})


def test_a_mapped_checkpoint_is_the_same_to_the_bit_and_the_file_stays(tmp_path: Path) -> None:
    path = written(tmp_path)
    before, found = digest_of(path), mapped(path)
    assert sorted(found) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape
    found["backbone.b"][...] = 9
    assert digest_of(path) == before
    assert type(pickle.loads(pickle.dumps(found))) is dict


def test_pages_that_were_let_go_come_again(tmp_path: Path) -> None:
    found = mapped(written(tmp_path))
    found.release()
    np.testing.assert_array_equal(found["backbone.w"], ARRAYS["backbone.w"])


def test_a_checkpoint_whose_file_is_gone_can_still_be_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = mapped(path)
    path.unlink()
    np.testing.assert_array_equal(found["backbone.w"], ARRAYS["backbone.w"])


def test_one_array_of_a_file_is_in_memory_at_a_time(tmp_path: Path) -> None:
    arrays = {str(n): np.full(1 << 20, n, np.float32) for n in range(8)}
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"".join(pieces(arrays)))

    def resident_bytes() -> int:
        text = Path("/proc/self/status").read_text()
        return 1024 * int(text.split("RssFile:")[1].split()[0])

    found = mapped(path)
    each = PagedArrays(found, found._file)
    before = resident_bytes()
    most = 0
    for name in each:
        assert each[name].sum() == int(name) * (1 << 20)
        most = max(most, resident_bytes() - before)
    assert most < 2 * (4 << 20)
    assert isinstance(found, MappedArrays)


@pytest.mark.parametrize("damage", ["cut", "text", "other"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = written(tmp_path)
    data = {"cut": path.read_bytes()[:-4], "text": b"no such file at all"}
    path.write_bytes(data.get(damage, save({"w": np.zeros(3, np.int64)})))
    with pytest.raises(ValueError, match=r"not a safetensors file|not float32"):
        mapped(path)


def test_another_type_than_float32_is_not_written() -> None:
    with pytest.raises(ValueError, match=r"backbone\.w is not float32"):
        b"".join(pieces({"backbone.w": np.zeros(3)}))
