"""What the attention takes, in the order that every implementation takes it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from healthfm_core.config.model import AttentionVariant

Variant = AttentionVariant


class Inputs(NamedTuple):
    """The tensors of `ct_attention`, which says what they mean."""

    q_BHQD: Float[Tensor, "B H Q D"]
    k_BHTD: Float[Tensor, "B H T D"]
    v_BHTD: Float[Tensor, "B H T D"]
    tq_days_BQ: Float[Tensor, "B Q"]
    tk_days_BT: Float[Tensor, "B T"]
    kv_end_BQ: Int[Tensor, "B Q"]
    n_static_B: Int[Tensor, " B"]
    rates_BHR: Float[Tensor, "B H R"]
    weights_BHR: Float[Tensor, "B H R"]


def without_decay(x: Inputs) -> Inputs:
    """Return inputs whose ``logbias`` attention is plain: everything at once, one rate of 0."""
    rates = torch.zeros_like(x.rates_BHR[..., :1])
    return x._replace(
        tq_days_BQ=torch.zeros_like(x.tq_days_BQ),
        tk_days_BT=torch.zeros_like(x.tk_days_BT),
        rates_BHR=rates,
        weights_BHR=torch.ones_like(rates),
    )


def empty_output(
    like_BHTD: Float[Tensor, "B H T D"], dtype: torch.dtype | None = None
) -> Float[Tensor, "B H T D"]:
    """Return memory laid out by position, so that joining the heads afterwards copies nothing."""
    b, h, t, d = like_BHTD.shape
    return like_BHTD.new_empty((b, t, h, d), dtype=dtype).transpose(1, 2)
