"""Arrays to and from Flower's records, at the site."""

from __future__ import annotations

from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord

from healthfm_core.arrays import ArrayDict, Arrays, Float32Arrays
from healthfm_core.errors import ProtocolError
from healthfm_core.federation import wire

PIECE: Final = "arrays"
"""Name of the one piece in which a site's arrays travel."""


def to_record(arrays: Arrays) -> ArrayRecord:
    """Return `arrays` as a record of one piece; its bytes share nothing with them."""
    data = wire.bundle(arrays)
    return ArrayRecord({PIECE: Array("|u1", (len(data),), wire.BUNDLE, data)})


def parameters_of(record: ArrayRecord) -> Float32Arrays:
    """Return the received parameters as arrays of the site's own, to be written to as it likes.

    Raises:
        ProtocolError: An array is not float32 or cannot be read (HF-402).
    """
    parameters = {}
    for piece, array in record.items():
        try:
            views = wire.unbundle(array.data)
        except ValueError as error:
            raise _unusable(piece, str(error)) from error
        for name, view in views.items():
            if view.dtype != np.float32:
                raise _unusable(name, "its type is not float32")
            parameters[name] = view.copy()
    return parameters


def arrays_of(record: ArrayRecord) -> ArrayDict:
    """Return read-only views of the received arrays, whatever their types.

    Raises:
        ProtocolError: They cannot be read, or one is there twice (HF-402).
    """
    found: ArrayDict = {}
    for piece, array in record.items():
        try:
            views = wire.unbundle(array.data)
        except ValueError as error:
            raise _unusable(piece, str(error)) from error
        if views.keys() & found.keys():
            raise _unusable(piece, "an array that is there twice")
        found |= views
    return found


def _unusable(name: str, seen: str) -> ProtocolError:
    return ProtocolError(
        402, where=name, seen=seen, wanted="parameters are float32 arrays as healthfm bundles them"
    )
