"""Arrays to and from Flower's records, at the coordinator, which distrusts what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord

from healthfm_core.federation import wire


def to_arrays(parameters: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Array]:
    """Return `parameters` serialised once, for as many messages as there are sites."""
    return {
        name: Array(array.dtype.str, array.shape, wire.STYPE, wire.pack(array))
        for name, array in sorted(parameters.items())
    }


def record_of(arrays: Mapping[str, Array], names: Iterable[str]) -> ArrayRecord:
    """Return a record of those of `arrays`; records of several sites share them.

    So they are hashed once and go up once, where an engine tells objects by their hash.
    """
    record = ArrayRecord()
    for name in names:
        record[name] = arrays[name]
    return record


def read(record: ArrayRecord) -> dict[str, npt.NDArray[Any]]:
    """Return read-only views of a reply's arrays, without a copy.

    Raises:
        ValueError: Bytes, type and shape of an array do not fit together.
    """
    views = {}
    for name, array in record.items():
        if array.stype != wire.STYPE:
            raise ValueError("an array travels in another layout than .npy")
        views[name] = wire.unpack(array.dtype, tuple(array.shape), array.data)
    return views
