"""Triton kernels that find which blocks each block has to visit."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from healthfm_core.kernels.ct_attention.cuda.parts import (
    FUTURE,
    PAST,
)


@triton.jit
@no_type_check
def summarise_queries(
    tq, tk, kv_end, n_static, past, future, times, sees, n_queries, n_keys,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Find each query's nearest visible key, and the bounds of each block of queries.

    Writes past and future [B, Q] (times of the nearest visible key as seen from either side, see
    `nearest` in ../README.md), times [B, blocks, 4] (first and last query, first `past`, last
    `future`) and sees [B, blocks, 2] (keys that all and that any of the block's queries see).
    Queries that see nothing count for none of these bounds.
    """
    b, block = tl.program_id(0), tl.program_id(1)
    i = block * BM + tl.arange(0, BM)
    statics = tl.minimum(tl.load(n_static + b).to(tl.int32), n_keys)
    t = tl.load(tq + b * n_queries + i, mask=i < n_queries, other=0.0)
    end = tl.load(kv_end + b * n_queries + i, mask=i < n_queries, other=0).to(tl.int32)
    end = tl.minimum(tl.maximum(end, 0), n_keys)
    any_sees = tl.max(end)
    before = tl.full((BM,), float("-inf"), tl.float32)
    after = tl.full((BM,), float("inf"), tl.float32)
    for start in range(statics, any_sees, BN):
        j = start + tl.arange(0, BN)
        keys = tl.load(tk + b * n_keys + j, mask=j < n_keys, other=0.0)[None, :]
        seen = j[None, :] < end[:, None]
        earlier = keys <= t[:, None]
        before = tl.maximum(before, tl.max(tl.where(seen & earlier, keys, float("-inf")), 1))
        after = tl.minimum(after, tl.min(tl.where(seen & ~earlier, keys, float("inf")), 1))
    gap = tl.minimum(t - before, after - t)
    gap = tl.where((statics > 0) | (gap == float("inf")), 0.0, gap)
    before = tl.where(t - before <= gap, before, t - gap)
    after = tl.where(after - t <= gap, after, t + gap)
    tl.store(past + b * n_queries + i, before, mask=i < n_queries)
    tl.store(future + b * n_queries + i, after, mask=i < n_queries)
    live = end > 0
    at = b * tl.num_programs(1) + block
    tl.store(times + 4 * at, tl.min(tl.where(live, t, float("inf"))))
    tl.store(times + 4 * at + 1, tl.max(tl.where(live, t, float("-inf"))))
    tl.store(times + 4 * at + 2, tl.min(tl.where(live, before, float("inf"))))
    tl.store(times + 4 * at + 3, tl.max(tl.where(live, after, float("-inf"))))
    all_see = tl.min(tl.where(live, end, n_keys))
    tl.store(sees + 2 * at, tl.where(any_sees > 0, all_see, 0))
    tl.store(sees + 2 * at + 1, any_sees)


@triton.jit
@no_type_check
def summarise_keys(tk, n_static, times, n_keys, BN: tl.constexpr):
    """Write the first and last time of each block of keys, times [B, blocks, 2]."""
    b, block = tl.program_id(0), tl.program_id(1)
    j = tl.load(n_static + b).to(tl.int32) + block * BN + tl.arange(0, BN)
    t = tl.load(tk + b * n_keys + j, mask=j < n_keys, other=0.0)
    at = b * tl.num_programs(1) + block
    tl.store(times + 2 * at, tl.min(tl.where(j < n_keys, t, float("inf"))))
    tl.store(times + 2 * at + 1, tl.max(tl.where(j < n_keys, t, float("-inf"))))


@triton.jit
@no_type_check
def plan(
    q_times, q_sees, k_times, n_static, blocks, further, counts, n_q_blocks, n_k_blocks,
    BN: tl.constexpr, WIDTH: tl.constexpr, BY_QUERY: tl.constexpr,
):  # fmt: skip
    """List, for a block of queries, the blocks of keys it sees (or the other way around), by kind.

    Writes blocks [B, own, 3, others] with near ones first, counts [B, own, 3], and further
    [B, own, 3, others]: by how many days at least a listed block lies beyond the nearest key.
    """
    b, own = tl.program_id(0), tl.program_id(1)
    others = tl.arange(0, WIDTH)
    if BY_QUERY:
        q, k, n_others = own, others, n_k_blocks
    else:
        q, k, n_others = others, own, n_q_blocks
    exists = others < n_others
    at_q, at_k = b * n_q_blocks + q, b * n_k_blocks + k
    is_q, is_k = q < n_q_blocks, k < n_k_blocks
    q_low = tl.load(q_times + 4 * at_q, mask=is_q, other=0.0)
    q_high = tl.load(q_times + 4 * at_q + 1, mask=is_q, other=0.0)
    past = tl.load(q_times + 4 * at_q + 2, mask=is_q, other=0.0)
    future = tl.load(q_times + 4 * at_q + 3, mask=is_q, other=0.0)
    all_see = tl.load(q_sees + 2 * at_q, mask=is_q, other=0)
    any_sees = tl.load(q_sees + 2 * at_q + 1, mask=is_q, other=0)
    k_low = tl.load(k_times + 2 * at_k, mask=is_k, other=0.0)
    k_high = tl.load(k_times + 2 * at_k + 1, mask=is_k, other=0.0)
    start = tl.load(n_static + b).to(tl.int32) + k * BN
    whole = exists & (start + BN <= all_see)
    is_past = whole & (k_high <= q_low)
    is_future = whole & (k_low >= q_high) & (k_high > q_low)
    is_exact = exists & (start < any_sees) & ~is_past & ~is_future
    own_at = b * tl.num_programs(1) + own
    for kind in tl.static_range(3):
        if kind == PAST:
            listed, days, backwards = is_past, past - k_high, BY_QUERY
        elif kind == FUTURE:
            listed, days, backwards = is_future, k_low - future, not BY_QUERY
        else:
            listed, days, backwards = is_exact, tl.zeros((WIDTH,), tl.float32), False
        number = tl.cumsum(listed.to(tl.int32), 0)
        count = tl.sum(listed.to(tl.int32))
        place = (count - number) if backwards else (number - 1)
        to = (own_at * 3 + kind) * n_others + place
        tl.store(blocks + to, others, mask=listed)
        tl.store(further + to, days, mask=listed)
        tl.store(counts + own_at * 3 + kind, count)
