"""The same attention with a hand-written backward, in tiles that stay in the cache.

A tile is a few subjects by a block of queries by the keys any of them sees, so nothing is
computed for the invisible upper half and no [B, H, T, T] buffer exists. Memory is O(B·H·T).
Backward, with E0 = e^(s − λ0Δ − LSE), K̃ = Σ_r w_r c_r, c_r = e^(−(λ_r − λ0)Δ), P = E0∘K̃,
D = rowsum(dO∘O): G = E0∘(dP − D), dS = G∘K̃, dw_r = Σ G c_r, dλ_r = −w_r Σ G c_r Δ. No division.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE_FLOATS = 1 << 18
"""Most elements of a tile's [subjects, H, queries, keys] buffers: about 1 MB in float32."""
BLOCK_QUERIES = 64


class CTAttention(torch.autograd.Function):
    """``logbias`` attention; use it through `healthfm_core.kernels.ct_attention.ct_attention`."""

    @staticmethod
    def forward(
        q_BHQD: Float[Tensor, "B H Q D"],
        k_BHTD: Float[Tensor, "B H T D"],
        v_BHTD: Float[Tensor, "B H T D"],
        tq_days_BQ: Float[Tensor, "B Q"],
        tk_days_BT: Float[Tensor, "B T"],
        kv_end_BQ: Int[Tensor, "B Q"],
        n_static_B: Int[Tensor, " B"],
        rates_BHR: Float[Tensor, "B H R"],
        weights_BHR: Float[Tensor, "B H R"],
    ) -> tuple[Float[Tensor, "B H Q D"], Float[Tensor, "B H Q"]]:
        """Return the output and, for the backward pass, each query's logsumexp."""
        out = torch.empty_like(q_BHQD)
        lse = q_BHQD.new_empty(q_BHQD.shape[:3])
        lowest = torch.finfo(q_BHQD.dtype).min
        for b, i, j in _tiles(q_BHQD, k_BHTD, kv_end_BQ):
            delta, unseen = _gaps(tq_days_BQ, tk_days_BT, kv_end_BQ, n_static_B, b, i, j)
            logits = _logits(q_BHQD[b, :, i], k_BHTD[b, :, j], delta, rates_BHR[b])
            logits.masked_fill_(unseen, lowest)
            peak = logits.amax(-1, keepdim=True)
            weights = logits.sub_(peak).exp_().masked_fill_(unseen, 0)
            weights.mul_(sum(_weighted(delta, rates_BHR[b], weights_BHR[b])))
            total = weights.sum(-1, keepdim=True).clamp_min_(torch.finfo(logits.dtype).tiny)
            out[b, :, i] = (weights @ v_BHTD[b, :, j]).div_(total)
            lse[b, :, i] = (peak + total.log()).squeeze(-1)
        return out, lse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the inputs, the output and the logsumexp."""
        ctx.save_for_backward(*inputs, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v, rates and weights, the last two per subject."""
        q, k, v, t_q, t_k, kv_end, n_static, rates, weights, out, lse = ctx.saved_tensors
        scale = 1 / math.sqrt(q.shape[-1])
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        d_rates, d_weights = torch.zeros_like(rates), torch.zeros_like(weights)
        row_BHQ = (d_out * out).sum(-1)
        for b, i, j in _tiles(q, k, kv_end):
            delta, unseen = _gaps(t_q, t_k, kv_end, n_static, b, i, j)
            e0 = _logits(q[b, :, i], k[b, :, j], delta, rates[b])
            e0 = e0.sub_(lse[b, :, i, None]).masked_fill_(unseen, -math.inf).exp_()
            parts = _components(delta, rates[b])
            kernel = sum(part * weights[b, :, r, None, None] for r, part in enumerate(parts))
            dv[b, :, j] += (e0 * kernel).transpose(-1, -2) @ d_out[b, :, i]
            dp = d_out[b, :, i] @ v[b, :, j].transpose(-1, -2)
            g = dp.sub_(row_BHQ[b, :, i, None]).mul_(e0)
            for r, part in enumerate(parts):
                part.mul_(g)
                d_weights[b, :, r] += part.sum((-1, -2))
                d_rates[b, :, r] -= weights[b, :, r] * part.mul_(delta).sum((-1, -2))
            ds = g.mul_(kernel)
            dq[b, :, i] = (ds @ k[b, :, j]).mul_(scale)
            dk[b, :, j] += (ds.transpose(-1, -2) @ q[b, :, i]).mul_(scale)
        return dq, dk, dv, None, None, None, None, d_rates, d_weights

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Any, Any]:
        """Fold the mapped dimension into the subjects: rows never meet, so they are one batch."""
        size: int = info.batch_size
        flat = [
            (arg.movedim(dim, 0) if dim is not None else arg.expand(size, *arg.shape)).flatten(0, 1)
            for arg, dim in zip(args, in_dims, strict=True)
        ]
        out, lse = CTAttention.apply(*flat)  # type: ignore[no-untyped-call]
        return (out.unflatten(0, (size, -1)), lse.unflatten(0, (size, -1))), (0, 0)


def _tiles(
    q_BHQD: Tensor, k_BHTD: Tensor, kv_end_BQ: Tensor
) -> Iterator[tuple[slice, slice, slice]]:
    """Yield slices of subjects, queries and the keys those queries see."""
    b, h, n_queries, _ = q_BHQD.shape
    block = min(n_queries, BLOCK_QUERIES)
    subjects = max(1, TILE_FLOATS // (h * block * k_BHTD.shape[2]))
    starts = range(0, n_queries, block)
    reach = [kv_end_BQ[:, start : start + block].amax(1) for start in starts]
    for first in range(0, b, subjects):
        rows = slice(first, first + subjects)
        for start, reach_B in zip(starts, reach, strict=True):
            keys = max(1, int(reach_B[rows].max()))
            yield rows, slice(start, start + block), slice(0, keys)


def _gaps(
    tq_days_BQ: Tensor,
    tk_days_BT: Tensor,
    kv_end_BQ: Tensor,
    n_static_B: Tensor,
    b: slice,
    i: slice,
    j: slice,
) -> tuple[Tensor, Tensor]:
    """Return Δ and which keys are not seen, both [b, 1, i, j]."""
    position = torch.arange(j.stop, device=tk_days_BT.device)
    delta = (tq_days_BQ[b, i, None] - tk_days_BT[b, None, j]).abs_()
    delta.masked_fill_((position < n_static_B[b, None])[:, None, :], 0)
    unseen = position >= kv_end_BQ[b, i, None]
    return delta[:, None], unseen[:, None]


def _logits(q: Tensor, k: Tensor, delta: Tensor, rates: Tensor) -> Tensor:
    """Return q·k/√D − λ0 Δ with λ0 = min_r λ_r, which cannot underflow."""
    logits = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-1, -2)
    return logits.addcmul_(rates.amin(-1)[..., None, None], delta, value=-1)


def _components(delta: Tensor, rates: Tensor) -> list[Tensor]:
    """Return c_r = e^(−(λ_r − λ0)Δ) in [0, 1] for each component; the slowest one's is 1."""
    excess = rates.amin(-1, keepdim=True) - rates
    return [torch.exp(excess[..., r, None, None] * delta) for r in range(rates.shape[-1])]


def _weighted(delta: Tensor, rates: Tensor, weights: Tensor) -> list[Tensor]:
    """Return w_r c_r for each component."""
    parts = _components(delta, rates)
    return [part.mul_(weights[..., r, None, None]) for r, part in enumerate(parts)]
