"""The two operations as torch sees them, which implementation serves them, and their derivatives.

Both are custom operators, so that `torch.compile` takes them as they are, and both stand behind an
`autograd.Function` whose `vmap` folds the mapped dimension into the subjects: rows never meet, so a
batch of batches is one batch. Their arguments are named one by one because `torch.compile` can't
trace a starred `forward`. (`register_autograd` of an operator does not work under functorch.)
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from healthfm_core.kernels.ct_attention.cpu import compiled, tiles
from healthfm_core.kernels.ct_attention.inputs import Inputs, Variant, empty_output


@runtime_checkable
class _Implementation(Protocol):
    def forward(self, inputs: Inputs, variant: Variant) -> tuple[Tensor, Tensor]: ...

    def backward(
        self, d_out: Tensor, inputs: Inputs, out: Tensor, lse: Tensor, variant: Variant
    ) -> tuple[Tensor, ...]: ...


def implementation(device: torch.device, dtype: torch.dtype) -> str:
    """Return which implementation serves tensors of this device and dtype, in words."""
    if _is_compiled(device, dtype):
        return f"compiled ({compiled.instructions()})"
    return "Triton" if _is_triton(device, dtype) else "tiles in PyTorch"


def _is_compiled(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype != torch.float64 and compiled.instructions() is not None


def _is_triton(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda" and dtype != torch.float64 and _passes() is not None


@cache
def _passes() -> ModuleType | None:
    """Return the GPU's passes; None without Triton, which comes with PyTorch for CUDA."""
    if find_spec("triton") is None:
        return None
    return import_module("healthfm_core.kernels.ct_attention.cuda.launches")


def _serving(x: Inputs, variant: str) -> _Implementation:
    """Return the fastest implementation that has the variant; the tiles have them all."""
    device, dtype = x.q_BHQD.device, x.q_BHQD.dtype
    if _is_compiled(device, dtype) and variant in compiled.VARIANTS:
        return compiled
    passes = _passes() if _is_triton(device, dtype) else None
    if passes and variant in passes.VARIANTS and passes.serves(x):
        return cast(_Implementation, passes)
    return tiles


_INPUTS = (
    "Tensor q, Tensor k, Tensor v, Tensor tq_days, Tensor tk_days, Tensor kv_end, "
    "Tensor n_static, Tensor rates, Tensor weights"
)


@torch.library.custom_op(
    "healthfm::ct_attention",
    mutates_args=(),
    schema=f"({_INPUTS}, str variant) -> (Tensor, Tensor)",
)
def attend(*arguments: Tensor | str) -> tuple[Tensor, Tensor]:
    """Return the output and the logsumexp of each query's logits.

    For ``logbias`` it is that of log(K) too, counted from the query's nearest visible key; for
    ``logitmul`` of the logits times K; for ``postmul`` of the plain ones.
    """
    *tensors, variant = arguments
    x = Inputs(*cast(list[Tensor], tensors))
    return _serving(x, str(variant)).forward(x, cast(Variant, variant))


@attend.register_fake
def _(q: Tensor, *_: Tensor | str) -> tuple[Tensor, Tensor]:
    return empty_output(q), q.new_empty(q.shape[:3], dtype=_accumulator(q.dtype))


@torch.library.custom_op(
    "healthfm::ct_attention_backward",
    mutates_args=(),
    schema=f"(Tensor d_out, {_INPUTS}, Tensor out, Tensor lse, str variant) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def attend_backward(d_out: Tensor, *arguments: Tensor | str) -> tuple[Tensor, ...]:
    """Return dq, dk, dv and, per subject, dλ and dw."""
    *inputs, out, lse, variant = arguments
    x = Inputs(*cast(list[Tensor], inputs))
    return _serving(x, str(variant)).backward(
        d_out, x, cast(Tensor, out), cast(Tensor, lse), cast(Variant, variant)
    )


@attend_backward.register_fake
def _(d_out: Tensor, *arguments: Tensor | str) -> tuple[Tensor, ...]:
    x = Inputs(*cast(tuple[Tensor, ...], arguments[:9]))
    wide, like = (x.q_BHQD, x.k_BHTD, x.v_BHTD), (x.rates_BHR, x.weights_BHR)
    return (*map(empty_output, wide), *(part.new_empty(part.shape) for part in like))


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class CTAttention(torch.autograd.Function):
    """The attention of any variant but ``none``; use it through `ct_attention` of this package."""

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tq_days: Tensor,
        tk_days: Tensor,
        kv_end: Tensor,
        n_static: Tensor,
        rates: Tensor,
        weights: Tensor,
        variant: Variant,
    ) -> tuple[Tensor, Tensor]:
        """Return the output and, for the backward pass, the logsumexp."""
        output: tuple[Tensor, Tensor] = attend(
            q, k, v, tq_days, tk_days, kv_end, n_static, rates, weights, variant
        )
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the inputs, the output and the logsumexp."""
        *tensors, ctx.variant = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v, rates and weights, the last two per subject."""
        dq, dk, dv, d_rates, d_weights = _Backward.apply(  # type: ignore[no-untyped-call]
            d_out, *ctx.saved_tensors, ctx.variant
        )
        return dq, dk, dv, None, None, None, None, d_rates, d_weights, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        """Fold the mapped dimension into the subjects."""
        return _folded(CTAttention, info, in_dims, args)


class _Backward(torch.autograd.Function):
    """The backward pass as a function of its own, so that it too can be mapped."""

    @staticmethod
    def forward(
        d_out: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tq_days: Tensor,
        tk_days: Tensor,
        kv_end: Tensor,
        n_static: Tensor,
        rates: Tensor,
        weights: Tensor,
        out: Tensor,
        lse: Tensor,
        variant: Variant,
    ) -> tuple[Tensor, ...]:
        """Return dq, dk, dv, dλ and dw."""
        gradients: tuple[Tensor, ...] = attend_backward(
            d_out, q, k, v, tq_days, tk_days, kv_end, n_static, rates, weights, out, lse, variant
        )
        return gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing: the attention is differentiated once."""

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        """Refuse: use `reference` where second derivatives are wanted."""
        raise RuntimeError("the attention has no second derivative; use the reference")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        """Fold the mapped dimension into the subjects."""
        return _folded(_Backward, info, in_dims, args)


def _folded(
    function: type[torch.autograd.Function],
    info: Any,
    in_dims: tuple[int | None, ...],
    args: tuple[Any, ...],
) -> tuple[Any, Any]:
    *tensors, variant = args
    size: int = info.batch_size
    flat = [
        (arg.movedim(dim, 0) if dim is not None else arg.expand(size, *arg.shape)).flatten(0, 1)
        for arg, dim in zip(tensors, in_dims[:-1], strict=True)
    ]
    parts = function.apply(*flat, variant)  # type: ignore[no-untyped-call]
    return tuple(part.unflatten(0, (size, -1)) for part in parts), (0,) * len(parts)
