"""What each code says in some hours, and a network that reads all of it together.

`CumulativeSumPooling` and attention send every token through a map of its own and then add up: what
one code says in the light of another (a pressure under a vasopressor) is left to be found late.
Here the numbers of all codes stand side by side and go through two layers together, as people read
a chart of the last day. Measured on PhysioNet 2012 in docs/decisions/0042.
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import COUNT_SCALE, SPREAD
from healthfm_core.models.shape import ModelShape

NUMBERS: Final = 1 + len(SPREAD)
"""Numbers of a summary: whether there is anything, then those of `SPREAD`; the count as
log(1 + n)."""

HOURS_PER_DAY: Final = 24.0


def summaries_of(
    code_RT: Int64[Tensor, "R T"],
    spread_RTK: Float[Tensor, "R T K"],
    counted_RT: Bool[Tensor, "R T"],
    codes: int,
) -> Float[Tensor, "R C n"]:
    """Return what the counted tokens of each row say of each code, 0 where they say nothing.

    Tokens of one code are taken together as if all their values were one bin's: the lowest of the
    lowest, the first of the first, means weighted by how many values each is of.

    Args:
        code_RT: The tokens' codes, by time within a row; 0 counts as none.
        spread_RTK: Their numbers (`sequences.SPREAD`).
        counted_RT: Which of them count.
        codes: C.
    """
    if not code_RT.shape[1]:  # nobody of the batch has a token
        return spread_RTK.new_zeros(len(code_RT), codes, NUMBERS)
    mean, lowest, highest, first, last, count = spread_RTK.unbind(-1)
    at = torch.where(counted_RT, code_RT, 0)
    many = torch.expm1(count * COUNT_SCALE) * counted_RT
    shape = (len(at), codes)
    total = mean.new_zeros(shape).scatter_add(1, at, many)
    weighted = mean.new_zeros(shape).scatter_add(1, at, many * mean)
    place = torch.arange(at.shape[1], device=at.device).expand_as(at)
    earliest = _reduced(place, at, codes, "amin")
    latest = _reduced(place, at, codes, "amax")
    there = mean.new_zeros(shape).scatter(1, at, 1.0)
    numbers = (
        torch.ones_like(there),
        weighted / total.clamp_min(1.0),
        _reduced(lowest, at, codes, "amin"),
        _reduced(highest, at, codes, "amax"),
        first.gather(1, earliest),
        last.gather(1, latest),
        total.log1p(),
    )
    there[:, 0] = 0.0
    return torch.stack(numbers, -1) * there.unsqueeze(-1)


def _reduced(x_RT: Tensor, at_RT: Tensor, codes: int, how: str) -> Tensor:
    """Return [R, C] the smallest or largest of each code's numbers, 0 where it has none."""
    return x_RT.new_zeros(len(x_RT), codes).scatter_reduce(1, at_RT, x_RT, how, include_self=False)


def recent_summaries(batch: Batch, codes: int, days: float) -> Float[Tensor, "B Q C n"]:
    """Return what each code says in the last `days` before each query, 0 where it says nothing.

    A token exactly so old is not read; statics have no time and are always read.
    """
    rows, queries, tokens = *batch.query.shape, batch.code.shape[1]
    code = batch.code[:, None].expand(rows, queries, tokens).flatten(0, 1)
    spread = batch.spread[:, None].expand(rows, queries, tokens, -1).flatten(0, 1)
    found = summaries_of(code, spread, recent_tokens(batch, days).flatten(0, 1), codes)
    return found.view(rows, queries, codes, NUMBERS)


def recent_tokens(batch: Batch, days: float) -> Bool[Tensor, "B Q T"]:
    """Return which tokens each query may see that are of the last `days` or have no time."""
    position = torch.arange(batch.code.shape[1], device=batch.code.device)
    age = batch.t_days.gather(1, batch.query).unsqueeze(-1) - batch.t_days[:, None]
    recent = (age < days) | (position < batch.n_static[:, None])[:, None]
    known = position < batch.kv_end.gather(1, batch.query).unsqueeze(-1)
    return recent & known & (batch.code > 0)[:, None]


class SummaryNetwork(nn.Module):
    """Two layers over the summaries of all codes in the last hours before a query.

    What is older than the hours is not read, so that a query in the middle of a stay and one at
    its end are asked alike. Statics have no time and are always read.

    Args:
        codes: C.
        hidden: Width of the first layer.
        width: d.
        hours: How far back it reads; a token exactly so old is not read.
        dropout: After the first layer.
    """

    def __init__(self, codes: int, hidden: int, width: int, hours: float, dropout: float) -> None:
        super().__init__()
        self.codes = codes
        self.days = hours / HOURS_PER_DAY
        self.first = nn.Linear(codes * NUMBERS, hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, width)

    def forward(self, batch: Batch) -> Float[Tensor, "B Q d"]:
        """Return what it adds to the states of the batch's queries."""
        hidden = self.dropout(nn.functional.gelu(self.first(self.summaries(batch))))
        return self.dropout(nn.functional.gelu(self.second(hidden)))

    def summaries(self, batch: Batch) -> Float[Tensor, "B Q Cn"]:
        """Return the numbers that it reads, those of a code side by side."""
        return recent_summaries(batch, self.codes, self.days).flatten(2)

    def read(self, batch: Batch) -> Bool[Tensor, "B Q T"]:
        """Return which tokens each query reads."""
        return recent_tokens(batch, self.days)


def summary_network_for(config: ModelConfig, shape: ModelShape) -> SummaryNetwork | None:
    """Return the network that a configuration asks for; None: it asks for none."""
    if config.summary_hours is None:
        return None
    return SummaryNetwork(
        shape.codes, config.summary_width, config.width, config.summary_hours, config.dropout
    )
