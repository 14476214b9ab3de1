"""Arrays to and from Flower's records, at the coordinator, which distrusts what it reads."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Mapping

from flwr.app import Array, ArrayRecord

from healthfm_core.arrays import ArrayDict, Arrays, Float32, Float32Arrays
from healthfm_core.federation import wire
from healthfm_core.federation.parameter_groups import group_of
from healthfm_server.transport.array_file import PagedArrays


def to_arrays(parameters: Mapping[str, Float32]) -> dict[str, Array]:
    """Return `parameters` serialised once, one array a group, for as many messages as sites."""
    groups: dict[str, Float32Arrays] = {}
    for name, array in parameters.items():
        groups.setdefault(_group_of(name), {})[name] = array
    bundles = {group: wire.bundle(arrays) for group, arrays in sorted(groups.items())}
    return {g: Array("|u1", (len(data),), wire.BUNDLE, data) for g, data in bundles.items()}


def digests_of(arrays: Mapping[str, Array]) -> dict[str, str]:
    """Return the SHA-256 of each array's bytes, in hex."""
    return {name: hashlib.sha256(array.data).hexdigest() for name, array in arrays.items()}


def record_of(arrays: Mapping[str, Array], names: Iterable[str]) -> ArrayRecord:
    """Return a record of the groups that hold `names`; records of several sites share them.

    So they are hashed once and go up once, where an engine tells objects by their hash.
    """
    record = ArrayRecord()
    for group in sorted({_group_of(name) for name in names}):
        record[group] = arrays[group]
    return record


def read(record: ArrayRecord) -> Arrays:
    """Return read-only views of a reply's arrays, without a copy.

    Of a reply that lies in a file, one array is in memory at a time.

    Raises:
        ValueError: An array is in it twice, or bytes, type and shape do not fit together.
    """
    views: ArrayDict = {}
    files: set[mmap.mmap] = set()
    for array in record.values():
        if array.stype != wire.BUNDLE:
            raise ValueError("an array travels in another layout than ours")
        arrays = wire.unbundle(array.data)
        if arrays.keys() & views.keys():
            raise ValueError("an array is in it twice")
        views |= arrays
        if isinstance(array.data, memoryview) and isinstance(array.data.obj, mmap.mmap):
            files.add(array.data.obj)
    return PagedArrays(views, files.pop()) if len(files) == 1 else views


def _group_of(name: str) -> str:
    """Return the group of a parameter, or of state that travels beside it (``slot/parameter``)."""
    return group_of(name.rpartition("/")[2])
