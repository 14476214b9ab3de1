"""The decay between the queries and the keys of a tile, by factors or pair by pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from healthfm_core.kernels.ct_attention.cpu.cuts import Run, Tile
from healthfm_core.kernels.ct_attention.inputs import Inputs, Variant

LOG2_E: Final = math.log2(math.e)


class Scratch:
    """Memory that all tiles of a pass use again, one after the other."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.held: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a tensor over the memory of this name, which holds anything."""
        size = math.prod(shape)
        if name not in self.held or self.held[name].numel() < size:
            self.held[name] = self.like.new_empty(size)
        return self.held[name][:size].view(shape)

    def product(self, name: str, left: Tensor, right: Tensor) -> Tensor:
        """Return left · right over [b, H, i, c] and [b, H, c, j] in the memory of this name."""
        out = self.take(name, *left.shape[:-1], right.shape[-1])
        torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out=out.flatten(0, 1))
        return out


@dataclass(frozen=True)
class Rows:
    """What all tiles of a pass share; G = B·H.

    Attributes:
        variant: As in `ct_attention`.
        q, k, v: [B, H, positions, D]
        slowest: [B, H, 1, 1] λ0 to the base 2 (0 where the variant wants the kernel whole).
        rate: [B, H, R, 1] −(λ_r − λ0) to the base 2.
        weights: [B, H, R] w.
        scratch: Where what belongs to a tile goes.
    """

    variant: Variant
    q: Tensor
    k: Tensor
    v: Tensor
    slowest: Tensor
    rate: Tensor
    weights: Tensor
    scratch: Scratch

    @classmethod
    def of(cls, x: Inputs, variant: Variant) -> Rows:
        """Lay out the inputs of a pass."""
        slowest = x.rates_BHR.amin(-1, keepdim=True) * (LOG2_E * (variant == "logbias"))
        rate = (slowest - x.rates_BHR * LOG2_E).unsqueeze(-1)
        k, v = x.k_BHTD.contiguous(), x.v_BHTD.contiguous()
        slowest, scratch = slowest.unsqueeze(-1), Scratch(x.q_BHQD)
        return cls(variant, x.q_BHQD, k, v, slowest, rate, x.weights_BHR, scratch)

    def queries(self, tile: Tile) -> Tensor:
        """Return a tile's queries such that their products with keys are logits to the base 2."""
        own = self.q[tile.b, :, tile.i]
        memory = self.scratch.take("queries", *own.shape)
        return torch.mul(own, LOG2_E / math.sqrt(own.shape[-1]), out=memory)

    def logits(self, tile: Tile) -> Tensor:
        """Return the logits of a tile to the base 2, [b, H, i, j]."""
        keys = self.k[tile.b, :, tile.j].transpose(-1, -2)
        return self.scratch.product("logits", self.queries(tile), keys)


@dataclass(frozen=True)
class _Factors:
    """Decay of a run whose keys lie on one side: c_r = U_ir V_jr.

    Attributes:
        keys: The run, counted from the tile's first key.
        a: [b, 1, i, 1] days from the run's reference time to each query.
        b: [b, 1, 1, j] days from each key to the reference time.
        further: [b, 1, i, 1] days from it to the nearest key, for queries that have one nearer.
        u: [b, H, i, R] without w.
        v: [b, H, R, j], 0 for static keys.
        static: [b, 1, 1, s] 1 where one of the first s keys has no time.
        scratch: Where what is summed up at once goes.
    """

    keys: slice
    a: Tensor
    b: Tensor
    further: Tensor
    u: Tensor
    v: Tensor
    static: Tensor
    scratch: Scratch

    def write(self, kernel: Tensor, weights: Tensor) -> None:
        """Write K̃ of the run into the tile's [b, H, i, j]."""
        left = (self.u * weights.unsqueeze(-2)).flatten(0, 1)
        torch.bmm(left, self.v.flatten(0, 1), out=kernel.flatten(0, 1)[..., self.keys])
        if held := self.static.shape[-1]:
            kernel[..., :held] += self.static * weights.sum(-1)[..., None, None]

    def take_off(self, logits: Tensor, slowest: Tensor, lse: Tensor | float) -> None:
        """Take λ0 times the days beyond the nearest key's, and LSE, off the run's logits."""
        query, key = self.further * slowest, self.b * slowest
        held = self.static.shape[-1]
        if held:
            decay = (query + key[..., :held]) * (1 - self.static)
            logits[..., :held].sub_(decay + lse)
        logits[..., self.keys][..., held:].sub_(query + lse).sub_(key[..., held:])

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ G c_r and Σ G c_r Δ, [b, H, R] each, for G [b, H, i, j]."""
        left = torch.cat([self.u, self.u * self.a], -1).transpose(-1, -2)
        plain, timed = self.scratch.product("factors", left, grad[..., self.keys]).chunk(2, 2)
        d_weight = plain.mul_(self.v).sum(-1)
        d_rate = timed.mul_(self.v).addcmul_(plain, self.b).sum(-1)
        if held := self.static.shape[-1]:
            d_weight += (grad[..., :held] * self.static).sum((-1, -2)).unsqueeze(-1)
        return d_weight, d_rate


@dataclass(frozen=True)
class _Exact:
    """Decay of a run pair by pair.

    Attributes:
        keys: The run, counted from the tile's first key.
        masked: [b, 1, i, e] next to −∞ where a query does not see a key, else 0.
        further: [b, 1, i, e] days beyond the nearest key's.
        delta: [b, 1, i, e] Δ in days.
        components: [b, H, R, i·e] c_r = e^(−(λ_r − λ0)Δ), in [0, 1].
        scratch: Where what is summed up at once goes.
    """

    keys: slice
    masked: Tensor
    further: Tensor
    delta: Tensor
    components: Tensor
    scratch: Scratch

    def write(self, kernel: Tensor, weights: Tensor) -> None:
        """Write K̃ of the run into the tile's [b, H, i, j]."""
        own = kernel[..., self.keys]
        mixed = self.scratch.product("mixed", weights.unsqueeze(-2), self.components)
        own.copy_(mixed.view(own.shape))

    def take_off(self, logits: Tensor, slowest: Tensor, lse: Tensor | float) -> None:
        """Take λ0 times the days beyond the nearest key's, and LSE, off the run's logits."""
        own = logits[..., self.keys]
        own.sub_(lse).addcmul_(self.further, slowest, value=-1).add_(self.masked)

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ G c_r and Σ G c_r Δ, [b, H, R] each, for G [b, H, i, j]."""
        own = grad[..., self.keys]
        both = self.scratch.take("both", *own.shape[:2], 2, *own.shape[2:])
        both[:, :, 0].copy_(own)
        torch.mul(own, self.delta, out=both[:, :, 1])
        components = self.components.transpose(-1, -2)
        plain, timed = (both.flatten(-2) @ components).unbind(2)
        return plain, timed


@dataclass(frozen=True)
class Decay:
    """All decays of a tile.

    Attributes:
        kernel: [b, H, i, j] K̃; anything where a query does not see a key.
        slowest: [b, H, 1, 1] λ0 to the base 2.
        parts: One for each run.
    """

    kernel: Tensor
    slowest: Tensor
    parts: tuple[_Factors | _Exact, ...]

    @classmethod
    def of(cls, tile: Tile, rows: Rows) -> Decay:
        """Find the decays of the tile's runs."""
        slowest, weights = rows.slowest[tile.b], rows.weights[tile.b]
        shape = (*slowest.shape[:2], tile.tq.shape[1], tile.j.stop)
        kernel = rows.scratch.take("kernel", *shape)
        parts = tuple(
            (_exact if run.side == "exact" else _factors)(tile, run, f"decay {place}", rows)
            for place, run in enumerate(tile.runs)
        )
        for part in parts:
            part.write(kernel, weights)
        return cls(kernel, slowest, parts)

    def take_off(self, logits: Tensor, lse: Tensor | float = 0.0) -> Tensor:
        """Take the decay that K̃ leaves out, and LSE, off a tile's logits, in place."""
        for part in self.parts:
            part.take_off(logits, self.slowest, lse)
        return logits

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ G c_r and Σ G c_r Δ, [b, H, R] each, for G [b, H, i, j]."""
        d_weight, d_rate = self.parts[0].gradients(grad)
        for part in self.parts[1:]:
            more = part.gradients(grad)
            d_weight, d_rate = d_weight + more[0], d_rate + more[1]
        return d_weight, d_rate


def _factors(tile: Tile, run: Run, name: str, rows: Rows) -> _Factors:
    j = run.keys
    past = run.side == "past"
    sign, nearest = (1, tile.past) if past else (-1, tile.future)
    held = min(tile.statics, j.stop) if past else 0
    static = tile.static[:, :held]
    t = tile.tk[:, j] * sign
    if held:
        t[:, :held].masked_fill_(static, -math.inf)
    edge = t.amax(1, keepdim=True)
    if held:
        edge = torch.where(edge.isinf(), (tile.tq * sign).amin(1, keepdim=True), edge)
    a, b, further = tile.tq * sign - edge, edge - t, (nearest * sign - edge).clamp_min_(0)
    if held:
        b[:, :held].masked_fill_(static, 0)
    a, b, further = a[:, None, :, None], b[:, None, None], further[:, None, :, None]
    rate, static = rows.rate[tile.b], static[:, None, None]
    memory = rows.scratch.take(name, *rate.shape[:3], b.shape[-1])
    u, v = torch.exp2(a * rate.transpose(-1, -2)), torch.mul(b, rate, out=memory).exp2_()
    if held:
        v[..., :held].masked_fill_(static, 0)
    return _Factors(j, a, b, further, u, v, static.to(v.dtype), rows.scratch)


def _exact(tile: Tile, run: Run, name: str, rows: Rows) -> _Exact:
    j = run.keys
    tq, tk = tile.tq[:, :, None], tile.tk[:, None, j]
    delta = tq - tk
    further = torch.where(delta >= 0, tile.past[:, :, None] - tk, tk - tile.future[:, :, None])
    further.clamp_min_(0)
    delta.abs_()
    if tile.statics > j.start:
        static = tile.static[:, None, j]
        further.masked_fill_(static, 0)
        delta.masked_fill_(static, 0)
    position = torch.arange(j.start, j.stop, device=tq.device)
    lowest = torch.finfo(tq.dtype).min / 4
    masked = (position >= tile.sees[:, :, None]).to(tq.dtype).mul_(lowest)
    delta, further, masked = delta[:, None], further[:, None], masked[:, None]
    days, rate = delta.flatten(-2).unsqueeze(-2), rows.rate[tile.b]
    components = rows.scratch.take(name, *rate.shape[:3], days.shape[-1])
    torch.mul(days, rate, out=components).exp2_()
    return _Exact(j, masked, further, delta, components, rows.scratch)
