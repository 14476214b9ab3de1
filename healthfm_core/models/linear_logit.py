"""The linear part of a label's logit: a sum over the tokens that a query may see.

A regression on summaries is hard to beat where people are few, and a network has to find it first.
With this sum it is there from the start, and the network learns what is left (the wide part of
Cheng et al. 2016, arXiv 1606.07792). Its weights start at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch


@dataclass(frozen=True)
class LinearInputs:
    """What of a code the linear part has weights for.

    Attributes:
        knots: Where the line of a number may bend.
        hours: Each code's numbers are those of so many last hours as of one bin; None: those of
            each token, which are added up.
    """

    knots: tuple[float, ...] = ()
    hours: float | None = None

    def columns(self, spread: int) -> int:
        """Return how many weights a code has, where its tokens tell `spread` further numbers."""
        straight = 2 + spread if self.hours is None else 1 + spread
        return straight + len(self.knots) * spread


def zero_slopes(rows: int, columns: int) -> nn.Embedding:
    """Return a table of `rows` codes with a slope for each of `columns` numbers, all 0."""
    slopes = nn.Embedding(rows, columns)
    nn.init.zeros_(slopes.weight)
    return slopes


def with_hinges(
    numbers: Float[Tensor, "*rows n"], there: Float[Tensor, "*rows 1"], knots: Sequence[float]
) -> Float[Tensor, "*rows m"]:
    """Return the numbers, then for each knot how far each of them lies beyond it, outwards from 0.

    With a weight for each, what is learned of a number is a line that may bend at the knots.

    Args:
        numbers: Of tokens, n each.
        there: 1 where there is a token, else 0: then all is 0.
        knots: Where lines may bend; m is n · (1 + knots).
    """
    beyond = [(numbers - k if k >= 0 else k - numbers).clamp_min(0.0) * there for k in knots]
    return torch.cat([numbers, *beyond], dim=-1)


def causal_sum(each_BT: Float[Tensor, "B T"], batch: Batch) -> Float[Tensor, "B Q"]:
    """Return, for each of the batch's queries, the sum over the positions that it may see."""
    before = nn.functional.pad(each_BT.cumsum(1), (1, 0))
    return before.gather(1, batch.kv_end.gather(1, batch.query).long())


def causal_mean(each_BT: Float[Tensor, "B T"], batch: Batch) -> Float[Tensor, "B Q"]:
    """Return, for each of the batch's queries, the mean over the worn positions it may see."""
    worn = (batch.wearable_slot >= 0).to(each_BT.dtype)
    return causal_sum(each_BT * worn, batch) / causal_sum(worn, batch).clamp_min(1)
