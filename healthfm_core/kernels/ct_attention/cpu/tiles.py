"""The attention in tiles that stay in the cache, in PyTorch alone: what runs without a compiler.

A tile is a few subjects by a block of queries by the keys they see; memory is O(B·H·T). The algebra
is in the README of `healthfm_core.kernels.ct_attention`; the names here are the ones it uses.

Where keys are earlier than every query of the tile (or later) the decay factorises: K̃ is one
product of rank R, and what is added to the logits rides along in the other one as more channels,
``q′ = [q/√D, 1, −ρ_i (past), −ρ_i (future), −lse_i]`` and ``k′ = [k, −λ0 b_j, is past, is future,
1]``. Likewise ``dO′ = [dO, −D_i]`` and ``v′ = [v, 1]``, whose last column in the forward pass is
the softmax's denominator. So one pass over the pairs takes the exponential and one multiplies by
the kernel. Other pairs (near the diagonal, or where times are not sorted) take R exponentials each.

Exponentials are taken to the base 2: what MKL offers for base e is 20 to 60 times slower where the
result underflows, which most of these do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
_ADDED: Final = 4
_DAYS, _PAST, _FUTURE, _LSE = range(-_ADDED, 0)

Side = Literal["past", "future", "exact"]


def forward(
    inputs: Inputs, variant: Variant = "logbias"
) -> tuple[Float[Tensor, "B H Q D"], Float[Tensor, "B H Q"]]:
    """Return the output and the logsumexp that `backward` wants (`ops.attend` defines it)."""
    x = _widened(inputs)
    out, lse = empty_output(x.q_BHQD), x.q_BHQD.new_empty(x.q_BHQD.shape[:3])
    keys, values = _keys(x.k_BHTD), _values(x.v_BHTD)
    limits = torch.finfo(out.dtype)
    for tile in _tiles(x):
        b, i, j = tile.b, tile.i, tile.j
        if not tile.runs:
            out[b, :, i], lse[b, :, i] = 0, limits.max
            continue
        queries = _queries(x.q_BHQD[b, :, i])
        decay = _Decay.of(tile, x, queries, keys[b], variant)
        logits = queries @ keys[b, :, j].transpose(-1, -2)
        if variant == "logitmul":
            logits.mul_(decay.kernel)
        peak = decay.take_off(logits).amax(-1, keepdim=True).clamp_min_(limits.min / 8)
        weight = logits.sub_(peak).exp2_()
        mass = weight.sum(-1, keepdim=True) if variant == "postmul" else None
        if variant != "logitmul":
            weight.mul_(decay.kernel)
        sums = weight @ values[b, :, j]
        mass = (sums[..., -1:] if mass is None else mass).clamp_min(limits.tiny)
        out[b, :, i] = sums[..., :-1] / mass
        lse[b, :, i] = (peak.div(LOG2_E) + mass.log()).squeeze(-1)
    return out.to(inputs.q_BHQD.dtype), lse


def backward(
    d_out: Float[Tensor, "B H Q D"],
    inputs: Inputs,
    out: Float[Tensor, "B H Q D"],
    lse: Float[Tensor, "B H Q"],
    variant: Variant = "logbias",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return dq, dk, dv and, per subject, dλ and dw."""
    x = _widened(inputs)
    d_out, out = d_out.to(lse.dtype), out.to(lse.dtype)
    dq, dk, dv = (empty_output(part).zero_() for part in (x.q_BHQD, x.k_BHTD, x.v_BHTD))
    d_rates, d_weights = (part.new_zeros(part.shape) for part in (x.rates_BHR, x.weights_BHR))
    scale = 1 / math.sqrt(dq.shape[-1])
    keys, values = _keys(x.k_BHTD), _values(x.v_BHTD)
    inner = (d_out * out).sum(-1, keepdim=True)
    d_rows = torch.cat([d_out, inner.neg()], -1)
    for tile in _tiles(x):
        b, i, j = tile.b, tile.i, tile.j
        if not tile.runs:
            continue
        queries = _queries(x.q_BHQD[b, :, i])
        lse_i = lse[b, :, i].unsqueeze(-1) * LOG2_E
        if variant != "logitmul":
            queries[..., _LSE:] = -lse_i
        decay = _Decay.of(tile, x, queries, keys[b], variant)
        logits = queries @ keys[b, :, j].transpose(-1, -2)
        grad = d_rows[b, :, i] @ values[b, :, j].transpose(-1, -2)
        if variant == "logitmul":
            plain = logits
            logits = (plain * decay.kernel).sub_(lse_i)
        weight = decay.take_off(logits).exp2_()
        if variant == "logitmul":
            d_weight, d_rate = decay.gradients(plain.mul_(grad.mul_(weight)))
            d_weight, d_rate = d_weight / LOG2_E, d_rate / LOG2_E
        elif variant == "postmul":
            grad += inner[b, :, i]
            d_weight, d_rate = decay.gradients(grad.mul_(weight))
        else:
            d_weight, d_rate = decay.gradients(grad.mul_(weight))
        d_weights[b] += d_weight
        d_rates[b] -= x.weights_BHR[b] * d_rate
        grad.mul_(decay.kernel)
        if variant == "postmul":
            grad.addcmul_(weight, inner[b, :, i], value=-1)
        if variant != "logitmul":
            weight.mul_(decay.kernel)
        dv[b, :, j] += weight.transpose(-1, -2) @ d_out[b, :, i]
        dq[b, :, i] = (grad @ x.k_BHTD[b, :, j]).mul_(scale)
        dk[b, :, j] += (grad.transpose(-1, -2) @ x.q_BHQD[b, :, i]).mul_(scale)
    dtype = inputs.q_BHQD.dtype
    return dq.to(dtype), dk.to(dtype), dv.to(dtype), d_rates, d_weights


def _keys(k: Tensor) -> Tensor:
    """Return k′, whose added channels a tile sets."""
    keys = torch.nn.functional.pad(k, (0, _ADDED))
    keys[..., _LSE] = 1
    return keys


def _values(v: Tensor) -> Tensor:
    """Return v′ = [v, 1]."""
    return torch.nn.functional.pad(v, (0, 1), value=1.0)


def _queries(q: Float[Tensor, "b H i D"]) -> Float[Tensor, "b H i D_added"]:
    """Return q′ to the base 2, with no decay and no logsumexp yet."""
    queries = torch.nn.functional.pad(q * (LOG2_E / math.sqrt(q.shape[-1])), (0, _ADDED))
    queries[..., _DAYS] = LOG2_E
    return queries


def _widened(x: Inputs) -> Inputs:
    """Return `x` with half-precision queries, keys and values in float32."""
    if x.q_BHQD.dtype in (torch.float32, torch.float64):
        return x
    return x._replace(q_BHQD=x.q_BHQD.float(), k_BHTD=x.k_BHTD.float(), v_BHTD=x.v_BHTD.float())


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
    any_static: bool
    tq: Tensor
    tk: Tensor
    static: Tensor
    sees: Tensor
    past: Tensor
    future: Tensor


@dataclass(frozen=True)
class _Factors:
    """Decay of the runs whose keys lie on one side: c_r = U_ir V_jr, one side after the other.

    Attributes:
        a: [b, 1, i, 1] days from the run's reference time to each query.
        u: [b, H, i, R] without w.
        v: [b, H, j, R], 0 for static keys and outside of the run.
        vb: `v` times the days from each key to the reference time.
    """

    a: Tensor
    u: Tensor
    v: Tensor
    vb: Tensor

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ G c_r and Σ G c_r Δ, [b, H, R] each."""
        plain, timed = (grad @ torch.cat([self.v, self.vb], -1)).chunk(2, -1)
        return (self.u * plain).sum(-2), (self.u * (self.a * plain + timed)).sum(-2)


@dataclass(frozen=True)
class _Exact:
    """Decay of a run pair by pair.

    Attributes:
        keys: The run, counted from the tile's first key.
        unseen: [b, 1, i, e] which queries don't see which keys.
        further: [b, 1, i, e] days beyond the nearest key's.
        delta: [b, 1, i, e] Δ in days.
        components: [b, H, R, i·e] c_r = e^(−(λ_r − λ0)Δ), in [0, 1].
    """

    keys: slice
    unseen: Tensor
    further: Tensor
    delta: Tensor
    components: Tensor

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ G c_r and Σ G c_r Δ, [b, H, R] each."""
        own = grad[..., self.keys]
        both = torch.stack([own, own * self.delta], -1).flatten(-3, -2)
        plain, timed = (self.components @ both).unbind(-1)
        return plain, timed


@dataclass(frozen=True)
class _Decay:
    """All decays of a tile.

    Attributes:
        kernel: [b, H, i, j] K̃, 0 where a query does not see a key.
        static: [b, 1, 1, j] 1 where a key has no time, or None where none is.
        slowest: [b, H] λ0.
    """

    kernel: Tensor
    static: Tensor | None
    slowest: Tensor
    factors: tuple[_Factors, ...]
    exact: tuple[_Exact, ...]

    @classmethod
    def of(cls, tile: _Tile, x: Inputs, queries: Tensor, keys: Tensor, variant: Variant) -> _Decay:
        """Find the decays; write the added channels of the tile's `queries` and `keys`."""
        rates, weights = x.rates_BHR[tile.b], x.weights_BHR[tile.b]
        slowest = rates.amin(-1) * (variant == "logbias")
        excess = rates - slowest.unsqueeze(-1)
        keys[:, :, tile.j, _DAYS:_LSE] = 0
        factors = tuple(
            _factors(tile, run, slowest, excess, queries, keys)
            for run in tile.runs
            if run.side != "exact"
        )
        exact = tuple(_exact(tile, run, excess) for run in tile.runs if run.side == "exact")
        left = [part.u * weights.unsqueeze(-2) for part in factors]
        right = [part.v for part in factors]
        static = None
        if tile.any_static:
            static = tile.static[:, None, None, tile.j].to(rates.dtype)
            shape = queries.shape[:3]
            left.append(weights.sum(-1)[..., None, None].expand(*shape, 1))
            right.append(static.transpose(-1, -2).expand(*shape[:2], -1, 1))
        kernel = queries.new_zeros(*queries.shape[:3], tile.j.stop)
        if left:
            kernel = torch.cat(left, -1) @ torch.cat(right, -1).transpose(-1, -2)
        for part in exact:
            shape = kernel[..., part.keys].shape
            own = (weights.unsqueeze(-2) @ part.components).view(shape)
            kernel[..., part.keys] = own.masked_fill_(part.unseen, 0)
        return cls(kernel, static, slowest, factors, exact)

    def take_off(self, logits: Tensor) -> Tensor:
        """Take λ0 times the days beyond the nearest key's off the exact runs' logits, in place."""
        lowest = torch.finfo(logits.dtype).min / 4
        for part in self.exact:
            own = logits[..., part.keys]
            own.addcmul_(part.further, self.slowest[..., None, None], value=-LOG2_E)
            own.masked_fill_(part.unseen, lowest)
        return logits

    def gradients(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return Σ G c_r and Σ G c_r Δ, [b, H, R] each."""
        parts = [part.gradients(grad) for part in self.factors]
        parts += [part.gradients(grad) for part in self.exact]
        d_weight, d_rate = (torch.stack(part).sum(0) for part in zip(*parts, strict=True))
        if self.static is None or not self.factors:
            return d_weight, d_rate
        held = grad[..., : self.static.shape[-1]] * self.static
        for part in self.exact:
            held[..., part.keys] = 0
        return d_weight + held.sum((-1, -2)).unsqueeze(-1), d_rate


def _factors(
    tile: _Tile, run: _Run, slowest: Tensor, excess: Tensor, queries: Tensor, keys: Tensor
) -> _Factors:
    j = run.keys
    past = run.side == "past"
    sign, nearest = (1, tile.past) if past else (-1, tile.future)
    static = tile.static[:, j]
    t = tile.tk[:, j] * sign
    edge = t.masked_fill(static, -math.inf).amax(1, keepdim=True)
    edge = torch.where(edge.isinf(), (tile.tq * sign).amin(1, keepdim=True), edge)
    a = tile.tq * sign - edge
    b = (edge - t).masked_fill_(static, 0)
    further = (nearest * sign - edge).clamp_min_(0)
    keys[:, :, j, _DAYS] = b[:, None] * -slowest[..., None]
    keys[:, :, j, _PAST if past else _FUTURE] = (~static)[:, None].to(keys.dtype)
    queries[..., _PAST if past else _FUTURE] = further[:, None] * (slowest[..., None] * -LOG2_E)
    a, b = a[:, None, :, None], b[:, None, :, None]
    rate = excess.unsqueeze(-2) * -LOG2_E
    v = torch.exp2(b * rate).masked_fill_(static[:, None, :, None], 0)
    outside = (0, 0, j.start, tile.j.stop - j.stop)
    v, vb = (torch.nn.functional.pad(part, outside) for part in (v, v * b))
    return _Factors(a, torch.exp2(a * rate), v, vb)


def _exact(tile: _Tile, run: _Run, excess: Tensor) -> _Exact:
    j = run.keys
    tq, tk = tile.tq[:, :, None], tile.tk[:, None, j]
    static = tile.static[:, None, j]
    position = torch.arange(j.start, j.stop, device=tq.device)
    unseen = (position >= tile.sees[:, :, None])[:, None]
    further = torch.where(tk <= tq, tile.past[:, :, None] - tk, tk - tile.future[:, :, None])
    further = further.clamp_min_(0).masked_fill_(static, 0)[:, None]
    delta = (tq - tk).abs_().masked_fill_(static, 0)[:, None]
    rate = excess.unsqueeze(-1) * -LOG2_E
    components = (delta.flatten(-2).unsqueeze(-2) * rate).exp2_()
    return _Exact(j, unseen, further, delta, components)


def _tiles(x: Inputs) -> Iterator[_Tile]:
    """Cut the batch so that a tile's buffers stay in the cache, and its keys by their side."""
    n_subjects, heads, n_queries, _ = x.q_BHQD.shape
    n_keys = x.tk_days_BT.shape[1]
    static = torch.arange(n_keys, device=x.n_static_B.device) < x.n_static_B[:, None]
    any_static = bool(static.any())
    past, future = _nearest(x, static)
    block = min(max(n_queries, 1), BLOCK_QUERIES)
    subjects = max(1, TILE_FLOATS // (heads * block * max(n_keys, 1)))
    queries = [slice(start, start + block) for start in range(0, n_queries, block)]
    cuts = _cuts(x, static, queries)
    for start in range(0, n_subjects, subjects):
        b = slice(start, start + subjects)
        lowest, highest = cuts[b].amin(0).tolist(), cuts[b].amax(0).tolist()
        for place, i in enumerate(queries):
            past_end, seen_by_all = lowest[place][0], lowest[place][2]
            future_start, seen_by_any = highest[place][1], highest[place][3]
            yield _Tile(
                b,
                i,
                slice(0, seen_by_any),
                _runs(past_end, future_start, seen_by_all, seen_by_any),
                any_static,
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


def _cuts(
    x: Inputs, static_BT: Bool[Tensor, "B T"], queries: Sequence[slice]
) -> Int[Tensor, "B blocks 4"]:
    """Return, per subject and block of queries, four places among the keys.

    Before the first, no key is later than any query; from the second on, none is earlier and none
    static; before the third, every query sees every key; from the fourth on, none sees any.
    """
    tk_days_BT = x.tk_days_BT
    n_keys = tk_days_BT.shape[1]
    position = torch.arange(n_keys, device=tk_days_BT.device)
    columns = []
    for i in queries:
        tq, sees = x.tq_days_BQ[:, i], x.kv_end_BQ[:, i].clamp(0, n_keys)
        later = (tk_days_BT > tq.amin(1, keepdim=True)) & ~static_BT
        earlier = (tk_days_BT < tq.amax(1, keepdim=True)) | static_BT
        past_end = torch.where(later, position, n_keys).amin(1)
        future_start = torch.where(earlier, position + 1, 0).amax(1)
        columns.append(torch.stack([past_end, future_start, sees.amin(1), sees.amax(1)], -1))
    return torch.stack(columns, 1)


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
