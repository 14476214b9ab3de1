"""Per-person norms of the gradients of linear maps and tables, whichever way is cheaper.

For a person with T tokens the gradient of a matrix [p, d] is Σ_t g_t aᵀ_t. Its norm is had from
two [T, T] products without ever forming it (ghost norm: Goodfellow 2015, Li et al. 2022), which
costs T²(p + d); or by forming it, T·p·d. Short rows want the first, small matrices the second
(Bu et al. 2022); Opacus always takes the first, which at our sizes is several times slower.
Importing this module puts `linear_norms` and `table_norms` in the place of Opacus's own, the second
of which sorts pairs of numbers where one number does.
"""

from __future__ import annotations

from typing import Final

import torch
from opacus.grad_sample import register_norm_sampler
from torch import Tensor, nn

_MOST: Final = 1 << 22
"""Numbers held at once: 16 MiB."""


@register_norm_sampler(nn.Linear)  # type: ignore[untyped-decorator]
def linear_norms(
    layer: nn.Linear, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """Return each person's gradient norm, [B], of the weight and the bias.

    Args:
        layer: The map, d to p.
        activations: Its input [B, …, d].
        backprops: The loss's gradient at its output, [B, …, p].
    """
    a = activations[0].flatten(1, -2) if activations[0].dim() > 2 else activations[0][:, None]
    g = backprops.flatten(1, -2) if backprops.dim() > 2 else backprops[:, None]
    wide = torch.promote_types(g.dtype, torch.float32)
    a, g = a.to(wide), g.to(wide)
    norms: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        norms[layer.weight] = _weight_norms(a, g)
    if layer.bias is not None and layer.bias.requires_grad:
        norms[layer.bias] = g.sum(1).norm(2, dim=1)
    return norms


def _weight_norms(a_BTd: Tensor, g_BTp: Tensor) -> Tensor:
    rows, tokens, d = a_BTd.shape
    p = g_BTp.shape[2]
    ghost = tokens * (p + d) < p * d
    held = 2 * tokens * tokens if ghost else p * d
    some = max(1, _MOST // held)
    norm = _ghost_norms if ghost else _formed_norms
    return torch.cat([norm(a_BTd[i : i + some], g_BTp[i : i + some]) for i in range(0, rows, some)])


def _ghost_norms(a_BTd: Tensor, g_BTp: Tensor) -> Tensor:
    """Return √Σ (aaᵀ ∘ ggᵀ); what rounding takes below 0 is 0."""
    products = (a_BTd @ a_BTd.mT) * (g_BTp @ g_BTp.mT)
    return products.sum((1, 2), dtype=torch.float64).clamp_min(0).sqrt().to(a_BTd.dtype)


def _formed_norms(a_BTd: Tensor, g_BTp: Tensor) -> Tensor:
    return (g_BTp.mT @ a_BTd).flatten(1).norm(2, dim=1)


@register_norm_sampler(nn.Embedding)  # type: ignore[untyped-decorator]
def table_norms(
    layer: nn.Embedding, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """Return each person's gradient norm, [B], of a table of vectors: rows read twice add up.

    Args:
        layer: The table.
        activations: The rows read [B, …].
        backprops: The loss's gradient at what was read, [B, …, d].
    """
    index = activations[0].flatten(1)
    rows = torch.arange(len(index), device=index.device)[:, None]
    key = (rows * layer.num_embeddings + index).flatten()
    read, place = key.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    g = backprops.reshape(len(key), -1)
    g = g.to(torch.promote_types(g.dtype, torch.float32))
    sums = g.new_zeros(len(read), g.shape[1]).index_add_(0, place, g)
    squares = sums.square().sum(1)
    owner = torch.div(read, layer.num_embeddings, rounding_mode="floor")
    total = g.new_zeros(len(index)).index_add_(0, owner, squares)
    return {layer.weight: total.sqrt()}
