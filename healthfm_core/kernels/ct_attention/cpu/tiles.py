"""The attention in tiles that stay in the cache, in PyTorch alone: what runs without a compiler.

A tile is a few subjects by a block of queries by the keys they see; memory is O(B·H·T). The algebra
is in the README of `healthfm_core.kernels.ct_attention`; the names here are the ones it uses.

Where keys are earlier than every query of the tile (or later) the decay factorises: K̃ is one
product of rank R, and what is taken off the logits is a term per query and one per key. Other pairs
(near the diagonal, or where times are not sorted) take R exponentials each. Memory for the pairs is
taken once and used by every tile: to fetch new memory takes as long as a product.

Exponentials are taken to the base 2: what MKL offers for base e is 20 to 60 times slower where the
result underflows, which most of these do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from healthfm_core.kernels.ct_attention.cpu.cuts import Tile, tiles
from healthfm_core.kernels.ct_attention.cpu.tile_decay import LOG2_E, Decay, Rows
from healthfm_core.kernels.ct_attention.inputs import Inputs, Variant, empty_output


def forward(
    inputs: Inputs, variant: Variant = "logbias"
) -> tuple[Float[Tensor, "B H Q D"], Float[Tensor, "B H Q"]]:
    """Return the output and the logsumexp that `backward` wants (`ops.attend` defines it)."""
    x = _widened(inputs)
    out, lse = empty_output(x.q_BHQD), x.q_BHQD.new_empty(x.q_BHQD.shape[:3])
    rows = Rows.of(x, variant)
    limits = torch.finfo(out.dtype)
    for tile in tiles(x):
        b, i, j = tile.b, tile.i, tile.j
        if not tile.runs:
            out[b, :, i], lse[b, :, i] = 0, limits.max
            continue
        decay = Decay.of(tile, rows)
        logits = rows.logits(tile)
        if variant == "logitmul":
            logits.mul_(decay.kernel)
        peak = decay.take_off(logits).amax(-1, keepdim=True).clamp_min_(limits.min / 8)
        weight, mass = _weights(variant, logits.sub_(peak), decay.kernel)
        sums = rows.scratch.product("output", weight, rows.v[b, :, j])
        torch.div(sums, mass.clamp_min_(limits.tiny), out=out[b, :, i])
        lse[b, :, i] = peak.div_(LOG2_E).add_(mass.log_()).squeeze(-1)
    return out.to(inputs.q_BHQD.dtype), lse


def _weights(variant: Variant, logits: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Return, in the memory of `logits`, what multiplies the values, and its denominator."""
    weight = logits.exp2_()
    if variant == "logitmul":
        return weight, weight.sum(-1, keepdim=True)
    if variant == "postmul":
        mass = weight.sum(-1, keepdim=True)
        return weight.mul_(kernel), mass
    weight.mul_(kernel)
    return weight, weight.sum(-1, keepdim=True)


def backward(
    d_out: Float[Tensor, "B H Q D"],
    inputs: Inputs,
    out: Float[Tensor, "B H Q D"],
    lse: Float[Tensor, "B H Q"],
    variant: Variant = "logbias",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return dq, dk, dv and, per subject, dλ and dw."""
    x = _widened(inputs)
    rows, outer = Rows.of(x, variant), _Outer.of(d_out.to(lse.dtype), out.to(lse.dtype), lse)
    dq, dk, dv = (empty_output(part) for part in (x.q_BHQD, x.k_BHTD, x.v_BHTD))
    for total in (dk, dv):
        total.zero_()
    d_rates, d_weights = (part.new_zeros(part.shape) for part in (x.rates_BHR, x.weights_BHR))
    scale = 1 / math.sqrt(dq.shape[-1])
    for tile in tiles(x):
        b, i, j = tile.b, tile.i, tile.j
        if not tile.runs:
            dq[b, :, i] = 0
            continue
        weight, d_logits, d_weight, d_rate = outer.differentiate(tile, rows)
        d_weights[b] += d_weight
        d_rates[b] -= x.weights_BHR[b] * d_rate
        _add_product(dv[b, :, j], weight, outer.d_out[b, :, i])
        _add_product(dk[b, :, j], d_logits, rows.queries(tile))
        d_queries = rows.scratch.product("output", d_logits, rows.k[b, :, j])
        torch.mul(d_queries, scale, out=dq[b, :, i])
    dk.div_(LOG2_E)
    dtype = inputs.q_BHQD.dtype
    return dq.to(dtype), dk.to(dtype), dv.to(dtype), d_rates, d_weights


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add leftᵀ · right over [b, H, i, j] and [b, H, i, c] to `total`."""
    for own, one, other in zip(total, left.transpose(-1, -2), right, strict=True):
        own.baddbmm_(one, other)


def _widened(x: Inputs) -> Inputs:
    """Return `x` with half-precision queries, keys and values in float32."""
    if x.q_BHQD.dtype in (torch.float32, torch.float64):
        return x
    return x._replace(q_BHQD=x.q_BHQD.float(), k_BHTD=x.k_BHTD.float(), v_BHTD=x.v_BHTD.float())


@dataclass(frozen=True)
class _Outer:
    """What the backward pass knows of its queries; the mathematics is in the folder's README.

    Attributes:
        d_out: [B, H, Q, D] dO.
        inner: [B, H, Q, 1] D.
        lse: [B, H, Q, 1] to the base 2.
    """

    d_out: Tensor
    inner: Tensor
    lse: Tensor

    @classmethod
    def of(cls, d_out: Tensor, out: Tensor, lse: Tensor) -> _Outer:
        """Lay out what came from the forward pass and from above."""
        inner = (d_out * out).sum(-1, keepdim=True)
        return cls(d_out.contiguous(), inner, lse.unsqueeze(-1) * LOG2_E)

    def differentiate(self, tile: Tile, rows: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return P and dS, [b, H, i, j], and Σ G c_r and Σ G c_r Δ, [b, H, R]."""
        b, i = tile.b, tile.i
        inner, lse = self.inner[b, :, i], self.lse[b, :, i]
        decay = Decay.of(tile, rows)
        logits = rows.logits(tile)
        values = rows.v[b, :, tile.j].transpose(-1, -2)
        grad = rows.scratch.product("gradient", self.d_out[b, :, i], values)
        if rows.variant == "logitmul":
            memory = rows.scratch.take("shifted", *grad.shape)
            weight = decay.take_off(torch.mul(logits, decay.kernel, out=memory), lse).exp2_()
            grad.sub_(inner).mul_(weight)
            plain, timed = decay.gradients(logits.mul_(grad))
            return weight, grad.mul_(decay.kernel), plain / LOG2_E, timed / LOG2_E
        weight = decay.take_off(logits, lse).exp2_()
        if rows.variant == "postmul":
            sums = decay.gradients(grad.mul_(weight))
            grad.mul_(decay.kernel).addcmul_(weight, inner, value=-1)
        else:
            sums = decay.gradients(grad.sub_(inner).mul_(weight))
            grad.mul_(decay.kernel)
        return weight.mul_(decay.kernel), grad, *sums
