"""Round 0 of a secure study at a site: its statistics as masked tables.

The statistics are read once and kept for the session after, where the process lives that long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from healthfm_core.arrays import Arrays
from healthfm_core.errors import ProtocolError
from healthfm_core.federation.secure.statistics_codec import StatisticsLayout, marks
from healthfm_core.tokens.statistics import SiteStatistics

_read: dict[object, SiteStatistics] = {}
"""Statistics by what they are of: a cache of this process, of the last question only."""

_STEPS: Final = ("marks", "tables")


def statistics_arrays(
    order: Mapping[str, Any],
    modalities: frozenset[str],
    key: object,
    read: Callable[[], Arrays],
) -> dict[str, npt.NDArray[np.unsignedinteger[Any]]]:
    """Return the arrays of one of the two sessions, not masked yet.

    Args:
        order: ``step`` and ``salt``, for the tables ``codes`` and ``sketch`` (their cells).
        modalities: What the site takes part with.
        key: Says what the statistics are of.
        read: Reads them.

    Raises:
        ProtocolError: The order names no step (HF-402).
    """
    if order["step"] not in _STEPS:
        raise ProtocolError(
            402,
            where="statistics message",
            seen="a step that this site does not know",
            wanted="one of " + ", ".join(_STEPS),
        )
    if key not in _read:
        _read.clear()
        _read[key] = SiteStatistics.from_arrays(read())
    salt = int(str(order["salt"]))
    if order["step"] == "marks":
        return dict(marks(_read[key], salt))
    layout = StatisticsLayout.of(int(str(order["codes"])), int(str(order["sketch"])), salt)
    return dict(layout.encode(_read[key], modalities))
