"""The compiled kernel behind its C interface (`ct_attention.h`), if there is one."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from healthfm_core.kernels.ct_attention.inputs import Inputs, Variant, empty_output

LIBRARY: Final = Path(__file__).with_name("_ct_attention.so")
"""What `hatch_build.py` puts beside this file when the package is built."""


def instructions() -> str | None:
    """Return the instruction set in use (``avx512``, ``avx2``, ``generic``), None if absent."""
    library = None if why_absent() else _loaded()
    return library.ct_attention_instructions().decode() if library else None


def forward(
    inputs: Inputs, variant: Variant = "logbias"
) -> tuple[Float[Tensor, "B H Q D"], Float[Tensor, "B H Q"]]:
    """Return the output and the logsumexp that `backward` wants (`ops.attend` defines it)."""
    q = inputs.q_BHQD
    call = _Call(inputs, variant)
    out = empty_output(call.q)
    lse = call.q.new_empty(q.shape[:3])
    call.results(out, lse)
    call.run("ct_attention_forward")
    return out.to(q.dtype), lse


def backward(
    d_out: Float[Tensor, "B H Q D"],
    inputs: Inputs,
    out: Float[Tensor, "B H Q D"],
    lse: Float[Tensor, "B H Q"],
    variant: Variant = "logbias",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return dq, dk, dv and, per subject, dλ and dw."""
    call = _Call(inputs, variant)
    call.results(_plain(out), lse)
    gradients = call.gradients(_plain(d_out), inputs)
    call.run("ct_attention_backward")
    q, k, v, rates, weights = gradients
    dtype = inputs.q_BHQD.dtype
    return q.to(dtype), k.to(dtype), v.to(dtype), rates, weights


VARIANTS: Final[tuple[Variant, ...]] = ("logbias", "postmul", "logitmul")
"""``ct_variant`` of the header."""


class _View(ctypes.Structure):
    """``ct_view`` of the header."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("subject", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("position", ctypes.c_int64),
    ]

    @classmethod
    def of(cls, x: Float[Tensor, "B H T D"]) -> _View:
        return cls(x.data_ptr(), *x.stride()[:3])


class _Arguments(ctypes.Structure):
    """``ct_arguments`` of the header."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("subjects", "heads", "queries", "keys")),
        *((name, ctypes.c_int64) for name in ("channels", "rates", "threads", "variant")),
        *((name, _View) for name in ("q", "k", "v", "out")),
        *((name, ctypes.c_void_p) for name in ("tq_days", "tk_days", "kv_end", "n_static")),
        *((name, ctypes.c_void_p) for name in ("rate", "weight", "lse")),
        *((name, _View) for name in ("d_out", "dq", "dk", "dv")),
        *((name, ctypes.c_void_p) for name in ("d_rate", "d_weight")),
    ]


class _Call:
    """One call's arguments, and the tensors whose memory they point to."""

    def __init__(self, inputs: Inputs, variant: Variant) -> None:
        x = inputs
        self.q, k, v = (_plain(part) for part in (x.q_BHQD, x.k_BHTD, x.v_BHTD))
        floats = (x.tq_days_BQ, x.tk_days_BT, x.rates_BHR, x.weights_BHR)
        tq, tk, rates, weights = (part.float().contiguous() for part in floats)
        kv_end, n_static = (part.long().contiguous() for part in (x.kv_end_BQ, x.n_static_B))
        self.kept = [self.q, k, v, tq, tk, rates, weights, kv_end, n_static]
        b, h, n_queries, channels = self.q.shape
        a = self.arguments = _Arguments(b, h, n_queries, k.shape[2], channels, rates.shape[-1])
        a.threads, a.variant = torch.get_num_threads(), VARIANTS.index(variant)
        a.q, a.k, a.v = _View.of(self.q), _View.of(k), _View.of(v)
        a.tq_days, a.tk_days = tq.data_ptr(), tk.data_ptr()
        a.kv_end, a.n_static = kv_end.data_ptr(), n_static.data_ptr()
        a.rate, a.weight = rates.data_ptr(), weights.data_ptr()

    def results(self, out: Tensor, lse: Tensor) -> None:
        self.kept += [out, lse]
        self.arguments.out, self.arguments.lse = _View.of(out), lse.data_ptr()

    def gradients(self, d_out: Tensor, x: Inputs) -> tuple[Tensor, ...]:
        dq, dk, dv = (empty_output(part, torch.float32) for part in (x.q_BHQD, x.k_BHTD, x.v_BHTD))
        d_rates, d_weights = (self.q.new_empty(x.rates_BHR.shape) for _ in range(2))
        gradients = (dq, dk, dv, d_rates, d_weights)
        self.kept += [d_out, *gradients]
        a = self.arguments
        a.d_out, a.dq, a.dk, a.dv = map(_View.of, (d_out, dq, dk, dv))
        a.d_rate, a.d_weight = d_rates.data_ptr(), d_weights.data_ptr()
        return gradients

    def run(self, name: str) -> None:
        library = _loaded()
        assert library is not None, "ask `instructions` before calling"
        if getattr(library, name)(ctypes.byref(self.arguments)):
            raise MemoryError("the attention's buffers do not fit into memory")


def _plain(x: Tensor) -> Tensor:
    """Return `x` in float32 with its channels side by side."""
    x = x.float()
    return x if x.stride(-1) == 1 else x.contiguous()


@cache
def why_absent() -> str | None:
    """Return why the compiled kernel can't be used, None where it can."""
    if not LIBRARY.is_file():
        return "it was not compiled when this package was built or installed (no C++ compiler)"
    try:
        library = _loaded()
    except OSError as error:
        return f"it does not fit this machine: {error}"
    if library is None:
        return "it was compiled from other sources than this package's"
    return None


@cache
def _loaded() -> ctypes.CDLL | None:
    """Return the library, None where its arguments are not the ones that are passed here."""
    library = ctypes.CDLL(str(LIBRARY))
    size = getattr(library, "ct_attention_arguments_size", None)
    if size is None or size() != ctypes.sizeof(_Arguments):
        return None
    library.ct_attention_instructions.restype = ctypes.c_char_p
    return library
