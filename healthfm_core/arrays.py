"""NumPy array types by element type, for signatures whose shapes are said elsewhere.

jaxtyping's `Float32[Tensor, "B L"]` states the shapes of tensors; these are plain arrays.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Text = npt.NDArray[np.str_]

Integers = npt.NDArray[np.integer]
"""Any width of integer."""
Floats = npt.NDArray[np.floating]
"""Any width of floating point."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""Named arrays that are only read: a model's parameters, an update."""
ArrayDict = dict[str, npt.NDArray[Any]]
"""Named arrays that the holder may change."""
Float32Arrays = dict[str, Float32]
"""Named float32 arrays: a model's parameters as they travel."""
