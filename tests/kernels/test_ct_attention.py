"""The tiled attention against the reference, in outputs and in every gradient."""

from __future__ import annotations

import math
from functools import partial
from typing import get_args

import pytest
import torch

from healthfm_core.kernels.ct_attention import Variant, ct_attention, reference

R, H, D = 3, 2, 4
VARIANTS = get_args(Variant)


def inputs(length: int, queries: int | None = None, *, span_days: float = 3000.0, seed: int = 0):
    """Two rows: sorted times with ties and an 80-year gap, three statics in the first row."""
    g = torch.Generator().manual_seed(seed)
    f64 = torch.float64
    t = torch.sort(torch.rand(2, length, generator=g, dtype=f64) * -span_days, 1).values
    t[:, length // 2 :] = t[:, length // 2 :].round()
    t[0, : length // 3] -= 80 * 365.25
    n_static = torch.tensor([min(3, length), 0], dtype=torch.int32)
    t[0, : int(n_static[0])] = 0.0
    kv_end = torch.searchsorted(t[1], t[1], right=True).int()
    kv_end = torch.stack([torch.arange(1, length + 1, dtype=torch.int32), kv_end])
    kv_end[0, : int(n_static[0])] = n_static[0]
    q = torch.randn(2, H, length, D, generator=g, dtype=f64)
    k, v = (torch.randn(2, H, length, D, generator=g, dtype=f64) for _ in range(2))
    rates = torch.exp(torch.randn(2, H, R, generator=g, dtype=f64) * 3 - 4)
    weights = torch.softmax(torch.randn(2, H, R, generator=g, dtype=f64), -1)
    if queries is not None:
        at = torch.randint(0, length, (2, queries), generator=g)
        q = torch.randn(2, H, queries, D, generator=g, dtype=f64)
        return q, k, v, t.gather(1, at), t, kv_end.gather(1, at), n_static, rates, weights
    return q, k, v, t, t, kv_end, n_static, rates, weights


def gradients(function, arguments):
    leaves = [a.clone().requires_grad_() if a.is_floating_point() else a for a in arguments]
    leaves[3], leaves[4] = arguments[3], arguments[4]
    out = function(*leaves)
    g = torch.Generator().manual_seed(9)
    weight = torch.randn(out.shape, generator=g, dtype=torch.float64)
    wanted = [leaves[i] for i in (0, 1, 2, 7, 8)]
    return out, torch.autograd.grad(out, wanted, weight.to(out.dtype), materialize_grads=True)


@pytest.mark.parametrize("length", [1, 2, 17, 63, 100, 130])
@pytest.mark.parametrize("queries", [None, 5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_tiles_equal_the_reference_in_output_and_all_gradients(length, queries, variant):
    arguments = inputs(length, queries)
    out, found = gradients(partial(ct_attention, variant=variant), arguments)
    expected, wanted = gradients(partial(reference.ct_attention, variant=variant), arguments)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_float32_stays_within_1e_5_of_float64():
    arguments = inputs(100)
    exact, _ = gradients(reference.ct_attention, arguments)
    single = [a.float() if a.is_floating_point() else a for a in arguments]
    out, _ = gradients(ct_attention, single)
    exact, out = exact.detach(), out.detach()
    assert float((out.double() - exact).norm() / exact.norm()) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_extreme_rates_and_an_80_year_gap_give_finite_gradients(variant):
    q, k, v, tq, tk, kv_end, n_static, rates, weights = inputs(20)
    for rate in (1e-9, 1e3):
        out, found = gradients(
            partial(ct_attention, variant=variant),
            (q, k, v, tq, tk, kv_end, n_static, torch.full_like(rates, rate), weights),
        )
        assert all(torch.isfinite(part).all() for part in (out, *found))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_query_that_sees_nothing_gives_zeros(variant, dtype):
    arguments = [part.to(dtype) if part.is_floating_point() else part for part in inputs(6)]
    arguments[5] = torch.zeros(2, 6, dtype=torch.int32)
    out = ct_attention(*arguments, variant=variant)
    assert torch.equal(out, torch.zeros(2, H, 6, D, dtype=dtype))


@pytest.mark.parametrize(
    ("variant", "wanted"), [("logbias", 3.0), ("postmul", 2.25), ("logitmul", 3.4), ("none", 2.5)]
)
def test_two_keys_a_half_life_apart_are_weighed_as_each_arm_says(variant, wanted):
    """Both logits are ln 16; K is 1/2 and 1; the values are 1 and 4."""
    ones = torch.ones(1, 1, 2, 1, dtype=torch.float64)
    v = torch.tensor([[[[1.0], [4.0]]]], dtype=torch.float64)
    t = torch.tensor([[-10.0, 0.0]], dtype=torch.float64)
    out = ct_attention(
        ones * math.log(16),
        ones,
        v,
        t,
        t,
        torch.tensor([[1, 2]], dtype=torch.int32),
        torch.zeros(1, dtype=torch.int32),
        torch.full((1, 1, 1), math.log(2) / 10, dtype=torch.float64),
        torch.ones(1, 1, 1, dtype=torch.float64),
        variant=variant,
    )
    assert float(out[0, 0, 1, 0]) == pytest.approx(wanted)


def test_one_rate_is_the_forgetting_transformer():
    q, k, v, t, _, _, _, rates, _ = inputs(40)
    t = torch.sort(t, 1).values
    n = t.shape[1]
    causal = torch.arange(1, n + 1, dtype=torch.int32).repeat(2, 1)
    gates = -rates[:, :, :1] * torch.diff(t, dim=1, prepend=t[:, :1])[:, None]
    cumulative = gates.cumsum(-1)
    bias = cumulative[..., :, None] - cumulative[..., None, :]
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    logits = (q @ k.transpose(-1, -2) / D**0.5 + bias).masked_fill(~seen, -math.inf)
    out = ct_attention(
        q,
        k,
        v,
        t,
        t,
        causal,
        torch.zeros(2, dtype=torch.int32),
        rates[..., :1],
        torch.ones(2, H, 1, dtype=torch.float64),
    )
    torch.testing.assert_close(out, torch.softmax(logits, -1) @ v, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradcheck_passes(variant):
    q, k, v, tq, tk, kv_end, n_static, rates, weights = inputs(6, span_days=30.0)
    arguments = [part.clone().requires_grad_() for part in (q, k, v, rates, weights)]
    assert torch.autograd.gradcheck(
        lambda q, k, v, r, w: ct_attention(
            q, k, v, tq, tk, kv_end, n_static, r, w, variant=variant
        ),
        arguments,
    )


def test_vmap_of_grad_gives_each_subjects_own_gradient():
    q, k, v, tq, tk, kv_end, n_static, rates, weights = inputs(12)

    def loss(rate, row):
        parts = [part[row : row + 1] for part in (q, k, v, tq, tk, kv_end, n_static)]
        return ct_attention(*parts, rate[None], weights[row : row + 1]).square().sum()

    def batched(rate, *parts):
        return ct_attention(*(part[None] for part in (*parts[:7], rate, parts[7]))).square().sum()

    together = torch.func.vmap(torch.func.grad(batched))(
        rates, q, k, v, tq, tk, kv_end, n_static, weights
    )
    for row in range(2):
        alone = rates[row].clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(alone, row), alone)
        torch.testing.assert_close(together[row], expected)


def test_attention_without_decay_has_no_gradient_of_its_rates():
    *rest, rates, weights = inputs(5)
    parts = [part.clone().requires_grad_() for part in (rates, weights)]
    rest[0].requires_grad_()
    ct_attention(*rest, *parts, variant="none").sum().backward()
    assert rest[0].grad is not None
    assert [part.grad for part in parts] == [None, None]
