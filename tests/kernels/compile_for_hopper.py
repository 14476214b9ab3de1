"""Compiles the GPU's kernels for a Hopper GPU and prints what came out, as JSON; needs no GPU.

python -m tests.kernels.compile_for_hopper [channels rates]
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"  # before Triton is imported

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from healthfm_core.kernels.ct_attention.cuda import launches
from healthfm_core.kernels.ct_attention.cuda.attend import attend
from healthfm_core.kernels.ct_attention.cuda.attend_backward import (
    attend_backward_keys,
    attend_backward_queries,
)

HALF = {"q", "k", "v", "out", "d_out", "dq", "dk", "dv"}
LONG, INT = {"kv_end", "n_static"}, {"blocks", "counts"}
SIZES = {"heads", "n_queries", "n_keys", "n_q_blocks", "n_k_blocks"}
BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def type_of(name: str) -> str:
    if name in SIZES or re.fullmatch(r"\w+_[bhij]", name):
        return "i32"
    if name == "scale":
        return "fp32"
    kinds = (("*bf16", HALF), ("*i64", LONG), ("*i32", INT))
    return next((kind for kind, names in kinds if name in names), "*fp32")


def made(kernel: triton.JITFunction, channels: int, rates: int) -> dict[str, int]:
    """Return instructions of one kernel in bfloat16, with rows of 16 bytes."""
    by_queries, by_keys = launches.backward_blocks(torch.bfloat16)
    blocks = by_keys if kernel is attend_backward_keys else by_queries
    if kernel is attend:
        blocks = launches.forward_blocks(channels, torch.bfloat16)
    sizes = {"D": channels, "DP": channels, "R": rates, "BM": blocks.queries, "BN": blocks.keys}
    fixed = sizes | {"WIDTH": 32, "PRECISION": "tf32", "VARIANT": 0}
    types = {name: fixed.get(name) or type_of(name) for name in kernel.arg_names}
    signature = {n: "constexpr" if n in fixed else t for n, t in types.items()}
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, (name, kind) in enumerate(signature.items())
        if str(kind).startswith("*") or re.fullmatch(r"\w+_[bhij]", name)
    }
    source = ASTSource(kernel, signature, fixed, aligned)
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = tool("cuobjdump", "--dump-resource-usage", file.name)
        code = tool("nvdisasm", "-c", file.name)
    registers, stack = (int(n) for n in re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    return {
        "matrix": len(re.findall("HGMMA", code)),
        "registers": registers,
        "stack_bytes": stack,
        "shared_bytes": binary.metadata.shared,
    }


def tool(name: str, *arguments: str) -> str:
    return subprocess.run(
        [BINARIES / name, *arguments], capture_output=True, text=True, check=True
    ).stdout


def main() -> None:
    given = [tuple(map(int, sys.argv[1:3]))] if len(sys.argv) > 2 else [(64, 4), (128, 8)]
    ours = (attend, attend_backward_queries, attend_backward_keys)
    found = {
        f"{kernel.__name__} D={channels} R={rates}": made(kernel, channels, rates)
        for channels, rates in given
        for kernel in ours
    }
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
