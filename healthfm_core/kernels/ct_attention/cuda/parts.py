"""What the Triton kernels of continuous-time attention have in common; launches.py calls them.

The maths is in ../README.md. A program works on a block of queries (or of keys) of one subject and
head and walks over the blocks of keys (or of queries) that planning.py lists for it, near ones
first. The keys of a block lie before all its queries (PAST), after all of them (FUTURE), among them
(EXACT), or have no time (STATIC). Blocks of keys count from the first key that has a time. All
exponentials are to the base 2, all sums are in float32, and nothing is added atomically: the same
inputs give the same bits.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

LENGTHS = ("heads", "n_queries", "n_keys", "n_q_blocks", "n_k_blocks")
"""Arguments on whose values no kernel is specialised: lengths change with each batch."""
HALF = tl.constexpr(8)
"""Most rates a head can have."""
SLOTS = tl.constexpr(16)
"""Depth of the factors' products, the least a matrix instruction takes: e^(−μ b) for each rate in
the first half, b e^(−μ b) in the second."""
LOG2E = tl.constexpr(1.4426950408889634)
NEVER = tl.constexpr(1e30)
"""Logsumexp of a query that sees nothing: every weight of it is 2^−∞ = 0."""
PAST = tl.constexpr(0)
EXACT = tl.constexpr(1)
FUTURE = tl.constexpr(2)
LOGBIAS = tl.constexpr(0)
POSTMUL = tl.constexpr(1)
LOGITMUL = tl.constexpr(2)
NONE = tl.constexpr(3)
"""No decay at all: what the others are measured against."""


@triton.jit
@no_type_check
def head_of(rates, weights, R: tl.constexpr, VARIANT: tl.constexpr):
    """Return λ0, and by slot μ log2 e and w (0 beyond R, and in the second half).

    Only ``logbias`` has decay in the exponent; elsewhere λ0 = 0 and the kernel is whole.
    """
    slot = tl.arange(0, SLOTS)
    rate_at = slot % HALF
    rate = tl.load(rates + rate_at, mask=rate_at < R, other=float("inf"))
    slowest = tl.min(rate) if VARIANT == LOGBIAS else 0.0
    excess = tl.where(rate_at < R, rate - slowest, 0.0) * LOG2E
    return slowest, excess, tl.load(weights + slot, mask=slot < R, other=0.0)


@triton.jit
@no_type_check
def near_blocks(blocks, further, counts, own, kind, n_others, reach, WIDTH: tl.constexpr):
    """Return where the blocks of a kind are listed, and how many to visit: to the last in reach."""
    place, to = tl.arange(0, WIDTH), (own * 3 + kind) * n_others
    listed = place < tl.load(counts + own * 3 + kind)
    days = tl.load(further + to + place, mask=listed, other=float("inf"))
    return blocks + to, tl.max(tl.where(listed & (days <= reach), place + 1, 0))


@triton.jit
@no_type_check
def nearest_edge(listed, near, k_times, side: tl.constexpr):
    """Return the nearest time of the blocks to visit: their last in the past, else their first."""
    first = tl.load(listed, mask=near > 0, other=0)
    return tl.load(k_times + 2 * first + 1 - side, mask=near > 0, other=0.0)


@triton.jit
@no_type_check
def query_times(tq, past, future, kv_end, at, exists, n_keys):
    """Return the queries' times, those of their nearest keys on both sides, and what they see."""
    t = tl.load(tq + at, mask=exists, other=0.0)
    before = tl.load(past + at, mask=exists, other=0.0)
    after = tl.load(future + at, mask=exists, other=0.0)
    end = tl.load(kv_end + at, mask=exists, other=0).to(tl.int32)
    return t, before, after, tl.minimum(end, n_keys)


@triton.jit
@no_type_check
def load_rows(x, at, n, stride, D: tl.constexpr, DP: tl.constexpr):
    """Load the positions `at` of a view [n, D] as [.., DP], with zeros beyond its edges."""
    c = tl.arange(0, DP)
    mask = (at < n)[:, None] & (c < D)[None, :]
    return tl.load(x + at.to(tl.int64)[:, None] * stride + c[None, :], mask=mask, other=0.0)


@triton.jit
@no_type_check
def store_rows(x, at, n, stride, value, D: tl.constexpr, DP: tl.constexpr):
    """Store [.., DP] at the positions `at` of a view [n, D], in its dtype."""
    c = tl.arange(0, DP)
    mask = (at < n)[:, None] & (c < D)[None, :]
    to = x + at.to(tl.int64)[:, None] * stride + c[None, :]
    tl.store(to, value.to(x.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check
def as_factors(x, like):
    """Round factors, and G beside them, to the inputs' type; from float16 G = P / K̃ runs over."""
    return x.to(tl.bfloat16 if like.dtype == tl.float16 else like.dtype)


@triton.jit
@no_type_check
def left_factors(a, excess, weight, like):
    """Return w e^(−μ a), [.., SLOTS]."""
    return as_factors(weight[None, :] * tl.exp2(-a[:, None] * excess[None, :]), like)


@triton.jit
@no_type_check
def right_factors(b, excess, like):
    """Return e^(−μ b) in the first half of the slots and b e^(−μ b) in the second."""
    timed = tl.arange(0, SLOTS) >= HALF
    factors = tl.exp2(-b[:, None] * excess[None, :]) * tl.where(timed[None, :], b[:, None], 1.0)
    return as_factors(factors, like)


@triton.jit
@no_type_check
def side_decay(
    t_keys, anchor, sign, left, excess, slow, PRECISION: tl.constexpr, VARIANT: tl.constexpr
):
    """Return λ0 times the days from `anchor` to the keys (base 2), K̃, and the keys' factors."""
    if VARIANT == NONE:
        return 0.0, 1.0, left
    gone = tl.maximum((anchor - t_keys) * sign, 0.0)
    right = right_factors(gone, excess, left)
    kernel = tl.dot(left, tl.trans(right), input_precision=PRECISION)
    return (gone * slow)[None, :], kernel, right


@triton.jit
@no_type_check
def pair_decay(
    t, keys, past, future, rates, weights, slowest, R: tl.constexpr, VARIANT: tl.constexpr
):
    """Return Δ, λ0 times the days beyond the nearest key's (base 2) and K̃, pair by pair."""
    if VARIANT == NONE:
        return 0.0, 0.0, 1.0
    gap = tl.abs(t - keys)
    further = tl.maximum(tl.where(keys <= t, past - keys, keys - future), 0.0)
    kernel = tl.zeros_like(gap)
    for r in tl.static_range(R):
        excess = (tl.load(rates + r) - slowest) * LOG2E
        kernel += tl.load(weights + r) * tl.exp2(-gap * excess)
    return gap, further * (slowest * LOG2E), kernel


@triton.jit
@no_type_check
def logits_of(x, taken, kernel, VARIANT: tl.constexpr):
    """Return logits to the base 2 from q · k / √D, to that base too."""
    if VARIANT == LOGITMUL:
        x *= kernel
    return x - taken


@triton.jit
@no_type_check
def pieces(e, plain, kernel, dp, dot, VARIANT: tl.constexpr):
    """Return P, dS and G from e^(logit − lse), the plain logits and dO · V; see ../README.md."""
    if VARIANT == LOGBIAS:
        p, g = e * kernel, e * (dp - dot)
        ds = g * kernel
    elif VARIANT == POSTMUL:
        p, g = e * kernel, e * dp
        ds = g * kernel - e * dot
    elif VARIANT == LOGITMUL:
        p, g = e, e * (dp - dot)
        ds = g * kernel
        g *= plain * (1 / LOG2E)
    else:
        p, ds = e, e * (dp - dot)
        g = ds
    return p, ds, g
