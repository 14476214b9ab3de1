"""How the attention is cut into tiles, and a tile's keys by the side of its queries they lie on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from healthfm_core.kernels.ct_attention.inputs import Inputs

TILE_FLOATS = 1 << 18
"""Most elements of a tile's [subjects, H, queries, keys] buffers: about 1 MB in float32."""
BLOCK_QUERIES = 128
"""On two threads a tenth faster than 64: half the calls, each long enough to be worth sharing."""
LONG_FLOATS = 1 << 22
"""Blocks of half as many queries where one subject's buffers would be larger than this."""
Side = Literal["past", "future", "exact"]


@dataclass(frozen=True)
class Run:
    """Neighbouring keys of a tile, and on which side of its queries they lie."""

    side: Side
    keys: slice


@dataclass(frozen=True)
class Tile:
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
    runs: tuple[Run, ...]
    statics: int
    tq: Tensor
    tk: Tensor
    static: Tensor
    sees: Tensor
    past: Tensor
    future: Tensor


def tiles(x: Inputs) -> Iterator[Tile]:
    """Cut the batch so that a tile's buffers stay in the cache, and its keys by their side."""
    n_subjects, heads, n_queries, _ = x.q_BHQD.shape
    n_keys = x.tk_days_BT.shape[1]
    static = torch.arange(n_keys, device=x.n_static_B.device) < x.n_static_B[:, None]
    statics = x.n_static_B.clamp(0, n_keys)
    past, future = _nearest(x, static)
    block = min(max(n_queries, 1), BLOCK_QUERIES)
    if heads * block * n_keys > LONG_FLOATS:
        block = (block + 1) // 2
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
            yield Tile(
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


def _runs(past_end: int, future_start: int, seen_by_all: int, seen_by_any: int) -> tuple[Run, ...]:
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
    return tuple(Run(side, slice(start, stop)) for side, start, stop in bounds if stop > start)


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
    """Return `Tile.past` and `Tile.future`.

    A query whose nearest key lies in the past has that key's own time as ``past``, so that the
    difference to an earlier key is rounded once however far both are.
    """
    cuts: list[tuple[Tensor, Tensor]] = []
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
        cuts.append(
            (
                torch.where(tq - past <= gap, past, tq - gap),
                torch.where(future - tq <= gap, future, tq + gap),
            )
        )
    past, future = (torch.stack(list(part)) for part in zip(*cuts, strict=True))
    return past, future
