"""Arrays in files, so that a model takes no memory while it is only waited with.

A checkpoint is a safetensors file, written array by array and read as views into the mapped file:
its pages are the file's, and the system takes them back whenever it needs room. A reply's arrays
lie in a file without a name while they are looked at, so that only a piece is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from healthfm_core.arrays import Arrays, Float32
from healthfm_server.run_folder.durable_files import writing

_TYPE: Final = "F32"
_LENGTH_BYTES: Final = 8


def pieces(arrays: Mapping[str, Float32]) -> Iterator[memoryview]:
    """Yield `arrays` as the bytes of a safetensors file, the same as the library writes them.

    Raises:
        ValueError: An array is not float32.
    """
    header: dict[str, dict[str, Any]] = {}
    start = 0
    for name, array in sorted(arrays.items()):
        if array.dtype != np.float32:
            raise ValueError(f"{name} is not float32")
        offsets = [start, start + array.nbytes]
        header[name] = {"dtype": _TYPE, "shape": list(array.shape), "data_offsets": offsets}
        start += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    yield memoryview(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
    for _, array in sorted(arrays.items()):
        if array.size:
            yield np.ascontiguousarray(array).reshape(-1).data.cast("B")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex, a block of it in memory at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class MappedArrays(dict[str, Float32]):
    """Arrays as views into a file, to be read only."""

    def __init__(self, arrays: Mapping[str, Float32], file: mmap.mmap) -> None:
        super().__init__(arrays)
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process go the arrays."""
        return dict, (dict(self),)

    def renamed(
        self, rename: Callable[[Mapping[str, Float32]], Mapping[str, Float32]]
    ) -> MappedArrays:
        """Return the same views under other names."""
        return MappedArrays(rename(self), self._file)

    def release(self) -> None:
        """Take the file's pages out of memory; who reads again gets them again."""
        self._file.madvise(mmap.MADV_DONTNEED)


class PagedArrays(Arrays):
    """Views into a file, of which one array's pages are in memory at a time."""

    def __init__(self, views: Arrays, file: mmap.mmap) -> None:
        self._views = views
        self._file = file

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        self._file.madvise(mmap.MADV_DONTNEED)
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


def mapped(path: Path) -> MappedArrays:
    """Return the arrays of a safetensors file as views into it.

    Raises:
        ValueError: It is not such a file, or an array in it is not float32.
    """
    try:
        with safe_open(path, framework="numpy") as checked:
            names = list(checked.keys())
    except SafetensorError as error:
        raise ValueError("it is not a safetensors file") from error
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES:start])
    views = {}
    for name in names:
        if header[name]["dtype"] != _TYPE:
            raise ValueError("an array in it is not float32")
        offset, shape = start + header[name]["data_offsets"][0], header[name]["shape"]
        flat = np.frombuffer(data, np.float32, math.prod(shape), offset)
        views[name] = flat.reshape(shape)
    return MappedArrays(views, data)


class ReplyFile(AbstractContextManager["ReplyFile"]):
    """A file without a name that a reply's arrays are written to; it goes with the last view of it.

    Args:
        folder: On whose disk it is to be.
        most: Bytes it may have at most. Equal pieces of an array come once, so that a few
            kilobytes could stand for a full disk.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  (__exit__)
        self.size = 0

    def __exit__(self, *_: object) -> None:
        """Write nothing more; views stay."""
        self._file.close()

    def append(self, data: bytes | memoryview) -> None:
        """Write `data` at the end.

        Raises:
            ValueError: The reply is larger than it may be.
            RunError: The disk does not take it (HF-725).
        """
        if self.size + len(data) > self._most:
            raise ValueError("a reply that is too large")
        rest = memoryview(data)
        while rest:
            with writing(self._folder):
                rest = rest[self._file.write(rest) :]
        self.size += len(data)

    def append_copy(self, start: int, size: int) -> None:
        """Append a copy of what stands at `start`."""
        self.append(os.pread(self._file.fileno(), size, start))

    def view(self) -> memoryview:
        """Return a read-only view of all that was written so far."""
        if not self.size:
            return memoryview(b"")
        return memoryview(mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ))


def put_on_disk(arrays: Arrays, folder: Path) -> Arrays:
    """Return `arrays` as views into a file without a name in `folder`; if they are, as they are.

    Raises:
        RunError: The disk does not take them (HF-725).
    """
    if isinstance(arrays, PagedArrays):
        return arrays
    starts = {}
    with ReplyFile(folder, sum(array.nbytes for array in arrays.values())) as file:
        for name, array in arrays.items():
            starts[name] = file.size
            file.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        data = file.view()
    views = {
        name: np.frombuffer(data, array.dtype, array.size, starts[name]).reshape(array.shape)
        for name, array in arrays.items()
    }
    return PagedArrays(views, data.obj) if isinstance(data.obj, mmap.mmap) else views
