"""What every implementation of the attention is measured against: the reference in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch

from healthfm_core.kernels.ct_attention import reference
from healthfm_core.kernels.ct_attention.inputs import Inputs, Variant, without_decay

VARIANTS = get_args(Variant)
LEAVES = ("q_BHQD", "k_BHTD", "v_BHTD", "rates_BHR", "weights_BHR")


def exact(x: Inputs, d_out: torch.Tensor, variant: Variant = "logbias"):
    """Return the reference's output and gradients in float64."""
    wide = Inputs(*(part.double() if part.is_floating_point() else part for part in x))
    leaves = [getattr(wide, name).requires_grad_() for name in LEAVES]
    out = reference.ct_attention(*wide, variant=variant)
    wanted = leaves[:3] if variant == "none" else leaves
    return out.detach(), torch.autograd.grad(out, wanted, d_out.double())


def terms(x: Inputs, d_out: torch.Tensor, variant: Variant) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sizes of what sums up to dλ and dw: Σ |terms|, [B, H, R].

    Where all keys are equally far the terms of 80 years cancel to nothing; no sum in float32 can
    be nearer than rounding of its terms.
    """
    x = Inputs(*(part.double() if part.is_floating_point() else part for part in x))
    seen = reference.visible(x.kv_end_BQ, x.k_BHTD.shape[2])
    delta = reference.gaps_days(x.tq_days_BQ, x.tk_days_BT, x.n_static_B)
    log_k = reference.log_kernel(delta, x.rates_BHR, x.weights_BHR)
    plain = x.q_BHQD @ x.k_BHTD.transpose(-1, -2) / math.sqrt(x.q_BHQD.shape[-1])
    logits = {"logbias": plain + log_k, "postmul": plain, "logitmul": plain * log_k.exp()}[variant]
    p = torch.softmax(logits.masked_fill(~seen, -math.inf), -1).nan_to_num()
    d_p = d_out.double() @ x.v_BHTD.transpose(-1, -2)
    centred = d_p.abs() + (p * d_p).sum(-1, keepdim=True).abs()
    size = (
        p * {"logbias": centred, "postmul": d_p.abs(), "logitmul": centred * plain.abs()}[variant]
    )
    size = size.unsqueeze(2)
    rates, weights = x.rates_BHR[..., None, None], x.weights_BHR[..., None, None]
    in_exponent = log_k[:, :, None] if variant == "logbias" else 0
    share = torch.exp(-rates * delta[:, None, None] - in_exponent)
    d_weights = (size * share).sum((-1, -2))
    return (weights * size * share * delta[:, None, None]).sum((-1, -2)), d_weights


def random_like(x: Inputs, seed: int = 9) -> torch.Tensor:
    return torch.randn(x.q_BHQD.shape, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the error's norm over the value's, an entry of which counts as .01 at least."""
    assert found.shape == wanted.shape
    size = max(float(wanted.norm()), 0.01 * math.sqrt(wanted.numel()))
    return float((found.double() - wanted).norm()) / size


def passes(implementation, x: Inputs, d_out: torch.Tensor, variant: Variant = "logbias"):
    """Return an implementation's output, logsumexp and gradients; those of ``none`` end at dv."""
    if variant == "none":
        out, lse, found = passes(implementation, without_decay(x), d_out)
        return out, lse, found[:3]
    out, lse = implementation.forward(x, variant)
    return out, lse, implementation.backward(d_out, x, out, lse, variant)


def check_float32(
    x: Inputs,
    d_out: torch.Tensor,
    variant: Variant,
    out: torch.Tensor,
    found: Sequence[torch.Tensor],
) -> None:
    """Assert that an output and its gradients are within 1e-5 of float64."""
    wanted_out, wanted = exact(x, d_out, variant)
    assert relative(out, wanted_out) < 1e-5
    for leaf, one, other in zip(LEAVES[:3], found[:3], wanted[:3], strict=True):
        assert relative(one, other) < 1e-5, leaf
    if variant == "none":
        return
    for one, other, size in zip(found[3:], wanted[3:], terms(x, d_out, variant), strict=True):
        error = float((one.double() - other).norm())
        assert error <= max(1e-5 * float(other.norm()), 1e-6 * float(size.norm()), 1e-30)
