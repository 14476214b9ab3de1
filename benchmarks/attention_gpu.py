"""The GPU's attention beside its peers: errors, forward, and forward with backward, in bfloat16.

    python benchmarks/attention_gpu.py [--lengths 512 2048 8192 32768] [--rates 4 8]
                                       [--channels 64 128]

Without a GPU it says so and ends; `--smoke` then runs each arm once in float32, ours in Triton's
interpreter, and times nothing. The peers are the same kernels without any decay (a plain Triton
flash kernel, to which the ratios are), PyTorch's flash attention without any bias, and
FlexAttention, compiled, whose score function mixes the exponentials, with rates that learn and with
rates that do not. A batch has 16,384 tokens, or one row. Goals at N = 2048, forward and backward:
at most 1.6 (64 channels) and 1.4 (128) times the plain kernel; half of FlexAttention's time with 8
rates; gradients of rates and weights within 2e-2 of float64. Writes results/attention_gpu.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton

from healthfm_core.kernels.ct_attention import reference
from healthfm_core.kernels.ct_attention.cuda import launches
from healthfm_core.kernels.ct_attention.inputs import Inputs, Variant

RESULTS = Path(__file__).parent / "results"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
HEADS, BATCH_TOKENS = 8, 16384
OURS, PLAIN = "continuous-time (Triton)", "plain (Triton)"
ERRORS_AT_MOST = 2048
"""The float64 reference of 4,096 tokens and 8 rates would take tens of GB."""

Attend = Callable[[Inputs], Tensor]


class Kernel(torch.autograd.Function):
    """Our kernels on given inputs, without what the operators add to a launch."""

    @staticmethod
    def forward(ctx: Any, variant: Variant, *tensors: Tensor) -> Tensor:
        """Return the output."""
        out, lse = launches.forward(Inputs(*tensors), variant)
        ctx.save_for_backward(*tensors, out, lse)
        ctx.variant = variant
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v, rates and weights."""
        *tensors, out, lse = ctx.saved_tensors
        found = launches.backward(d_out, Inputs(*tensors), out, lse, ctx.variant)
        return (None, *found[:3], None, None, None, None, *found[3:])


def ours(x: Inputs) -> Tensor:
    """Attend with decay."""
    return Kernel.apply("logbias", *x)


def plain(x: Inputs) -> Tensor:
    """Attend with the same kernels, from which the decay is left out when they are compiled."""
    return Kernel.apply("none", *x)


def flash(x: Inputs) -> Tensor:
    """Attend with PyTorch's own flash attention."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return scaled_dot_product_attention(*x[:3], is_causal=True)


def flex(learn: bool) -> Attend:
    """Return FlexAttention with the decay in its score function."""
    compiled = torch.compile(flex_attention) if DEVICE == "cuda" else flex_attention
    masks: dict[int, Any] = {}

    def attend(x: Inputs) -> Tensor:
        length, t = x.q_BHQD.shape[2], x.tq_days_BQ
        rates, weights = x.rates_BHR, x.weights_BHR
        if not learn:
            rates, weights = rates.detach(), weights.detach()

        def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            gap = t[b, i] - t[b, j]
            mixed = sum(
                weights[b, h, r] * torch.exp(-rates[b, h, r] * gap) for r in range(rates.shape[-1])
            )
            return s + torch.log(mixed + 1e-30)

        if length not in masks:
            masks[length] = create_block_mask(
                lambda b, h, i, j: i >= j, None, None, length, length, device=DEVICE
            )
        return compiled(*x[:3], score_mod=score, block_mask=masks[length])

    return attend


def arms() -> dict[str, Attend]:
    """Return what is compared, by name."""
    return {
        PLAIN: plain,
        OURS: ours,
        "flash attention (PyTorch)": flash,
        "FlexAttention, rates fixed": flex(learn=False),
        "FlexAttention, rates learned": flex(learn=True),
    }


def inputs_of(length: int, rates: int, channels: int, subjects: int) -> Inputs:
    """Return people's events over ten years, each seeing itself and what came before."""
    g = torch.Generator().manual_seed(length + rates + channels)
    shape = (subjects, HEADS, length, channels)
    q, k, v = (torch.randn(shape, generator=g).to(DEVICE, DTYPE) for _ in range(3))
    t = (torch.rand(subjects, length, generator=g) * 3652).sort(1).values.to(DEVICE)
    kv_end = torch.arange(1, length + 1, device=DEVICE).expand(subjects, -1)
    log_rate = torch.empty(subjects, HEADS, rates)
    log_rate.uniform_(math.log(2e-4), math.log(16), generator=g)
    weights = torch.softmax(torch.randn(subjects, HEADS, rates, generator=g), -1)
    static = torch.zeros(subjects, dtype=torch.int64, device=DEVICE)
    decay = (part.to(DEVICE).requires_grad_() for part in (log_rate.exp(), weights))
    return Inputs(*(part.requires_grad_() for part in (q, k, v)), t, t, kv_end, static, *decay)


def errors_of(attend: Attend, x: Inputs) -> dict[str, float]:
    """Return relative errors of the output and each gradient against float64."""
    d_out = torch.randn_like(x.q_BHQD)
    wide = [part.detach().double() if part.is_floating_point() else part for part in x]
    leaves = [wide[n].requires_grad_() for n in (0, 1, 2, 7, 8)]
    wanted = reference.ct_attention(*wide)
    exact = (wanted.detach(), *torch.autograd.grad(wanted, leaves, d_out.double()))
    out = attend(x)
    found = (out, *torch.autograd.grad(out, [x[n] for n in (0, 1, 2, 7, 8)], d_out))
    names = ("out", "dq", "dk", "dv", "dlambda", "dw")
    return {
        name: float((one.detach().double() - other).norm() / other.norm())
        for name, one, other in zip(names, found, exact, strict=True)
    }


def milliseconds_of(attend: Attend, x: Inputs) -> tuple[float, float]:
    """Return the medians of forward, and of forward with backward."""
    from triton.testing import do_bench

    d_out = torch.randn_like(x.q_BHQD)
    leaves = [part for part in x if part.requires_grad]

    def both() -> None:
        torch.autograd.grad(attend(x), leaves, d_out, allow_unused=True)

    with torch.no_grad():
        forward = do_bench(lambda: attend(x), return_mode="median")
    return forward, do_bench(both, return_mode="median")


def measure(length: int, rates: int, channels: int, *, smoke: bool) -> list[dict[str, Any]]:
    """Return a row per arm."""
    x = inputs_of(length, rates, channels, 1 if smoke else max(1, BATCH_TOKENS // length))
    one = inputs_of(length, rates, channels, 1)
    rows: list[dict[str, Any]] = []
    for name, attend in arms().items():
        row = {"arm": name, "length": length, "rates": rates, "channels": channels}
        if length <= ERRORS_AT_MOST and name == OURS:
            row["errors"] = errors_of(attend, one)
        if smoke:
            attend(Inputs(*(part.detach() for part in x)))  # FlexAttention has no CPU backward
        else:
            try:
                row["forward_ms"], row["both_ms"] = milliseconds_of(attend, x)
            except torch.OutOfMemoryError:
                row["error"] = "out of memory"
        rows.append(row)
        say(row, rows[0])
    return rows


def say(row: Mapping[str, Any], peer: Mapping[str, Any]) -> None:
    """Print a row."""
    where = f"N {row['length']:6d}  R {row['rates']}  d {row['channels']:3d}  {row['arm']:30s}"
    told = row.get("error", "")
    if "both_ms" in row and "both_ms" in peer:
        ratios = (row[key] / peer[key] for key in ("forward_ms", "both_ms"))
        told = f"{row['both_ms']:8.2f} ms   x " + "  x ".join(f"{r:.2f}" for r in ratios)
    if "errors" in row:
        told += "   " + ", ".join(f"{name} {e:.0e}" for name, e in row["errors"].items())
    print(where, told, flush=True)


def main() -> None:
    """Check, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048, 8192, 32768])
    parser.add_argument("--rates", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    if DEVICE == "cpu" and not given.smoke:
        print("no GPU here: nothing measured")
        return
    rows: list[dict[str, Any]] = []
    for channels in given.channels:
        for rates in given.rates:
            for length in given.lengths:
                rows += measure(length, rates, channels, smoke=given.smoke)
                torch.compiler.reset()
    if given.smoke:
        return
    ratios = [
        row["both_ms"] / rows[at // len(arms()) * len(arms())]["both_ms"]
        for at, row in enumerate(rows)
        if row["arm"] == OURS and "both_ms" in row
    ]
    print(f"continuous-time over plain, median of all sizes: x {statistics.median(ratios):.2f}")
    RESULTS.mkdir(exist_ok=True)
    found = {"device": torch.cuda.get_device_name(), "rows": rows}
    (RESULTS / "attention_gpu.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
