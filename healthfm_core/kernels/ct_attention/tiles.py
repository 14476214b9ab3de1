"""The same attention with a hand-written backward, in tiles that stay in the cache.

A tile is a few subjects by a block of queries by a run of keys. Nothing is computed for keys that
no query of the block sees, and no [B, H, T, T] buffer exists: memory is O(B·H·T).

With λ0 = min_r λ_r the probabilities are P = e^(s − λ0Δ − LSE) ∘ K̃, K̃ = Σ_r w_r e^(−(λ_r − λ0)Δ).
λ0Δ stays in the logits, where it cannot underflow. Where every key of a tile is earlier than every
query, Δ = a_i + b_j with a, b ≥ 0 around a time between them, and K̃ is a product of rank R:
K̃ = U Vᵀ, U = w_r e^(−(λ_r − λ0) a_i), V = e^(−(λ_r − λ0) b_j), factors in [0, 1]. Elsewhere (next
to the diagonal, or where times are not sorted) every pair takes its own exponentials.

Backward, D = rowsum(dO∘O): G = e^(s − λ0Δ − LSE)∘(dO Vᵀ − D), dS = G∘K̃, and with c_r the r-th
exponential dw_r = Σ G c_r, dλ_r = −w_r Σ G c_r Δ. Nothing is divided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TILE_FLOATS = 1 << 18
"""Most elements of a tile's [subjects, H, queries, keys] buffers: about 1 MB in float32."""
BLOCK_QUERIES = 16


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
        q_BHQD = q_BHQD * (1 / math.sqrt(q_BHQD.shape[-1]))
        for b, i, j, split in _tiles(q_BHQD, k_BHTD, kv_end_BQ, tq_days_BQ, tk_days_BT, n_static_B):
            gap = _gap(tq_days_BQ, tk_days_BT, n_static_B, b, i, j, split)
            decay = _decay(gap, rates_BHR[b], weights_BHR[b])
            logits = q_BHQD[b, :, i] @ k_BHTD[b, :, j].transpose(-1, -2)
            unseen = _unseen(kv_end_BQ, b, i, j)
            logits = logits.sub_(decay.slow).masked_fill_(unseen, torch.finfo(logits.dtype).min)
            peak = logits.amax(-1, keepdim=True)
            weights = logits.sub_(peak).exp_().mul_(decay.kernel).masked_fill_(unseen, 0)
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
        dq, dk, dv, d_rates, d_weights = _Backward.apply(d_out, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return dq, dk, dv, None, None, None, None, d_rates, d_weights

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Any, Any]:
        """Fold the mapped dimension into the subjects: rows never meet, so they are one batch."""
        return _folded(CTAttention, info, in_dims, args)


class _Backward(torch.autograd.Function):
    """The backward pass as an operation of its own, so that it too can be mapped."""

    @staticmethod
    def forward(
        d_out: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        t_q: Tensor,
        t_k: Tensor,
        kv_end: Tensor,
        n_static: Tensor,
        rates: Tensor,
        weights: Tensor,
        out: Tensor,
        lse: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return dq, dk, dv, dλ and dw."""
        scale = 1 / math.sqrt(q.shape[-1])
        q = q * scale
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        d_rates, d_weights = torch.zeros_like(rates), torch.zeros_like(weights)
        row_BHQ = (d_out * out).sum(-1)
        for b, i, j, split in _tiles(q, k, kv_end, t_q, t_k, n_static):
            gap = _gap(t_q, t_k, n_static, b, i, j, split)
            decay = _decay(gap, rates[b], weights[b])
            e0 = (q[b, :, i] @ k[b, :, j].transpose(-1, -2)).sub_(decay.slow)
            e0.sub_(lse[b, :, i, None]).masked_fill_(_unseen(kv_end, b, i, j), -math.inf).exp_()
            dv[b, :, j] += (e0 * decay.kernel).transpose(-1, -2) @ d_out[b, :, i]
            dp = d_out[b, :, i] @ v[b, :, j].transpose(-1, -2)
            g = dp.sub_(row_BHQ[b, :, i, None]).mul_(e0)
            dw, dl = _decay_gradients(g, gap, rates[b], weights[b])
            d_weights[b] += dw
            d_rates[b] += dl
            ds = g.mul_(decay.kernel)
            dq[b, :, i] = (ds @ k[b, :, j]).mul_(scale)
            dk[b, :, j] += ds.transpose(-1, -2) @ q[b, :, i]
        return dq, dk, dv, d_rates, d_weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing: the attention is differentiated once."""

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        """Refuse: use `reference` where second derivatives are wanted."""
        raise RuntimeError("the tiled attention has no second derivative; use the reference")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Any, Any]:
        """Fold the mapped dimension into the subjects."""
        return _folded(_Backward, info, in_dims, args)


def _folded(
    function: type[torch.autograd.Function],
    info: Any,
    in_dims: tuple[int | None, ...],
    args: tuple[Tensor, ...],
) -> tuple[Any, Any]:
    size: int = info.batch_size
    flat = [
        (arg.movedim(dim, 0) if dim is not None else arg.expand(size, *arg.shape)).flatten(0, 1)
        for arg, dim in zip(args, in_dims, strict=True)
    ]
    parts = function.apply(*flat)  # type: ignore[no-untyped-call]
    return tuple(part.unflatten(0, (size, -1)) for part in parts), (0,) * len(parts)


@dataclass(frozen=True)
class _Gap:
    """Times between the queries and keys of a tile: factorised left of `split`, exact from there.

    Attributes:
        a: [b, 1, i, 1] days from the reference time to each query.
        b: [b, 1, 1, split] days from each earlier key to the reference time.
        static: [b, 1, 1, split] which of those keys have no time.
        exact: [b, 1, i, keys - split] Δ of the other pairs.
    """

    a: Tensor
    b: Tensor
    static: Tensor
    exact: Tensor


@dataclass(frozen=True)
class _Decay:
    """λ0 Δ and K̃ of a tile, both [b, H, i, keys]."""

    slow: Tensor
    kernel: Tensor


def _tiles(
    q_BHQD: Tensor,
    k_BHTD: Tensor,
    kv_end_BQ: Tensor,
    tq_days_BQ: Tensor,
    tk_days_BT: Tensor,
    n_static_B: Tensor,
) -> Iterator[tuple[slice, slice, slice, int]]:
    """Yield slices of subjects, queries and keys, and how many keys can be factorised."""
    b, h, n_queries, _ = q_BHQD.shape
    block = min(n_queries, BLOCK_QUERIES)
    subjects = max(1, TILE_FLOATS // (h * block * k_BHTD.shape[2]))
    starts = range(0, n_queries, block)
    queries = [slice(start, start + block) for start in starts]
    reach = torch.stack([kv_end_BQ[:, i].amax(1) for i in queries], 1)
    earliest = torch.stack([tq_days_BQ[:, i].amin(1) for i in queries], 1)
    timed = torch.arange(tk_days_BT.shape[1], device=tk_days_BT.device) >= n_static_B[:, None]
    later = (tk_days_BT[:, None, :] > earliest[:, :, None]) & timed[:, None]
    first_later = torch.where(later.any(-1), later.int().argmax(-1), tk_days_BT.shape[1])
    for first in range(0, b, subjects):
        rows = slice(first, first + subjects)
        keys = reach[rows].amax(0).clamp_min(1).tolist()
        factorised = first_later[rows].amin(0).tolist()
        for place, i in enumerate(queries):
            yield rows, i, slice(0, keys[place]), min(factorised[place], keys[place])


def _gap(
    tq_days_BQ: Tensor,
    tk_days_BT: Tensor,
    n_static_B: Tensor,
    b: slice,
    i: slice,
    j: slice,
    split: int,
) -> _Gap:
    """Return the times between the tile's queries and keys."""
    tq, tk = tq_days_BQ[b, i], tk_days_BT[b, j]
    static = torch.arange(j.stop, device=tk.device) < n_static_B[b, None]
    reference = tq.amin(1, keepdim=True)
    exact = (tq[:, :, None] - tk[:, None, split:]).abs_()
    return _Gap(
        (tq - reference)[:, None, :, None],
        (reference - tk[:, :split]).clamp_min_(0)[:, None, None, :],
        static[:, None, None, :split],
        exact.masked_fill_(static[:, None, split:], 0)[:, None],
    )


def _decay(gap: _Gap, rates_BHR: Tensor, weights_BHR: Tensor) -> _Decay:
    """Return λ0 Δ and K̃ = Σ_r w_r e^(−(λ_r − λ0)Δ), which is in [w_slowest, 1]."""
    slowest = rates_BHR.amin(-1)[..., None, None]
    slow = [slowest * gap.exact]
    near = torch.zeros_like(slow[0])
    for r, part in enumerate(_components(gap.exact, rates_BHR)):
        near.addcmul_(part, weights_BHR[..., r, None, None])
    kernel = [near]
    if gap.b.shape[-1]:
        u, v, _ = _factors(gap, rates_BHR)
        slow.insert(0, ((gap.a + gap.b) * slowest).masked_fill_(gap.static, 0))
        product = (u * weights_BHR.unsqueeze(-2)) @ v.transpose(-1, -2)
        total = weights_BHR.sum(-1)[..., None, None]
        kernel.insert(0, torch.where(gap.static, total, product))
    if len(slow) == 1:
        return _Decay(slow[0], kernel[0])
    return _Decay(torch.cat(slow, -1), torch.cat(kernel, -1))


def _components(delta: Tensor, rates_BHR: Tensor) -> list[Tensor]:
    """Return c_r = e^(−(λ_r − λ0)Δ) in [0, 1] for each component; the slowest one's is 1."""
    excess = rates_BHR.amin(-1, keepdim=True) - rates_BHR
    return [torch.exp(excess[..., r, None, None] * delta) for r in range(rates_BHR.shape[-1])]


def _factors(gap: _Gap, rates_BHR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return U [b, H, i, R] and V [b, H, split, R] with c_r = U_ir V_jr, and b·V; 0 for statics."""
    excess = (rates_BHR.amin(-1, keepdim=True) - rates_BHR).unsqueeze(-2)
    days = gap.b.transpose(-1, -2)
    v = torch.exp(excess * days).masked_fill_(gap.static.transpose(-1, -2), 0)
    return torch.exp(excess * gap.a), v, v * days


def _decay_gradients(
    g: Float[Tensor, "b H i j"], gap: _Gap, rates_BHR: Tensor, weights_BHR: Tensor
) -> tuple[Float[Tensor, "b H R"], Float[Tensor, "b H R"]]:
    """Return dw_r = Σ G c_r and dλ_r = −w_r Σ G c_r Δ of a tile, per subject and head."""
    split = gap.b.shape[-1]
    near = g[..., split:]
    dw, dl = [], []
    for part in _components(gap.exact, rates_BHR):
        part.mul_(near)
        dw.append(part.sum((-1, -2)))
        dl.append(part.mul_(gap.exact).sum((-1, -2)))
    d_weights, d_rates = torch.stack(dw, -1), torch.stack(dl, -1)
    if split:
        u, v, bv = _factors(gap, rates_BHR)
        far = g[..., :split]
        a, b = (far @ torch.cat([v, bv], -1)).chunk(2, -1)
        static = far.masked_fill(~gap.static, 0).sum((-1, -2))
        d_weights = d_weights + (u * a).sum(-2) + static.unsqueeze(-1)
        d_rates = d_rates + (u * (gap.a * a + b)).sum(-2)
    return d_weights, -weights_BHR * d_rates


def _unseen(kv_end_BQ: Tensor, b: slice, i: slice, j: slice) -> Bool[Tensor, "b 1 i j"]:
    position = torch.arange(j.stop, device=kv_end_BQ.device)
    return (position >= kv_end_BQ[b, i, None])[:, None]
