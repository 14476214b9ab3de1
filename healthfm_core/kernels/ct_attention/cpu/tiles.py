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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from healthfm_core.kernels.ct_attention.inputs import Inputs, Variant, empty_output

TILE_FLOATS = 1 << 18
"""Most elements of a tile's [subjects, H, queries, keys] buffers: about 1 MB in float32."""
BLOCK_QUERIES = 64
LOG2_E: Final = math.log2(math.e)
Side = Literal["past", "future", "exact"]


def forward(
    inputs: Inputs, variant: Variant = "logbias"
) -> tuple[Float[Tensor, "B H Q D"], Float[Tensor, "B H Q"]]:
    """Return the output and the logsumexp that `backward` wants (`ops.attend` defines it)."""
    x = _widened(inputs)
    out, lse = empty_output(x.q_BHQD), x.q_BHQD.new_empty(x.q_BHQD.shape[:3])
    rows = _Rows.of(x, variant)
    limits = torch.finfo(out.dtype)
    for tile in _tiles(x):
        b, i, j = tile.b, tile.i, tile.j
        if not tile.runs:
            out[b, :, i], lse[b, :, i] = 0, limits.max
            continue
        decay = _Decay.of(tile, rows)
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
    rows, outer = _Rows.of(x, variant), _Outer.of(d_out.to(lse.dtype), out.to(lse.dtype), lse)
    dq, dk, dv = (empty_output(part) for part in (x.q_BHQD, x.k_BHTD, x.v_BHTD))
    for total in (dk, dv):
        total.zero_()
    d_rates, d_weights = (part.new_zeros(part.shape) for part in (x.rates_BHR, x.weights_BHR))
    scale = 1 / math.sqrt(dq.shape[-1])
    for tile in _tiles(x):
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


class _Scratch:
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
class _Rows:
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
    scratch: _Scratch

    @classmethod
    def of(cls, x: Inputs, variant: Variant) -> _Rows:
        """Lay out the inputs of a pass."""
        slowest = x.rates_BHR.amin(-1, keepdim=True) * (LOG2_E * (variant == "logbias"))
        rate = (slowest - x.rates_BHR * LOG2_E).unsqueeze(-1)
        k, v = x.k_BHTD.contiguous(), x.v_BHTD.contiguous()
        slowest, scratch = slowest.unsqueeze(-1), _Scratch(x.q_BHQD)
        return cls(variant, x.q_BHQD, k, v, slowest, rate, x.weights_BHR, scratch)

    def queries(self, tile: _Tile) -> Tensor:
        """Return a tile's queries such that their products with keys are logits to the base 2."""
        own = self.q[tile.b, :, tile.i]
        memory = self.scratch.take("queries", *own.shape)
        return torch.mul(own, LOG2_E / math.sqrt(own.shape[-1]), out=memory)

    def logits(self, tile: _Tile) -> Tensor:
        """Return the logits of a tile to the base 2, [b, H, i, j]."""
        keys = self.k[tile.b, :, tile.j].transpose(-1, -2)
        return self.scratch.product("logits", self.queries(tile), keys)


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

    def differentiate(self, tile: _Tile, rows: _Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return P and dS, [b, H, i, j], and Σ G c_r and Σ G c_r Δ, [b, H, R]."""
        b, i = tile.b, tile.i
        inner, lse = self.inner[b, :, i], self.lse[b, :, i]
        decay = _Decay.of(tile, rows)
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


@dataclass(frozen=True)
class _Run:
    """Neighbouring keys of a tile, and on which side of its queries they lie."""

    side: Side
    keys: slice


@dataclass(frozen=True)
class _Tile:
    """A few subjects by a block of queries, with the runs of keys that they see.

    Attributes:
        b: Subjects.
        i: Queries.
        j: Keys from the first to the last that any of the queries sees.
        runs: Their parts; those of a ``past`` or ``future`` run are seen by every query.
        statics: Most keys without a time that one of the subjects has.
        tq: [b, i] days.
        tk: [b, T] days.
        static: [b, T] keys without a time.
        sees: [b, i] keys each query sees.
        past: [b, i] time of the nearest visible key as seen from the past: a key at t ≤ t_i is
            ``past − t`` days further away than the nearest one.
        future: [b, i] the same from the future.
    """

    b: slice
    i: slice
    j: slice
    runs: tuple[_Run, ...]
    statics: int
    tq: Tensor
    tk: Tensor
    static: Tensor
    sees: Tensor
    past: Tensor
    future: Tensor


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
    scratch: _Scratch

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
        unseen: [b, 1, i, e] next to −∞ where a query does not see a key, else 0.
        further: [b, 1, i, e] days beyond the nearest key's.
        delta: [b, 1, i, e] Δ in days.
        components: [b, H, R, i·e] c_r = e^(−(λ_r − λ0)Δ), in [0, 1].
        scratch: Where what is summed up at once goes.
    """

    keys: slice
    unseen: Tensor
    further: Tensor
    delta: Tensor
    components: Tensor
    scratch: _Scratch

    def write(self, kernel: Tensor, weights: Tensor) -> None:
        """Write K̃ of the run into the tile's [b, H, i, j]."""
        own = kernel[..., self.keys]
        mixed = self.scratch.product("mixed", weights.unsqueeze(-2), self.components)
        own.copy_(mixed.view(own.shape))

    def take_off(self, logits: Tensor, slowest: Tensor, lse: Tensor | float) -> None:
        """Take λ0 times the days beyond the nearest key's, and LSE, off the run's logits."""
        own = logits[..., self.keys]
        own.sub_(lse).addcmul_(self.further, slowest, value=-1).add_(self.unseen)

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
class _Decay:
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
    def of(cls, tile: _Tile, rows: _Rows) -> _Decay:
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


def _factors(tile: _Tile, run: _Run, name: str, rows: _Rows) -> _Factors:
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


def _exact(tile: _Tile, run: _Run, name: str, rows: _Rows) -> _Exact:
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
    unseen = (position >= tile.sees[:, :, None]).to(tq.dtype).mul_(lowest)
    delta, further, unseen = delta[:, None], further[:, None], unseen[:, None]
    days, rate = delta.flatten(-2).unsqueeze(-2), rows.rate[tile.b]
    components = rows.scratch.take(name, *rate.shape[:3], days.shape[-1])
    torch.mul(days, rate, out=components).exp2_()
    return _Exact(j, unseen, further, delta, components, rows.scratch)


def _tiles(x: Inputs) -> Iterator[_Tile]:
    """Cut the batch so that a tile's buffers stay in the cache, and its keys by their side."""
    n_subjects, heads, n_queries, _ = x.q_BHQD.shape
    n_keys = x.tk_days_BT.shape[1]
    static = torch.arange(n_keys, device=x.n_static_B.device) < x.n_static_B[:, None]
    statics = x.n_static_B.clamp(0, n_keys)
    past, future = _nearest(x, static)
    block = min(max(n_queries, 1), BLOCK_QUERIES)
    subjects = max(1, TILE_FLOATS // (heads * block * max(n_keys, 1)))
    queries = [slice(start, start + block) for start in range(0, n_queries, block)]
    cuts = _cuts(x, static, block)
    for start in range(0, n_subjects, subjects):
        b = slice(start, start + subjects)
        most = int(statics[b].amax())
        lowest, highest = cuts[b].amin(0).tolist(), cuts[b].amax(0).tolist()
        for place, i in reversed(list(enumerate(queries))):
            past_end, seen_by_all = lowest[place][0], lowest[place][2]
            future_start, seen_by_any = highest[place][1], highest[place][3]
            yield _Tile(
                b,
                i,
                slice(0, seen_by_any),
                _runs(past_end, future_start, seen_by_all, seen_by_any),
                most,
                x.tq_days_BQ[b, i],
                x.tk_days_BT[b],
                static[b],
                x.kv_end_BQ[b, i],
                past[b, i],
                future[b, i],
            )


def _runs(past_end: int, future_start: int, seen_by_all: int, seen_by_any: int) -> tuple[_Run, ...]:
    past_end = min(past_end, seen_by_all)
    future_start = max(future_start, past_end)
    if future_start >= seen_by_all:
        future_start = seen_by_all = past_end
    bounds: list[tuple[Side, int, int]] = [
        ("past", 0, past_end),
        ("exact", past_end, future_start),
        ("future", future_start, seen_by_all),
        ("exact", seen_by_all, seen_by_any),
    ]
    return tuple(_Run(side, slice(start, stop)) for side, start, stop in bounds if stop > start)


def _cuts(x: Inputs, static_BT: Bool[Tensor, "B T"], block: int) -> Int[Tensor, "B blocks 4"]:
    """Return, per subject and block of queries, four places among the keys.

    Before the first, no key is later than any query; from the second on, none is earlier and none
    static; before the third, every query sees every key; from the fourth on, none sees any.
    """
    n_queries, n_keys = x.kv_end_BQ.shape[1], static_BT.shape[1]
    starts = torch.arange(0, n_queries, block, device=static_BT.device)
    place = torch.arange(block, device=static_BT.device)
    at = (starts[:, None] + place).clamp_max_(n_queries - 1)
    tq, sees = x.tq_days_BQ[:, at], x.kv_end_BQ[:, at].clamp(0, n_keys)
    latest = x.tk_days_BT.masked_fill(static_BT, -math.inf)
    earliest = latest.flip(1).cummin(1).values.flip(1)
    latest = latest.cummax(1).values
    past_end = torch.searchsorted(latest, tq.amin(-1), right=True)
    future_start = torch.searchsorted(earliest, tq.amax(-1))
    return torch.stack([past_end, future_start, sees.amin(-1), sees.amax(-1)], -1)


def _nearest(
    x: Inputs, static_BT: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B Q"], Float[Tensor, "B Q"]]:
    """Return `_Tile.past` and `_Tile.future`.

    A query whose nearest key lies in the past has that key's own time as ``past``, so that the
    difference to an earlier key is rounded once however far both are.
    """
    found: list[tuple[Tensor, Tensor]] = []
    position = torch.arange(x.tk_days_BT.shape[1], device=x.tk_days_BT.device)
    for b in range(x.tq_days_BQ.shape[0]):
        tq, tk = x.tq_days_BQ[b], x.tk_days_BT[b]
        timed = tk[~static_BT[b]]
        first = tk.shape[0] - timed.shape[0]
        ends = x.kv_end_BQ[b]
        if bool((timed.diff() >= 0).all()):
            padded = torch.cat([tk.new_tensor([-math.inf]), timed, tk.new_tensor([math.inf])])
            seen = (ends - first).clamp(0, timed.shape[0])
            place = torch.searchsorted(timed, tq, right=True)
            past = padded[torch.minimum(place, seen)]
            future = torch.where(place < seen, padded[place + 1], math.inf)
        else:
            seen_QT = (position < ends[:, None]) & ~static_BT[b]
            before = tk <= tq[:, None]
            past = torch.where(seen_QT & before, tk, -math.inf).amax(1)
            future = torch.where(seen_QT & ~before, tk, math.inf).amin(1)
        here = (first > 0) & (ends > 0)
        gap = torch.minimum(tq - past, future - tq).masked_fill(here, 0)
        gap = torch.where(gap.isinf(), 0, gap)
        found.append(
            (
                torch.where(tq - past <= gap, past, tq - gap),
                torch.where(future - tq <= gap, future, tq + gap),
            )
        )
    past, future = (torch.stack(list(part)) for part in zip(*found, strict=True))
    return past, future
