"""Calls the Triton kernels: block sizes, memory and the order of the launches. Nothing waits."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from healthfm_core.kernels.ct_attention.cuda import parts, planning
from healthfm_core.kernels.ct_attention.cuda.attend import attend
from healthfm_core.kernels.ct_attention.cuda.attend_backward import (
    attend_backward_keys,
    attend_backward_queries,
)
from healthfm_core.kernels.ct_attention.inputs import Inputs, Variant, empty_output

LOG2E = math.log2(math.e)
VARIANTS: tuple[Variant, ...] = ("logbias", "postmul", "logitmul", "none")
"""In the order of the kernels' numbers."""
MOST_CHANNELS = 128
SPARE_BITS = 8
"""A far tile is skipped when each of its weights is below 2^-(24 + this) / N of its row's sum: the
24 bits of float32, and some for dλ, whose terms are weights times days."""


@dataclass(frozen=True)
class Blocks:
    """How a pass is cut and run.

    Attributes:
        queries: Queries a block.
        keys: Keys a block.
        warps: Warps a program.
        stages: Depth of the software pipeline.
    """

    queries: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Plan:
    """What each block of queries (or of keys) has to visit.

    Attributes:
        past: Time of each query's nearest visible key as seen from the past.
        future: The same as seen from the future.
        k_times: First and last time of each block of keys.
        reach: Days beyond the nearest key from which on a head forgets all.
        blocks: The blocks to visit by kind, near ones first, [B, own, 3, others].
        further: Days by which they lie beyond the nearest key.
        counts: How many there are, [B, own, 3].
    """

    past: Float[Tensor, "B Q"]
    future: Float[Tensor, "B Q"]
    k_times: Float[Tensor, "B k_blocks 2"]
    reach: Float[Tensor, "B H"]
    blocks: Tensor
    further: Tensor
    counts: Tensor


def serves(x: Inputs) -> bool:
    """Return whether the kernels are made for inputs of this shape."""
    return x.rates_BHR.shape[-1] <= parts.HALF.value and x.q_BHQD.shape[-1] <= MOST_CHANNELS


def forward_blocks(channels: int, dtype: torch.dtype) -> Blocks:
    """Return how the forward pass is cut."""
    if dtype == torch.float32:
        return Blocks(64 if channels <= 64 else 32, 32, 4, 2)
    return Blocks(128, 64, 8, 3 if channels <= 64 else 2)


def backward_blocks(dtype: torch.dtype) -> tuple[Blocks, Blocks]:
    """Return how the backward pass is cut: its kernel by queries, and that by keys."""
    if dtype == torch.float32:
        return Blocks(32, 32, 4, 2), Blocks(32, 32, 4, 2)
    return Blocks(128, 32, 8, 2), Blocks(32, 128, 8, 2)


def forward(
    inputs: Inputs, variant: Variant, blocks: Blocks | None = None
) -> tuple[Tensor, Tensor]:
    """Return the output and each query's logsumexp, counted from its nearest visible key."""
    x = Call(inputs, variant)
    blocks = blocks or forward_blocks(x.channels, x.dtype)
    out = empty_output(x.q)
    lse = x.q.new_empty(x.q.shape[:3], dtype=torch.float32)
    with x.device():
        plan = make_plan(x, blocks, by_query=True)
        attend[x.rows, _cdiv(x.n_queries, blocks.queries)](
            x.q, x.k, x.v, out, lse, *x.where, *x.planned(plan),
            *_strides(x.q, x.k, x.v, out), x.heads, x.n_queries, x.n_keys,
            _cdiv(x.n_keys, blocks.keys), x.scale, **x.sizes(blocks, plan),
        )  # fmt: skip
    return out, lse


def backward(
    d_out: Tensor,
    inputs: Inputs,
    out: Tensor,
    lse: Tensor,
    variant: Variant,
    blocks: tuple[Blocks, Blocks] | None = None,
) -> tuple[Tensor, ...]:
    """Return dq, dk, dv and, per subject, dλ and dw."""
    x = Call(inputs, variant)
    by_queries, by_keys = blocks or backward_blocks(x.dtype)
    d_out, out = _plain(d_out), _plain(out)
    dq, dk, dv = (empty_output(part) for part in (x.q, x.k, x.v))
    inner = torch.empty_like(lse)
    n_q, n_k = _cdiv(x.n_queries, by_queries.queries), _cdiv(x.n_keys, by_keys.keys)
    sums = lse.new_empty(*x.rates.shape[:2], n_q, 2, parts.SLOTS.value)
    with x.device():
        plan = make_plan(x, by_queries, by_query=True)
        attend_backward_queries[x.rows, n_q](
            x.q, x.k, x.v, out, d_out, lse, dq, inner, sums, *x.where, *x.planned(plan),
            *_strides(x.q, x.k, x.v, out, d_out, dq), x.heads, x.n_queries, x.n_keys,
            _cdiv(x.n_keys, by_queries.keys), x.scale, **x.sizes(by_queries, plan),
        )  # fmt: skip
        plan = make_plan(x, by_keys, by_query=False)
        attend_backward_keys[x.rows, n_k + 1](
            x.q, x.k, x.v, d_out, lse, inner, dk, dv, *x.where, *x.planned(plan),
            *_strides(x.q, x.k, x.v, d_out, dk, dv), x.heads, x.n_queries, x.n_keys,
            _cdiv(x.n_queries, by_keys.queries), n_k, x.scale, **x.sizes(by_keys, plan),
        )  # fmt: skip
    n_rates, half = x.rates.shape[-1], parts.HALF.value
    plain, timed = sums.sum(2).unbind(2)
    d_rates = -x.weights * (plain[..., half : half + n_rates] + timed[..., :n_rates])
    return dq, dk, dv, d_rates, plain[..., :n_rates].contiguous()


class Call:
    """The inputs as the kernels want them."""

    def __init__(self, inputs: Inputs, variant: Variant) -> None:
        self.variant = variant
        self.q, self.k, self.v = map(_plain, inputs[:3])
        self.dtype = self.q.dtype
        times = (inputs.tq_days_BQ, inputs.tk_days_BT)
        self.tq, self.tk = (part.float().contiguous() for part in times)
        self.kv_end, self.n_static = inputs.kv_end_BQ.contiguous(), inputs.n_static_B.contiguous()
        parts = (inputs.rates_BHR, inputs.weights_BHR)
        self.rates, self.weights = (part.float().contiguous() for part in parts)
        self.subjects, self.heads, self.n_queries, self.channels = self.q.shape
        self.n_keys = self.k.shape[2]
        self.rows = self.subjects * self.heads
        self.scale = LOG2E / math.sqrt(self.channels)
        self.where = (self.tq, self.tk, self.kv_end, self.n_static)

    def device(self) -> Any:
        """Return a context in which kernels are launched where the inputs are."""
        return torch.cuda.device(self.q.device) if self.q.is_cuda else nullcontext()

    def planned(self, plan: Plan) -> tuple[Tensor, ...]:
        """Return what all three kernels take of a plan."""
        at = (plan.past, plan.future, plan.k_times, self.rates, self.weights)
        return (*at, plan.reach, plan.blocks, plan.further, plan.counts)

    def sizes(self, blocks: Blocks, plan: Plan) -> dict[str, Any]:
        """Return what the kernels are compiled for."""
        return {
            "D": self.channels,
            "DP": max(16, _power(self.channels)),
            "R": self.rates.shape[-1],
            "BM": blocks.queries,
            "BN": blocks.keys,
            "WIDTH": _power(plan.blocks.shape[-1]),
            "PRECISION": "tf32x3" if self.dtype == torch.float32 else "tf32",
            "VARIANT": VARIANTS.index(self.variant),
            "num_warps": blocks.warps,
            "num_stages": blocks.stages,
        }


def make_plan(x: Call, blocks: Blocks, *, by_query: bool) -> Plan:
    """Find nearest keys, the kinds of tiles, and how far each head reaches."""
    n_q, n_k = _cdiv(x.n_queries, blocks.queries), _cdiv(x.n_keys, blocks.keys)
    past, future = torch.empty_like(x.tq), torch.empty_like(x.tq)
    q_times = x.tq.new_empty(x.subjects, n_q, 4)
    q_sees = x.tq.new_empty(x.subjects, n_q, 2, dtype=torch.int32)
    k_times = x.tk.new_empty(x.subjects, n_k, 2)
    planning.summarise_queries[x.subjects, n_q](
        *x.where, past, future, q_times, q_sees, x.n_queries, x.n_keys,
        BM=blocks.queries, BN=blocks.keys,
    )  # fmt: skip
    planning.summarise_keys[x.subjects, n_k](x.tk, x.n_static, k_times, x.n_keys, BN=blocks.keys)

    own, others = (n_q, n_k) if by_query else (n_k, n_q)
    listed = q_sees.new_empty(x.subjects, own, 3, others)
    further = q_times.new_empty(x.subjects, own, 3, others)
    counts = q_sees.new_empty(x.subjects, own, 3)
    planning.plan[x.subjects, own](
        q_times, q_sees, k_times, x.n_static, listed, further, counts, n_q, n_k,
        BN=blocks.keys, WIDTH=_power(others), BY_QUERY=by_query,
    )  # fmt: skip
    return Plan(past, future, k_times, reach_days(x), listed, further, counts)


def reach_days(x: Call) -> Float[Tensor, "B H"]:
    """Return how many days beyond a query's nearest key a key can lie and still matter.

    A logit is at most s = max|q| max|k| / √D from 0, so a key that many days further away weighs
    at most e^(2s − λ0 days) of the nearest one. Only where the decay is in the exponent: the other
    variants' sums run over all keys.
    """
    if x.variant != "logbias":
        return torch.full_like(x.rates[..., 0], math.inf)
    longest_q, longest_k = (
        torch.linalg.vector_norm(part, dim=-1, dtype=torch.float32).amax(-1) for part in (x.q, x.k)
    )
    bits = 24 + SPARE_BITS + math.log2(max(x.n_keys, 1)) + longest_q * longest_k * (2 * x.scale)
    return torch.nan_to_num(bits / (x.rates.amin(-1) * LOG2E), nan=math.inf, posinf=math.inf)


def _plain(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(*views: Tensor) -> tuple[int, ...]:
    return tuple(stride for view in views for stride in view.stride()[:3])


def _cdiv(n: int, unit: int) -> int:
    return -(-n // unit)


def _power(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()
