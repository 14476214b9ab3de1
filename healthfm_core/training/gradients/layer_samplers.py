"""What Opacus has to know of our own leaf modules: importing this registers it."""

from __future__ import annotations

import torch
from opacus.grad_sample import register_grad_sampler, register_norm_sampler
from torch import Tensor, nn

from healthfm_core.models.layers import PerSubjectParameter
from healthfm_core.privacy.norm_samplers import bounded, length, sizes


@register_grad_sampler(PerSubjectParameter)  # type: ignore[untyped-decorator]
def _per_subject_gradient(
    layer: PerSubjectParameter, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    return {layer.weight: backprops}


@register_norm_sampler(PerSubjectParameter)  # type: ignore[untyped-decorator]
def _per_subject_norm(
    layer: PerSubjectParameter, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    return {layer.weight: length(backprops.flatten(1)).to(backprops.dtype)}


@register_norm_sampler(nn.RMSNorm)  # type: ignore[untyped-decorator]
def _rms_norm(
    layer: nn.RMSNorm, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    x = activations[0]
    eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    moved = (backprops * normed).reshape(len(x), -1, x.shape[-1])
    rows = moved.shape[0] * moved.shape[1]
    return {layer.weight: bounded(length(moved.sum(1)), sizes(moved).double().sum(1), rows, moved)}
