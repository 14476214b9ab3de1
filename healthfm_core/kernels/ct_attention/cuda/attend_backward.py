"""The backward pass, in Triton: one kernel by queries, then one by keys."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from healthfm_core.kernels.ct_attention.cuda.parts import (
    EXACT,
    HALF,
    LENGTHS,
    LOG2E,
    NEVER,
    NONE,
    SLOTS,
    head_of,
    left_factors,
    load_rows,
    logits_of,
    near_blocks,
    nearest_edge,
    pair_decay,
    pieces,
    query_times,
    right_factors,
    side_decay,
    store_rows,
)


@triton.jit(do_not_specialize=LENGTHS)
@no_type_check
def attend_backward_queries(
    q, k, v, out, d_out, lse, dq, inner, d_rates_weights,
    tq, tk, kv_end, n_static, past, future, k_times, rates, weights, reach, blocks, further, counts,
    q_b, q_h, q_i, k_b, k_h, k_j, v_b, v_h, v_j, out_b, out_h, out_i, do_b, do_h, do_i,
    dq_b, dq_h, dq_i, heads, n_queries, n_keys, n_k_blocks, scale,
    D: tl.constexpr, DP: tl.constexpr, R: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDTH: tl.constexpr, PRECISION: tl.constexpr, VARIANT: tl.constexpr,
):  # fmt: skip
    """Write dq and the row sums dO · O of one block of queries, and its part of dλ and dw.

    d_rates_weights is [B, H, blocks, 2, SLOTS]: Σ G c_r and Σ G c_r b in the two halves of the
    first row, Σ G c_r a in the first half of the second; Δ = a + b.
    """
    block = tl.num_programs(1) - 1 - tl.program_id(1)
    bh = tl.program_id(0)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    i = block * BM + tl.arange(0, BM)
    at_i, is_i = b * n_queries + i, i < n_queries
    at_hi = bh.to(tl.int64) * n_queries + i
    queries = load_rows(q + b * q_b + h * q_h, i, n_queries, q_i, D, DP)
    d_rows = load_rows(d_out + b * do_b + h * do_h, i, n_queries, do_i, D, DP)
    rows = load_rows(out + b * out_b + h * out_h, i, n_queries, out_i, D, DP)
    dot = tl.sum(d_rows.to(tl.float32) * rows.to(tl.float32), 1)
    tl.store(inner + at_hi, dot, mask=is_i)
    k += b * k_b + h * k_h
    v += b * v_b + h * v_h
    rates += bh * R
    weights += bh * R
    t, before, after, end = query_times(tq, past, future, kv_end, at_i, is_i, n_keys)
    level = tl.where(end > 0, tl.load(lse + at_hi, mask=is_i, other=0.0), NEVER) * LOG2E
    statics = tl.minimum(tl.load(n_static + b).to(tl.int32), n_keys)
    slowest, excess, weight = head_of(rates, weights, R, VARIANT)
    slow = slowest * LOG2E
    days = tl.load(reach + bh)
    at = b * tl.num_programs(1) + block
    grad = tl.zeros((BM, DP), tl.float32)
    by_weight = tl.zeros((SLOTS,), tl.float32)
    by_rate = tl.zeros((SLOTS,), tl.float32)
    one = tl.arange(0, BN)
    slot = tl.arange(0, SLOTS)

    for side in tl.static_range(2):
        sign = 1 - 2 * side
        nearest = after if side else before
        listed, near = near_blocks(blocks, further, counts, at, 2 * side, n_k_blocks, days, WIDTH)
        anchor = nearest_edge(listed, near, k_times + 2 * b * n_k_blocks, side)
        apart = tl.maximum((t - anchor) * sign, 0.0)
        left = left_factors(apart, excess, weight, queries)
        origin = level + slow * tl.maximum((nearest - anchor) * sign, 0.0)
        by_slot = tl.zeros((BM, SLOTS), tl.float32)
        for n in range(near):
            j = statics + tl.load(listed + n) * BN + one
            t_keys = tl.load(tk + b * n_keys + j)
            taken, kernel, right = side_decay(
                t_keys, anchor, sign, left, excess, slow, PRECISION, VARIANT
            )
            keys = load_rows(k, j, n_keys, k_j, D, DP)
            values = load_rows(v, j, n_keys, v_j, D, DP)
            plain = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
            e = tl.exp2(logits_of(plain, taken, kernel, VARIANT) - origin[:, None])
            dp = tl.dot(d_rows, tl.trans(values), input_precision=PRECISION)
            _, ds, g = pieces(e, plain, kernel, dp, dot[:, None], VARIANT)
            if VARIANT != NONE:
                by_slot = tl.dot(g.to(right.dtype), right, by_slot, input_precision=PRECISION)
            grad = tl.dot(ds.to(keys.dtype), keys, grad, input_precision=PRECISION)
        by_slot *= tl.exp2(-apart[:, None] * excess[None, :])
        by_weight += tl.sum(by_slot, 0)
        by_rate += tl.sum(by_slot * apart[:, None], 0)

    listed = blocks + (at * 3 + EXACT) * n_k_blocks
    for n in range(tl.load(counts + at * 3 + EXACT)):
        j = statics + tl.load(listed + n) * BN + one
        t_keys = tl.load(tk + b * n_keys + j, mask=j < n_keys, other=0.0)
        keys = load_rows(k, j, n_keys, k_j, D, DP)
        values = load_rows(v, j, n_keys, v_j, D, DP)
        gap, taken, kernel = pair_decay(
            t[:, None], t_keys[None, :], before[:, None], after[:, None],
            rates, weights, slowest, R, VARIANT,
        )  # fmt: skip
        plain = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        x = logits_of(plain, taken, kernel, VARIANT) - level[:, None]
        e = tl.exp2(tl.where(j[None, :] < end[:, None], x, float("-inf")))
        dp = tl.dot(d_rows, tl.trans(values), input_precision=PRECISION)
        _, ds, g = pieces(e, plain, kernel, dp, dot[:, None], VARIANT)
        for r in tl.static_range(R if VARIANT != NONE else 0):
            own = g * tl.exp2(-gap * ((tl.load(rates + r) - slowest) * LOG2E))
            by_weight += tl.where(slot == r, tl.sum(own), 0.0)
            by_rate += tl.where(slot == r, tl.sum(own * gap), 0.0)
        grad = tl.dot(ds.to(keys.dtype), keys, grad, input_precision=PRECISION)

    all_weights = tl.sum(weight)
    for start in range(0, statics, BN):
        j = start + one
        keys = load_rows(k, j, n_keys, k_j, D, DP)
        values = load_rows(v, j, n_keys, v_j, D, DP)
        plain = tl.dot(queries, tl.trans(keys), input_precision=PRECISION) * scale
        x = logits_of(plain, 0.0, all_weights, VARIANT) - level[:, None]
        seen = (j < statics)[None, :] & (j[None, :] < end[:, None])
        e = tl.exp2(tl.where(seen, x, float("-inf")))
        dp = tl.dot(d_rows, tl.trans(values), input_precision=PRECISION)
        _, ds, g = pieces(e, plain, all_weights, dp, dot[:, None], VARIANT)
        by_weight += tl.where(slot < HALF, tl.sum(g), 0.0)
        grad = tl.dot(ds.to(keys.dtype), keys, grad, input_precision=PRECISION)

    store_rows(dq + b * dq_b + h * dq_h, i, n_queries, dq_i, grad * (scale / LOG2E), D, DP)
    to = d_rates_weights + (bh.to(tl.int64) * tl.num_programs(1) + block) * 2 * SLOTS + slot
    tl.store(to, by_weight)
    tl.store(to + SLOTS, by_rate)


@triton.jit
@no_type_check
def _give_back(
    d_keys, d_values, e, plain, kernel, values, queries, d_rows, dots,
    PRECISION: tl.constexpr, VARIANT: tl.constexpr,
):  # fmt: skip
    """Add what a tile [keys, queries] of e^(logit − lse) gives to dk and dv."""
    dp = tl.dot(values, tl.trans(d_rows), input_precision=PRECISION)
    p, ds, _ = pieces(e, plain, kernel, dp, dots[None, :], VARIANT)
    d_values = tl.dot(p.to(d_rows.dtype), d_rows, d_values, input_precision=PRECISION)
    d_keys = tl.dot(ds.to(queries.dtype), queries, d_keys, input_precision=PRECISION)
    return d_keys, d_values


@triton.jit(do_not_specialize=LENGTHS)
@no_type_check
def attend_backward_keys(
    q, k, v, d_out, lse, inner, dk, dv,
    tq, tk, kv_end, n_static, past, future, k_times, rates, weights, reach, blocks, further, counts,
    q_b, q_h, q_i, k_b, k_h, k_j, v_b, v_h, v_j, do_b, do_h, do_i, dk_b, dk_h, dk_j,
    dv_b, dv_h, dv_j, heads, n_queries, n_keys, n_q_blocks, n_k_blocks, scale,
    D: tl.constexpr, DP: tl.constexpr, R: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDTH: tl.constexpr, PRECISION: tl.constexpr, VARIANT: tl.constexpr,
):  # fmt: skip
    """Write dk and dv of one block of keys: the static ones first, then those with a time."""
    bh = tl.program_id(0)
    b, h = (bh // heads).to(tl.int64), (bh % heads).to(tl.int64)
    statics = tl.minimum(tl.load(n_static + b).to(tl.int32), n_keys)
    static_blocks = tl.cdiv(statics, BN)
    block = tl.program_id(1) - static_blocks
    is_static = block < 0
    start = tl.where(is_static, tl.program_id(1) * BN, statics + block * BN)
    stop = tl.where(is_static, statics, n_keys)
    j = start + tl.arange(0, BN)
    keys = load_rows(k + b * k_b + h * k_h, j, stop, k_j, D, DP)
    values = load_rows(v + b * v_b + h * v_h, j, stop, v_j, D, DP)
    q += b * q_b + h * q_h
    d_out += b * do_b + h * do_h
    lse += bh.to(tl.int64) * n_queries
    inner += bh.to(tl.int64) * n_queries
    tq += b * n_queries
    kv_end += b * n_queries
    past += b * n_queries
    future += b * n_queries
    rates += bh * R
    weights += bh * R
    slowest, excess, weight = head_of(rates, weights, R, VARIANT)
    slow = slowest * LOG2E
    days = tl.load(reach + bh)
    t_keys = tl.load(tk + b * n_keys + j, mask=j < stop, other=0.0)
    d_keys = tl.zeros((BN, DP), tl.float32)
    d_values = tl.zeros((BN, DP), tl.float32)
    one = tl.arange(0, BM)

    if is_static:
        all_weights = tl.sum(weight)
        for n in range(n_q_blocks):
            i = n * BM + one
            is_i = i < n_queries
            end = tl.load(kv_end + i, mask=is_i, other=0)
            level = tl.load(lse + i, mask=is_i, other=0.0) * LOG2E
            queries = load_rows(q, i, n_queries, q_i, D, DP)
            d_rows = load_rows(d_out, i, n_queries, do_i, D, DP)
            plain = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * scale
            x = logits_of(plain, 0.0, all_weights, VARIANT) - level[None, :]
            seen = (j < stop)[:, None] & (j[:, None] < end[None, :])
            e = tl.exp2(tl.where(seen, x, float("-inf")))
            dots = tl.load(inner + i, mask=is_i, other=0.0)
            d_keys, d_values = _give_back(
                d_keys, d_values, e, plain, all_weights, values, queries, d_rows, dots,
                PRECISION, VARIANT,
            )  # fmt: skip
    elif start < n_keys:
        at = b * n_k_blocks + block
        for side in tl.static_range(2):
            sign = 1 - 2 * side
            listed, near = near_blocks(
                blocks, further, counts, at, 2 * side, n_q_blocks, days, WIDTH
            )
            anchor = tl.load(k_times + 2 * at + 1 - side)
            gone = tl.maximum((anchor - t_keys) * sign, 0.0)
            right = right_factors(gone, excess, keys)
            for n in range(near):
                i = tl.load(listed + n) * BM + one
                is_i = i < n_queries
                live = tl.load(kv_end + i, mask=is_i, other=0) > 0
                level = tl.load(lse + i, mask=is_i, other=0.0)
                level = tl.where(live, level, NEVER) * LOG2E
                nearest = tl.load((future if side else past) + i, mask=is_i, other=0.0)
                level += slow * tl.maximum((nearest - anchor) * sign, 0.0)
                t = tl.load(tq + i, mask=is_i, other=0.0)
                if VARIANT == NONE:
                    kernel = 1.0
                else:
                    left = left_factors(tl.maximum((t - anchor) * sign, 0.0), excess, weight, keys)
                    kernel = tl.dot(right, tl.trans(left), input_precision=PRECISION)
                queries = load_rows(q, i, n_queries, q_i, D, DP)
                d_rows = load_rows(d_out, i, n_queries, do_i, D, DP)
                plain = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * scale
                x = logits_of(plain, (gone * slow)[:, None], kernel, VARIANT)
                e = tl.exp2(x - level[None, :])
                dots = tl.load(inner + i, mask=is_i, other=0.0)
                d_keys, d_values = _give_back(
                    d_keys, d_values, e, plain, kernel, values, queries, d_rows, dots,
                    PRECISION, VARIANT,
                )  # fmt: skip
        listed = blocks + (at * 3 + EXACT) * n_q_blocks
        for n in range(tl.load(counts + at * 3 + EXACT)):
            i = tl.load(listed + n) * BM + one
            is_i = i < n_queries
            end = tl.load(kv_end + i, mask=is_i, other=0)
            level = tl.load(lse + i, mask=is_i, other=0.0) * LOG2E
            _, taken, kernel = pair_decay(
                tl.load(tq + i, mask=is_i, other=0.0)[None, :],
                t_keys[:, None],
                tl.load(past + i, mask=is_i, other=0.0)[None, :],
                tl.load(future + i, mask=is_i, other=0.0)[None, :],
                rates, weights, slowest, R, VARIANT,
            )  # fmt: skip
            queries = load_rows(q, i, n_queries, q_i, D, DP)
            d_rows = load_rows(d_out, i, n_queries, do_i, D, DP)
            plain = tl.dot(keys, tl.trans(queries), input_precision=PRECISION) * scale
            x = logits_of(plain, taken, kernel, VARIANT) - level[None, :]
            seen = (j < stop)[:, None] & (j[:, None] < end[None, :])
            e = tl.exp2(tl.where(seen, x, float("-inf")))
            dots = tl.load(inner + i, mask=is_i, other=0.0)
            d_keys, d_values = _give_back(
                d_keys, d_values, e, plain, kernel, values, queries, d_rows, dots,
                PRECISION, VARIANT,
            )  # fmt: skip

    d_keys *= scale / LOG2E
    store_rows(dk + b * dk_b + h * dk_h, j, stop, dk_j, d_keys, D, DP)
    store_rows(dv + b * dv_b + h * dv_h, j, stop, dv_j, d_values, D, DP)
