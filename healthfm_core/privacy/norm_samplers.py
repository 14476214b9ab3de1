"""Per-person norms of the gradients of linear maps and tables, whichever way is cheaper.

For a person with T tokens the gradient of a matrix [p, d] is Σ_t g_t aᵀ_t. Its norm is had from
two [T, T] products without ever forming it (ghost norm: Goodfellow 2015, Li et al. 2022), which
costs T²(p + d); or by forming it, T·p·d. Short rows want the first, small matrices the second
(Bu et al. 2022); Opacus always takes the first, which at our sizes is several times slower.

All of it is float32, and sums cancel: where a person's Σ_t g_t aᵀ_t is far shorter than
M = Σ_t |g_t||a_t|, what is left of it is rounding, in the norm and in the sum that the norm is to
hold down. So what is returned is no estimate but a bound: the norm that was found, and as much more
as rounding can have hidden (Higham 2002, chapter 3: a sum of K products in any order is wrong by at
most γ_K = K·u/(1 - K·u) times the sum of their sizes).

- Two [T, T] products: the square of the norm is wrong by at most γ_(p+d+2)·M².
- The clipped sum over all rows of a batch: a person's part of it is wrong by at most γ_K·M, where K
  counts the rows.
- The second backward pass works the same g_t out again, times the person's share: `BACKWARD` more
  roundings are allowed for, which is a measured allowance, not a proof.

M is 1 to 5 times the norm in our models, so that the bound lies 0.1 to 0.5 % above the norm.
Importing this module puts `linear_norms` and `table_norms` in the place of Opacus's own, the second
of which sorts pairs of numbers where one number does.
"""

from __future__ import annotations

from typing import Final

import torch
from opacus.grad_sample import register_norm_sampler
from torch import Tensor, nn

BACKWARD: Final = 1024
"""Roundings of a backpropagated gradient that its second computation may differ by."""

_MOST: Final = 1 << 22
"""Numbers held at once: 16 MiB."""


def rounding(products: int, like: Tensor) -> float:
    """Return γ_K: the most by which a sum of `products` products is wrong, of their sizes.

    Args:
        products: K.
        like: Of the type and on the device that the sum is made in.
    """
    tf32 = like.is_cuda and torch.backends.cuda.matmul.allow_tf32
    unit = 2.0**-11 if tf32 else torch.finfo(like.dtype).eps / 2
    return products * unit / (1 - products * unit) if products * unit < 0.5 else 1.0


def length(x: Tensor) -> Tensor:
    """Return the Euclidean norm over all but the first dimension, in float64.

    The last dimension's squares are added up in `x`'s own precision, which is quick and exact
    enough: with all of them positive the error is `MARGIN`'s, whatever cancelled before.
    """
    inner = torch.linalg.vector_norm(x, dim=-1)
    return inner.double() if inner.dim() == 1 else inner.flatten(1).double().norm(2, dim=1)


def bounded(norm_B: Tensor, magnitude_B: Tensor, rows: int, like: Tensor) -> Tensor:
    """Return the norms with all that rounding can do to each person's part of the clipped sum.

    Args:
        norm_B: As found, of sums over a person's rows in `like`'s precision.
        magnitude_B: M, the sum of the sizes of what was added up.
        rows: Rows of all people together, which the clipped sum adds up.
        like: Of the type and on the device of the sums.
    """
    return (norm_B + rounding(2 * rows + BACKWARD, like) * magnitude_B).to(like.dtype)


def sizes(x_BTd: Tensor) -> Tensor:
    """Return the Euclidean norm of every row, [B, T]."""
    return torch.linalg.vector_norm(x_BTd, dim=2)


@register_norm_sampler(nn.Linear)  # type: ignore[untyped-decorator]
def linear_norms(
    layer: nn.Linear, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """Return a bound on each person's gradient norm, [B], of the weight and the bias.

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
    g_sizes = sizes(g)
    if layer.weight.requires_grad:
        norms[layer.weight] = _weight_norms(a, g, g_sizes)
    if layer.bias is not None and layer.bias.requires_grad:
        rows = g.shape[0] * g.shape[1]
        norms[layer.bias] = bounded(length(g.sum(1)), g_sizes.double().sum(1), rows, g)
    return norms


def _weight_norms(a_BTd: Tensor, g_BTp: Tensor, g_sizes_BT: Tensor) -> Tensor:
    rows, tokens, d = a_BTd.shape
    p = g_BTp.shape[2]
    ghost = tokens * (p + d) < p * d
    held = 2 * tokens * tokens if ghost else p * d
    some = max(1, _MOST // held)
    norm = _ghost_norms if ghost else _formed_norms
    size_B = (sizes(a_BTd) * g_sizes_BT).double().sum(1)
    parts = (slice(i, i + some) for i in range(0, rows, some))
    found = torch.cat([norm(a_BTd[part], g_BTp[part], size_B[part]) for part in parts])
    return bounded(found, size_B, rows * tokens, a_BTd)


def _ghost_norms(a_BTd: Tensor, g_BTp: Tensor, size_B: Tensor) -> Tensor:
    """Return √(Σ (aaᵀ ∘ ggᵀ) + what rounding may have taken from it)."""
    products = (a_BTd @ a_BTd.mT) * (g_BTp @ g_BTp.mT)
    hidden = rounding(a_BTd.shape[2] + g_BTp.shape[2] + 2, a_BTd) * size_B.square()
    return (products.sum((1, 2), dtype=torch.float64).clamp_min(0) + hidden).sqrt()


def _formed_norms(a_BTd: Tensor, g_BTp: Tensor, size_B: Tensor) -> Tensor:
    return length(g_BTp.mT @ a_BTd)


@register_norm_sampler(nn.Embedding)  # type: ignore[untyped-decorator]
def table_norms(
    layer: nn.Embedding, activations: list[Tensor], backprops: Tensor
) -> dict[Tensor, Tensor]:
    """Return a bound on each person's gradient norm, [B], of a table: rows read twice add up.

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
    each = length(g)
    added = each.new_zeros(len(read)).index_add_(0, place, each)
    owner = torch.div(read, layer.num_embeddings, rounding_mode="floor")
    squares = torch.stack([length(sums), added], dim=1).square()
    total = squares.new_zeros(len(index), 2).index_add_(0, owner, squares).sqrt()
    return {layer.weight: bounded(total[:, 0], total[:, 1], len(key), g)}
