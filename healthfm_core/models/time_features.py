"""Time at the input."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch


class TimeFeatures(nn.Module):
    """Time at the input: since the row's first event, since the last one, and age.

    Everything is counted from the past. The design names days to the last event instead; in a row
    with several SEPs that would tell an early visit how much record is still to come.
    """

    PERIODS_DAYS = (0.25, 1.0, 7.0, 30.0, 365.25, 3652.5)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * len(self.PERIODS_DAYS) + 3, width)

    def forward(self, batch: Batch) -> Float[Tensor, "B T d"]:
        """Return one vector per position, 0 for statics."""
        timed = has_time(batch)
        elapsed = (batch.t_days - first_time(batch)).masked_fill(~timed, 0)
        return self.of(elapsed, batch.gap_days, batch.age_years) * timed.unsqueeze(-1)

    def of(
        self,
        elapsed: Float[Tensor, "B T"],
        gap_days: Float[Tensor, "B T"],
        age_years: Float[Tensor, "B T"],
    ) -> Float[Tensor, "B T d"]:
        """Return the vectors of tokens `elapsed` days after the first one of their row."""
        turns = [elapsed * (2 * math.pi / period) for period in self.PERIODS_DAYS]
        features = torch.stack(
            [f(turn) for turn in turns for f in (torch.sin, torch.cos)]
            + [elapsed.clamp_min(0).log1p(), gap_days.log1p(), age_years / 50],
            dim=-1,
        )
        return self.project(features)


def first_time(batch: Batch) -> Float[Tensor, "B 1"]:
    """Return the time of each row's first token that has one, in the batch's days."""
    return batch.t_days.masked_fill(~has_time(batch), math.inf).amin(1, keepdim=True)


def has_time(batch: Batch) -> Bool[Tensor, "B T"]:
    """Return which positions hold a token with a time: no static, no padding."""
    position = torch.arange(batch.kind.shape[1], device=batch.kind.device)
    return (position[None] >= batch.n_static[:, None]) & (batch.kind > 0)
