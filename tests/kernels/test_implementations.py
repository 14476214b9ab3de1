"""Every implementation against the float64 reference, in outputs and in every gradient."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from healthfm_core.kernels.ct_attention import ct_attention, ops
from healthfm_core.kernels.ct_attention.cpu import compiled, tiles
from tests.compiled_kernel import COMPILER, needs_compiler
from tests.kernels.cases import CASES, Case
from tests.kernels.oracle import (
    LEAVES,
    VARIANTS,
    check_float32,
    exact,
    passes,
    random_like,
    relative,
)

CPU = [pytest.param(compiled, marks=needs_compiler, id="compiled"), pytest.param(tiles, id="tiles")]
ARMS = ("postmul", "logitmul")


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", CASES)
def test_float32_is_within_1e_5_of_float64(implementation, variant, name):
    x = CASES[name].inputs()
    d_out = random_like(x)
    out, _, found = passes(implementation, x, d_out, variant)
    check_float32(x, d_out, variant, out, found)


@needs_compiler
@pytest.mark.parametrize("variant", ["logbias", *ARMS])
def test_both_implementations_mean_the_same_by_logsumexp(variant):
    for name in ("statics", "any prefix", "not sorted", "asked after 80 years"):
        x = CASES[name].inputs()
        seen = (x.kv_end_BQ > 0)[:, None].expand(x.q_BHQD.shape[:3])
        one, other = compiled.forward(x, variant)[1], tiles.forward(x, variant)[1]
        torch.testing.assert_close(one[seen], other[seen], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_within_1e_2_and_keeps_its_dtype(implementation, variant, dtype):
    x = Case(150, channels=64).inputs()
    x = x._replace(**{name: getattr(x, name).to(dtype) for name in LEAVES[:3]})
    d_out = random_like(x).to(dtype)
    out, _, found = passes(implementation, x, d_out, variant)
    wanted_out, wanted = exact(x, d_out, variant)
    assert [part.dtype for part in (out, *found[:3])] == [dtype] * 4
    assert relative(out, wanted_out) < 1e-2
    for leaf, one, other in zip(LEAVES[: len(found)], found, wanted, strict=True):
        assert relative(one, other) < 1e-2, leaf


@pytest.mark.parametrize("implementation", CPU)
@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_left_as_it_lay_in_memory(implementation, variant, monkeypatch):
    """Outputs are written whole: memory that starts as NaN shows what is not."""
    empty = torch.Tensor.new_empty

    def poisoned(self, *args, **kwargs):
        return empty(self, *args, **kwargs).fill_(math.nan)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    for name in ("nothing seen", "any prefix", "65 tokens", "5 channels"):
        x = CASES[name].inputs()
        out, lse, found = passes(implementation, x, random_like(x), variant)
        assert all(bool(part.isfinite().all()) for part in (out, lse, *found)), name


@needs_compiler
def test_the_compiled_kernel_does_not_read_what_is_too_far_to_matter():
    """Values that are no numbers show up in what was computed with them, at whatever weight."""
    x = CASES["forgets in days"].inputs()
    x.v_BHTD[:, :, 64:128] = math.nan  # years before the last tile of queries
    last, d_out = slice(256, 300), random_like(x)
    out, lse = compiled.forward(x)
    assert bool(out[:, :, last].isfinite().all())
    assert bool(out[:, :, 128:140].isnan().all())
    d_out[:, :, :256] = 0
    grads = compiled.backward(d_out, x, out.nan_to_num(), lse)
    assert all(bool(part[:, :, last].isfinite().all()) for part in grads[:3])
    slow = x._replace(rates_BHR=x.rates_BHR * 1e-4)
    assert bool(compiled.forward(slow)[0][:, :, last].isnan().all())


@needs_compiler
def test_the_compiled_kernel_gives_the_same_bits_on_any_number_of_threads():
    x = Case(300, subjects=3).inputs()
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            out, lse, found = passes(compiled, x, random_like(x))
            results.append((out, lse, *found))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_torch_is_told_which_implementation_it_gets():
    single = ops.implementation(torch.device("cpu"), torch.float32)
    wanted = f"compiled ({compiled.instructions()})" if COMPILER else "tiles in PyTorch"
    assert single == wanted
    assert ops.implementation(torch.device("cpu"), torch.float64) == "tiles in PyTorch"


@pytest.mark.parametrize("variant", ["logbias", *ARMS])
def test_the_operators_pass_torchs_own_checks(variant):
    x = CASES["statics"].inputs()
    out, lse = ops.attend(*x, variant)
    torch.library.opcheck(ops.attend, (*x, variant))
    torch.library.opcheck(ops.attend_backward, (random_like(x), *x, out, lse, variant))


GRAPH = """
from typing import get_args

import torch
from healthfm_core.kernels.ct_attention import Variant, ct_attention
from tests.kernels.cases import CASES

x = CASES["statics"].inputs()
leaves = [part.clone().requires_grad_() for part in (x[0], x[1], x[2], x[7], x[8])]

def gradients(f, variant):
    return torch.autograd.grad(f(variant, *leaves), leaves, materialize_grads=True)

def loss(variant, q, k, v, rates, weights):
    return ct_attention(q, k, v, *x[3:7], rates, weights, variant=variant).square().sum()

graph = torch.compile(loss, fullgraph=True, backend="aot_eager")
for variant in get_args(Variant):
    for one, other in zip(gradients(graph, variant), gradients(loss, variant)):
        torch.testing.assert_close(one, other)
print("equal")
"""


def test_a_compiled_graph_gives_the_same_gradients_without_a_break():
    """In a process of its own: the shape checks of the tests cannot be compiled."""
    done = subprocess.run(
        [sys.executable, "-c", GRAPH], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_a_checkpoint_gives_the_same_gradients():
    x = CASES["100 tokens"].inputs()
    leaves = [getattr(x, name).clone().requires_grad_() for name in LEAVES]

    def loss(*parts):
        return ct_attention(*x._replace(**dict(zip(LEAVES, parts, strict=True)))).square().sum()

    kept = torch.utils.checkpoint.checkpoint(loss, *leaves, use_reentrant=False)
    for one, other in zip(
        torch.autograd.grad(kept, leaves), torch.autograd.grad(loss(*leaves), leaves), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_autocast_runs_the_attention_in_bfloat16_and_the_rates_in_float32():
    x = CASES["100 tokens"].inputs()
    project = torch.nn.Linear(32, 32)
    rates = x.rates_BHR.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        q, k, v = project(x.q_BHQD), project(x.k_BHTD), project(x.v_BHTD)
        out = ct_attention(*x._replace(q_BHQD=q, k_BHTD=k, v_BHTD=v, rates_BHR=rates))
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert rates.grad is not None
    assert rates.grad.dtype == torch.float32


@needs_compiler
@pytest.mark.parametrize("variant", VARIANTS)
def test_vmap_of_grad_gives_each_subjects_own_gradient_in_float32(variant):
    x = Case(40, subjects=3).inputs()

    def loss(*parts):
        return ct_attention(*(part[None] for part in parts), variant=variant).square().sum()

    together = torch.func.vmap(torch.func.grad(loss, argnums=(0, 7, 8)))(*x)
    for row in range(3):
        alone = torch.func.grad(loss, argnums=(0, 7, 8))(*(part[row] for part in x))
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[row], other, rtol=1e-6, atol=1e-6)


@needs_compiler
def test_a_variant_that_the_compiled_kernel_lacks_is_served_by_the_tiles(monkeypatch):
    x = CASES["statics"].inputs()
    monkeypatch.setattr(compiled, "VARIANTS", ("logbias",))
    assert ops._serving(x, "logbias") is compiled
    assert ops._serving(x, "postmul") is tiles
