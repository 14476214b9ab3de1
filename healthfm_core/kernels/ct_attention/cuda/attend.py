"""The forward pass, in Triton."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from healthfm_core.kernels.ct_attention.cuda.parts import (
    EXACT,
    LENGTHS,
    LOG2E,
    LOGBIAS,
    NEVER,
    POSTMUL,
    head_of,
    left_factors,
    load_rows,
    logits_of,
    near_blocks,
    nearest_edge,
    pair_decay,
    query_times,
    side_decay,
    store_rows,
)


@triton.jit
@no_type_check
def _attend_tile(sums, total, peak, x, kernel, v, PRECISION: tl.constexpr, VARIANT: tl.constexpr):
    """Add a tile of logits `x` (base 2) and its kernel to the running softmax."""
    now = tl.maximum(peak, tl.max(x, 1))
    origin = tl.where(now == float("-inf"), 0.0, now)
    p = tl.exp2(x - origin[:, None])
    if VARIANT == LOGBIAS:
        p *= kernel
    shrink = tl.exp2(peak - origin)
    total = total * shrink + tl.sum(p, 1)
    if VARIANT == POSTMUL:
        p *= kernel
    sums = tl.dot(p.to(v.dtype), v, sums * shrink[:, None], input_precision=PRECISION)
    return sums, total, now


@triton.jit(do_not_specialize=LENGTHS)
@no_type_check
def attend(
    q, k, v, out, lse,
    tq, tk, kv_end, n_static, past, future, k_times, rates, weights, reach, blocks, further, counts,
    q_b, q_h, q_i, k_b, k_h, k_j, v_b, v_h, v_j, out_b, out_h, out_i,
    heads, n_queries, n_keys, n_k_blocks, scale,
    D: tl.constexpr, DP: tl.constexpr, R: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDTH: tl.constexpr, PRECISION: tl.constexpr, VARIANT: tl.constexpr,
):  # fmt: skip
    """Write the output and the logsumexp of one block of queries."""
    block = tl.num_programs(1) - 1 - tl.program_id(1)  # late queries see most: they go first
    bh = tl.program_id(0)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    i = block * BM + tl.arange(0, BM)
    queries = load_rows(q + b * q_b + h * q_h, i, n_queries, q_i, D, DP)
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    rates += bh * R
    weights += bh * R
    at_i, is_i = b * n_queries + i, i < n_queries
    t, before, after, end = query_times(tq, past, future, kv_end, at_i, is_i, n_keys)
    statics = tl.minimum(tl.load(n_static + b).to(tl.int32), n_keys)
    slowest, excess, weight = head_of(rates, weights, R, VARIANT)
    slow = slowest * LOG2E
    days = tl.load(reach + bh)
    at = b * tl.num_programs(1) + block
    sums = tl.zeros((BM, DP), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    peak = tl.full((BM,), float("-inf"), tl.float32)
    one = tl.arange(0, BN)

    for side in tl.static_range(2):  # what lies in the past, then what lies in the future
        sign = 1 - 2 * side
        nearest = after if side else before
        listed, near = near_blocks(blocks, further, counts, at, 2 * side, n_k_blocks, days, WIDTH)
        anchor = nearest_edge(listed, near, k_times + 2 * b * n_k_blocks, side)
        left = left_factors(tl.maximum((t - anchor) * sign, 0.0), excess, weight, queries)
        # Logits of a side lack a row's term: the peak has it instead, until the loop is over.
        shift = slow * tl.maximum((nearest - anchor) * sign, 0.0)
        peak_before, shifted = peak, peak + shift
        peak = shifted
        for n in range(near):
            j = statics + tl.load(listed + n) * BN + one
            t_keys = tl.load(tk + b * n_keys + j)
            taken, kernel, _ = side_decay(
                t_keys, anchor, sign, left, excess, slow, PRECISION, VARIANT
            )
            keys = load_rows(k, j, n_keys, k_j, D, DP)
            x = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
            x = logits_of(x, taken, kernel, VARIANT)
            values = load_rows(v, j, n_keys, v_j, D, DP)
            sums, total, peak = _attend_tile(
                sums, total, peak, x, kernel, values, PRECISION, VARIANT
            )
        peak = tl.where(peak == shifted, peak_before, peak - shift)

    listed = blocks + (at * 3 + EXACT) * n_k_blocks
    for n in range(tl.load(counts + at * 3 + EXACT)):
        j = statics + tl.load(listed + n) * BN + one
        t_keys = tl.load(tk + b * n_keys + j, mask=j < n_keys, other=0.0)
        keys = load_rows(k, j, n_keys, k_j, D, DP)
        _, taken, kernel = pair_decay(
            t[:, None], t_keys[None, :], before[:, None], after[:, None],
            rates, weights, slowest, R, VARIANT,
        )  # fmt: skip
        x = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        x = logits_of(x, taken, kernel, VARIANT)
        x = tl.where(j[None, :] < end[:, None], x, float("-inf"))
        values = load_rows(v, j, n_keys, v_j, D, DP)
        sums, total, peak = _attend_tile(sums, total, peak, x, kernel, values, PRECISION, VARIANT)

    all_weights = tl.sum(weight)
    for start in range(0, statics, BN):
        j = start + one
        keys = load_rows(k, j, n_keys, k_j, D, DP)
        x = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        seen = (j < statics)[None, :] & (j[None, :] < end[:, None])
        x = tl.where(seen, logits_of(x, 0.0, all_weights, VARIANT), float("-inf"))
        values = load_rows(v, j, n_keys, v_j, D, DP)
        sums, total, peak = _attend_tile(
            sums, total, peak, x, all_weights, values, PRECISION, VARIANT
        )

    live = end > 0
    sums = tl.where(live[:, None], sums / tl.where(live, total, 1.0)[:, None], 0.0)
    logsumexp = tl.where(live, (peak + tl.log2(tl.where(live, total, 1.0))) / LOG2E, NEVER)
    store_rows(out + b * out_b + h * out_h, i, n_queries, out_i, sums, D, DP)
    tl.store(lse + bh.to(tl.int64) * n_queries + i, logsumexp, mask=is_i)
