"""Every implementation of the attention beside plain attention, in one run: errors, time, memory.

    python benchmarks/attention.py [--lengths 512 2048] [--rates 4 8] [--threads 2] [--repeats 9]

The peer is `scaled_dot_product_attention`, causal, without any bias; the eager form materialises
the decay. Each repeat runs all of them one after the other, forward and backward, so that they see
the same machine; the figure is the median ratio. Goals on two cores, H = 8, d = 64, float32: the
compiled kernel at most 1.0 and the tiles at most 2.0 times the peer; the compiled kernel at least
20 times faster than the eager form at N = 2048; memory linear in N up to 16,384. Errors are
relative to the float64 reference, over the output and every gradient. Writes
results/attention.json and results/attention.png.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from memory import forget_peak, held_mib, peak_mib
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from healthfm_core.kernels.ct_attention import reference
from healthfm_core.kernels.ct_attention.cpu import compiled, tiles
from healthfm_core.kernels.ct_attention.inputs import Inputs

RESULTS = Path(__file__).parent / "results"
HEADS, CHANNELS = 8, 64
PEER = "plain attention"
EAGER_MOST = 2048
"""The eager form of 4,096 tokens would take 8 GB."""
MEMORY_LENGTHS = (2048, 4096, 8192, 16384)

Pass = Callable[[Inputs, Tensor], tuple[Tensor, ...]]


def inputs_of(length: int, rates: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """Return one subject's events over ten years, each seeing itself and what came before."""
    g = torch.Generator().manual_seed(length + rates)
    q, k, v = (torch.randn(1, HEADS, length, CHANNELS, generator=g, dtype=dtype) for _ in range(3))
    t = (torch.rand(1, length, generator=g, dtype=dtype) * 3652).sort(1).values
    kv_end = torch.arange(1, length + 1)[None]
    log_rate = torch.empty(1, HEADS, rates, dtype=dtype)
    log_rate.uniform_(math.log(2e-4), math.log(16), generator=g)
    weights = torch.softmax(torch.randn(1, HEADS, rates, generator=g, dtype=dtype), -1)
    static = torch.zeros(1, dtype=torch.int64)
    return Inputs(q, k, v, t, t, kv_end, static, log_rate.exp(), weights)


def by_hand(module: Any) -> Pass:
    """Return forward and backward of an implementation with a backward of its own."""

    def run(x: Inputs, d_out: Tensor) -> tuple[Tensor, ...]:
        out, lse = module.forward(x)
        return (out, *module.backward(d_out, x, out, lse))

    return run


def eager(x: Inputs, d_out: Tensor) -> tuple[Tensor, ...]:
    """Materialise the decay and let autograd do the rest."""
    leaves = [
        part.detach().requires_grad_()
        for part in (x.q_BHQD, x.k_BHTD, x.v_BHTD, x.rates_BHR, x.weights_BHR)
    ]
    out = reference.ct_attention(*leaves[:3], *x[3:7], *leaves[3:])
    return (out.detach(), *torch.autograd.grad(out, leaves, d_out))


def plain(x: Inputs, d_out: Tensor) -> tuple[Tensor, ...]:
    """Attend without any decay."""
    leaves = [part.detach().requires_grad_() for part in x[:3]]
    out = scaled_dot_product_attention(*leaves, is_causal=True)
    return (out.detach(), *torch.autograd.grad(out, leaves, d_out))


def implementations() -> dict[str, Pass]:
    """Return what runs on this machine, by name."""
    found: dict[str, Pass] = {PEER: plain}
    if compiled.instructions():
        found[f"compiled ({compiled.instructions()})"] = by_hand(compiled)
    return found | {"tiles in PyTorch": by_hand(tiles), "eager": eager}


def largest_error(run: Pass, length: int, rates: int) -> float:
    """Return the largest relative error over the output and all gradients."""
    x = inputs_of(length, rates)
    d_out = torch.randn(x.q_BHQD.shape, generator=torch.Generator().manual_seed(1))
    wide = Inputs(*(part.double() if part.is_floating_point() else part for part in x))
    pairs = zip(run(x, d_out), eager(wide, d_out.double()), strict=True)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


def seconds_of(length: int, rates: int, repeats: int) -> dict[str, list[float]]:
    """Return seconds of each implementation, one entry per repeat."""
    x = inputs_of(length, rates)
    d_out = torch.randn(x.q_BHQD.shape)
    runs = implementations()
    if length > EAGER_MOST:
        del runs["eager"]
    found: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            if name == "eager" and repeat > 3:
                continue
            begun = time.perf_counter()
            run(x, d_out)
            if repeat:
                found[name].append(time.perf_counter() - begun)
    return found


def peak_megabytes(name: str, length: int) -> float:
    """Return what a pass adds to the peak memory of a process of its own."""
    command = [sys.executable, __file__, "--peak-of", name, "--lengths", str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def print_peak(name: str, length: int) -> None:
    """Run once, and print by how much the process's memory grew at its peak, in MB."""
    run = implementations()[name]
    run(inputs_of(64, 4), torch.randn(1, HEADS, 64, CHANNELS))
    x = inputs_of(length, 4)
    d_out = torch.randn(x.q_BHQD.shape)
    forget_peak()
    before = held_mib()
    run(x, d_out)
    print(peak_mib() - before)


def main() -> None:
    """Check, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--rates", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak_of:
        return print_peak(given.peak_of, given.lengths[0])
    rows: list[dict[str, Any]] = []
    for rates in given.rates:
        errors = {
            name: largest_error(run, 513, rates)
            for name, run in implementations().items()
            if name != PEER
        }
        for length in given.lengths:
            seconds = seconds_of(length, rates, given.repeats)
            rows += [row_of(name, length, rates, seconds, errors) for name in seconds]
    memory = {
        name: {length: peak_megabytes(name, length) for length in MEMORY_LENGTHS}
        for name in implementations()
        if name not in (PEER, "eager")
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"threads": given.threads, "rows": rows, "peak_mb": memory}, indent=1)
    (RESULTS / "attention.json").write_text(text + "\n")
    show(rows, memory)
    draw(rows)
    return None


def row_of(
    name: str,
    length: int,
    rates: int,
    seconds: dict[str, list[float]],
    errors: dict[str, float],
) -> dict[str, Any]:
    """Return one line of the result: the median of the repeats' ratios to the peer."""
    ratios = [own / peer for own, peer in zip(seconds[name], seconds[PEER], strict=False)]
    return {
        "implementation": name,
        "length": length,
        "rates": rates,
        "ms": 1e3 * statistics.median(seconds[name]),
        "ratio": statistics.median(ratios),
        "error": errors.get(name),
    }


def show(rows: list[dict[str, Any]], memory: dict[str, dict[int, float]]) -> None:
    """Print the table."""
    for row in rows:
        error = "" if row["error"] is None else f"   error {row['error']:.0e}"
        print(
            f"N {row['length']:5d}  R {row['rates']}  {row['implementation']:18s} "
            f"{row['ms']:8.1f} ms  {row['ratio']:6.2f} x{error}"
        )
    for name, peaks in memory.items():
        told = ", ".join(f"{n}: {mb:.0f} MB" for n, mb in peaks.items())
        print(f"peak memory of {name}: {told}")


def draw(rows: list[dict[str, Any]]) -> None:
    """Draw the ratios to plain attention over the length, a panel per number of rates."""
    from matplotlib.figure import Figure

    every = sorted({row["rates"] for row in rows})
    figure = Figure(figsize=(4 * len(every), 3.2), layout="constrained")
    for axes, rates in zip(figure.subplots(1, len(every), squeeze=False)[0], every, strict=True):
        for name in dict.fromkeys(row["implementation"] for row in rows):
            own = [r for r in rows if (r["implementation"], r["rates"]) == (name, rates)]
            axes.plot([r["length"] for r in own], [r["ratio"] for r in own], "o-", label=name)
        axes.set(xscale="log", yscale="log", xlabel="tokens", title=f"R = {rates}")
        axes.set_ylabel("time over plain attention")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    figure.savefig(RESULTS / "attention.png", dpi=150)


if __name__ == "__main__":
    main()
