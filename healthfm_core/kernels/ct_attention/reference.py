"""The definition: explicit, any float dtype, plain autograd, O(T²) memory times R."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from healthfm_core.kernels.ct_attention.inputs import Variant


def visible(kv_end_BQ: Int[Tensor, "B Q"], n_keys: int) -> Bool[Tensor, "B 1 Q T"]:
    """Return which key each query sees: key j is visible to query i when j < kv_end_i."""
    position_T = torch.arange(n_keys, device=kv_end_BQ.device)
    return (position_T[None, None, :] < kv_end_BQ[:, :, None])[:, None]


def gaps_days(
    tq_days_BQ: Float[Tensor, "B Q"],
    tk_days_BT: Float[Tensor, "B T"],
    n_static_B: Int[Tensor, " B"],
) -> Float[Tensor, "B Q T"]:
    """Return Δ_ij = |t_i − t_j| in days, 0 where key j is one of the row's static tokens."""
    delta = (tq_days_BQ[:, :, None] - tk_days_BT[:, None, :]).abs()
    position_T = torch.arange(tk_days_BT.shape[1], device=tk_days_BT.device)
    return delta * (position_T[None] >= n_static_B[:, None])[:, None]


def log_kernel(
    delta_BQT: Float[Tensor, "B Q T"],
    rates_BHR: Float[Tensor, "B H R"],
    weights_BHR: Float[Tensor, "B H R"],
) -> Float[Tensor, "B H Q T"]:
    """Return log Σ_r w_r e^(−λ_r Δ), which never underflows: it is a logsumexp."""
    terms = weights_BHR.log()[:, :, None, None] - (
        rates_BHR[:, :, None, None] * delta_BQT[:, None, :, :, None]
    )
    return torch.logsumexp(terms, dim=-1)


def ct_attention(
    q_BHQD: Float[Tensor, "B H Q D"],
    k_BHTD: Float[Tensor, "B H T D"],
    v_BHTD: Float[Tensor, "B H T D"],
    tq_days_BQ: Float[Tensor, "B Q"],
    tk_days_BT: Float[Tensor, "B T"],
    kv_end_BQ: Int[Tensor, "B Q"],
    n_static_B: Int[Tensor, " B"],
    rates_BHR: Float[Tensor, "B H R"],
    weights_BHR: Float[Tensor, "B H R"],
    *,
    variant: Variant = "logbias",
) -> Float[Tensor, "B H Q D"]:
    """Attend as `healthfm_core.kernels.ct_attention.ct_attention` says; this is its oracle."""
    seen = visible(kv_end_BQ, k_BHTD.shape[2])
    logits = q_BHQD @ k_BHTD.transpose(-1, -2) / math.sqrt(q_BHQD.shape[-1])
    if variant == "none":
        return _softmax(logits, seen) @ v_BHTD
    log_k = log_kernel(gaps_days(tq_days_BQ, tk_days_BT, n_static_B), rates_BHR, weights_BHR)
    if variant == "logbias":
        return _softmax(logits + log_k, seen) @ v_BHTD
    if variant == "logitmul":
        return _softmax(logits * log_k.exp(), seen) @ v_BHTD
    return (_softmax(logits, seen) * log_k.exp()) @ v_BHTD


def _softmax(
    logits: Float[Tensor, "B H Q T"], seen: Bool[Tensor, "B 1 Q T"]
) -> Float[Tensor, "B H Q T"]:
    """Softmax over the visible keys; a query that sees none gives zeros."""
    lowest = torch.finfo(logits.dtype).min
    peak = logits.masked_fill(~seen, lowest).amax(-1, keepdim=True)
    weights = torch.exp((logits - peak).masked_fill(~seen, -math.inf))
    return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(logits.dtype).tiny)
