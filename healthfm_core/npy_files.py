"""Arrays in ``.npy`` files, so that they take no memory: written in parts, read as views.

The pages of a view are the file's. The system takes them back whenever it needs room, and
`ArrayViews.release` gives them back at once, so that a process that reads all of a large file in
time never holds more than it looked at last.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

SUFFIX: Final = ".npy"


class ArrayWriter:
    """An array that is written to a file as its parts come; `close` makes it a ``.npy`` file.

    Args:
        file: A new file.

    Attributes:
        check: CRC-32 of the elements so far.
    """

    def __init__(self, file: Path) -> None:
        self.check = 0
        self._out = file.open("xb")
        self._dtype: np.dtype[Any] | None = None
        self._shape: tuple[int, ...] = ()

    def append(self, part: npt.NDArray[Any]) -> None:
        """Write further elements, of the type and the shape [.] of those before."""
        if self._dtype is None:
            self._dtype, self._shape = part.dtype, (0, *part.shape[1:])
            self._write_header()
        if part.dtype != self._dtype or part.shape[1:] != self._shape[1:]:
            raise ValueError(f"{part.dtype}{part.shape} behind {self._dtype}{self._shape}")
        data = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        self.check = zlib.crc32(data, self.check)
        self._out.write(data)
        self._shape = (self._shape[0] + len(part), *self._shape[1:])

    def __len__(self) -> int:
        return self._shape[0] if self._shape else 0

    @property
    def size(self) -> int:
        """Bytes of the elements so far."""
        each = 0 if self._dtype is None else self._dtype.itemsize
        return int(np.prod(self._shape, dtype=np.int64)) * each if self._shape else 0

    def close(self, *, sync: bool = True) -> None:
        """Write how many there are; with `sync` wait until all of it is on the disk."""
        if self._dtype is not None:
            self._out.seek(0)
            self._write_header()
        self._out.flush()
        if sync:
            os.fsync(self._out.fileno())
        self._out.close()

    def abandon(self) -> None:
        """Write no more; the file is no array."""
        self._out.close()

    def _write_header(self) -> None:
        facts = {
            "descr": npy.dtype_to_descr(self._dtype),  # type: ignore[arg-type]
            "fortran_order": False,
            "shape": self._shape,
        }
        npy.write_array_header_1_0(self._out, facts)  # which leaves room for a larger number


class ArrayViews(Mapping[str, npt.NDArray[Any]]):
    """The arrays of a folder's ``.npy`` files, as views into them, to be read only.

    Args:
        views: Name → the view.
        maps: What they are views into.
    """

    def __init__(self, views: Mapping[str, npt.NDArray[Any]], maps: list[mmap.mmap]) -> None:
        self._views, self._maps = views, maps

    @classmethod
    def of(cls, files: Mapping[str, Path]) -> Self:
        """Return the arrays of some files by name.

        Raises:
            OSError: One is not there or cannot be read.
            ValueError: One is no such file, or was cut off.
        """
        views, maps = {}, []
        for name, file in files.items():
            with file.open("rb") as opened:
                npy.read_magic(opened)
                shape, _, dtype = npy.read_array_header_1_0(opened)
                count, start = int(np.prod(shape, dtype=np.int64)), opened.tell()
                if os.fstat(opened.fileno()).st_size != start + count * dtype.itemsize:
                    raise ValueError(f"{file.name} is cut off")
                if not count:
                    views[name] = np.empty(shape, dtype)
                    continue
                maps.append(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
            views[name] = np.frombuffer(maps[-1], dtype, count, start).reshape(shape)
        return cls(views, maps)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._views[name]

    def __iter__(self) -> Any:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def check(self, name: str) -> int:
        """Return the CRC-32 of an array's elements."""
        return zlib.crc32(self._views[name].reshape(-1).view(np.uint8).data)

    def release(self) -> None:
        """Take the files' pages out of memory; who reads again gets them again."""
        for one in self._maps:
            one.madvise(mmap.MADV_DONTNEED)
