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
_CANCELLING = ("q_BHQD", "k_BHTD", "rates_BHR", "weights_BHR")


def exact(x: Inputs, d_out: torch.Tensor, variant: Variant = "logbias"):
    """Return the reference's output and gradients in float64."""
    wide = Inputs(*(part.double() if part.is_floating_point() else part for part in x))
    leaves = [getattr(wide, name).requires_grad_() for name in LEAVES]
    out = reference.ct_attention(*wide, variant=variant)
    wanted = leaves[:3] if variant == "none" else leaves
    return out.detach(), torch.autograd.grad(out, wanted, d_out.double())


def terms(x: Inputs, d_out: torch.Tensor, variant: Variant) -> dict[str, torch.Tensor]:
    """Return the sizes of what sums up to dq, dk, dλ and dw: leaf → Σ |terms|, of its shape.

    Where all keys are equally far the terms of 80 years cancel to nothing, and so do those of dq
    and dk where one key is seen; no sum in float32 can be nearer than rounding of its terms.
    """
    x = Inputs(*(part.double() if part.is_floating_point() else part for part in x))
    seen = reference.visible(x.kv_end_BQ, x.k_BHTD.shape[2])
    delta = reference.gaps_days(x.tq_days_BQ, x.tk_days_BT, x.n_static_B)
    log_k = reference.log_kernel(delta, x.rates_BHR, x.weights_BHR)
    root = math.sqrt(x.q_BHQD.shape[-1])
    plain = x.q_BHQD @ x.k_BHTD.transpose(-1, -2) / root
    logits = {"logitmul": plain * log_k.exp(), "logbias": plain + log_k}.get(variant, plain)
    p = torch.softmax(logits.masked_fill(~seen, -math.inf), -1).nan_to_num()
    d_p = d_out.double() @ x.v_BHTD.transpose(-1, -2)
    centred = p * (d_p.abs() + (p * d_p).sum(-1, keepdim=True).abs())
    d_q = centred @ x.k_BHTD.abs() / root
    d_k = centred.transpose(-1, -2) @ x.q_BHQD.abs() / root
    size = {"postmul": p * d_p.abs(), "logitmul": centred * plain.abs()}.get(variant, centred)
    size = size.unsqueeze(2)
    rates, weights = x.rates_BHR[..., None, None], x.weights_BHR[..., None, None]
    in_exponent = log_k[:, :, None] if variant == "logbias" else 0
    share = torch.exp(-rates * delta[:, None, None] - in_exponent)
    d_weights = (size * share).sum((-1, -2))
    d_rates = (weights * size * share * delta[:, None, None]).sum((-1, -2))
    return dict(zip(_CANCELLING, (d_q, d_k, d_rates, d_weights), strict=True))


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
    sizes = terms(x, d_out, variant)
    for leaf, one, other in zip(LEAVES, found, wanted, strict=False):  # "none" has no rates
        least = 0.01 * math.sqrt(other.numel()) if leaf in LEAVES[:3] else 0.0
        allowed = 1e-5 * max(float(other.norm()), least)
        if leaf in sizes:
            allowed = max(allowed, 1e-6 * float(sizes[leaf].norm()), 1e-30)
        assert float((one.double() - other).norm()) <= allowed, leaf
