"""Continuous-time attention: softmax attention whose logits decay with the days between tokens.

`ct_attention` is the seam. It takes the rates as tensors of one row per subject, so that their
gradients come back per subject, and it owns no parameter. The maths is in this folder's README.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from healthfm_core.kernels.ct_attention import eager, reference
from healthfm_core.kernels.ct_attention.reference import Variant

__all__ = ["Variant", "ct_attention"]


def ct_attention(
    q_BHTD: Float[Tensor, "B H T D"],
    k_BHTD: Float[Tensor, "B H T D"],
    v_BHTD: Float[Tensor, "B H T D"],
    t_days_BT: Float[Tensor, "B T"],
    kv_end_BT: Int[Tensor, "B T"],
    n_static_B: Int[Tensor, " B"],
    rates_BHR: Float[Tensor, "B H R"],
    weights_BHR: Float[Tensor, "B H R"],
    *,
    variant: Variant = "logbias",
) -> Float[Tensor, "B H T D"]:
    """Attend with logits q·k/√D + log K(Δ), K(Δ) = Σ_r w_r e^(−λ_r Δ), Δ = |t_i − t_j| in days.

    Args:
        q_BHTD: Queries.
        k_BHTD: Keys.
        v_BHTD: Values.
        t_days_BT: Time of each token in days.
        kv_end_BT: Token i sees the keys ``0 … kv_end_i − 1`` of its row. 0 gives zeros.
        n_static_B: The first ``n_static`` tokens of a row have no time: Δ from and to them is 0.
        rates_BHR: Decay rates λ > 0 per day, one set per subject and head.
        weights_BHR: Weights w ≥ 0 of the components, summing to 1 over R.
        variant: ``logbias``, or an ablation arm: ``postmul`` (after the softmax, not
            renormalised), ``logitmul`` (logits times K; arXiv 2507.14847), or ``none``.

    Returns:
        The attended values, in the dtype of `v_BHTD`.
    """
    if variant == "logbias" and not t_days_BT.requires_grad:
        return eager.CTAttention.apply(  # type: ignore[no-untyped-call,no-any-return]
            q_BHTD, k_BHTD, v_BHTD, t_days_BT, kv_end_BT, n_static_B, rates_BHR, weights_BHR
        )[0]
    return reference.ct_attention(
        q_BHTD,
        k_BHTD,
        v_BHTD,
        t_days_BT,
        kv_end_BT,
        n_static_B,
        rates_BHR,
        weights_BHR,
        variant=variant,
    )
