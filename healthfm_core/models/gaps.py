"""Time from one event to the next, in bins: what the generative head is asked, and draws from."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

GAP_EDGES_DAYS: Final = (
    *(0.0, 1 / 24, 0.25, 1.0, 3.0, 7.0, 14.0, 30.0),
    *(60.0, 90.0, 180.0, 365.0, 730.0, 1825.0),
)
"""Upper ends; the first bin is 0 days, the same moment, and one more lies above the last."""

LONGEST_DAYS: Final = 3650.0
"""Upper end of the last bin when a gap is drawn from it."""

GAP_BINS: Final = len(GAP_EDGES_DAYS) + 1


def gap_bin(gap_days: Tensor) -> Tensor:
    """Return the bin of each gap in days, int64."""
    return torch.bucketize(gap_days, gap_days.new_tensor(GAP_EDGES_DAYS))


def gap_in(bin_: Tensor, uniform: Tensor) -> Tensor:
    """Return gaps in days drawn evenly inside their bins.

    Args:
        bin_: int64 bins.
        uniform: Draws from [0, 1) of the same shape.
    """
    ends = uniform.new_tensor((*GAP_EDGES_DAYS, LONGEST_DAYS))
    low = ends[(bin_ - 1).clamp_min(0)]
    return low + uniform * (ends[bin_] - low)
