"""The linear part of a label's logit: a sum over the tokens that a query may see.

A regression on summaries is hard to beat where people are few, and a network has to find it first.
With this sum it is there from the start, and the network learns what is left (the wide part of
Cheng et al. 2016, arXiv 1606.07792). Its weights start at 0.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch


def zero_slopes(rows: int, columns: int) -> nn.Embedding:
    """Return a table of `rows` codes with a slope for each of `columns` numbers, all 0."""
    slopes = nn.Embedding(rows, columns)
    nn.init.zeros_(slopes.weight)
    return slopes


def causal_sum(each_BT: Float[Tensor, "B T"], batch: Batch) -> Float[Tensor, "B Q"]:
    """Return, for each of the batch's queries, the sum over the positions that it may see."""
    before = nn.functional.pad(each_BT.cumsum(1), (1, 0))
    return before.gather(1, batch.kv_end.gather(1, batch.query).long())


def causal_mean(each_BT: Float[Tensor, "B T"], batch: Batch) -> Float[Tensor, "B Q"]:
    """Return, for each of the batch's queries, the mean over the worn positions it may see."""
    worn = (batch.wearable_slot >= 0).to(each_BT.dtype)
    return causal_sum(each_BT * worn, batch) / causal_sum(worn, batch).clamp_min(1)
