"""Continuous-time attention: softmax attention whose logits decay with the days between tokens.

`ct_attention` is the seam. It takes the rates as tensors of one row per subject, so that their
gradients come back per subject, and it owns no parameter. The maths is in this folder's README.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from healthfm_core.kernels.ct_attention import ops
from healthfm_core.kernels.ct_attention.inputs import Inputs, Variant, without_decay

__all__ = ["Variant", "ct_attention"]


def ct_attention(
    q_BHQD: Float[Tensor, "B H Q D"],
    k_BHTD: Float[Tensor, "B H T D"],
    v_BHTD: Float[Tensor, "B H T D"],
    tq_days_BQ: Float[Tensor, "B Q"],
    tk_days_BT: Float[Tensor, "B T"],
    kv_end_BQ: Int[Tensor, "B Q"],
    n_static_B: Int[Tensor, " B"],
    rates_BHR: Float[Tensor, "B H R"],
    weights_BHR: Float[Tensor, "B H R"],
    *,
    variant: Variant = "logbias",
) -> Float[Tensor, "B H Q D"]:
    """Attend with logits q·k/√D + log K(Δ), K(Δ) = Σ_r w_r e^(−λ_r Δ), Δ = |t_i − t_j| in days.

    Args:
        q_BHQD: Queries: every token of a row, or only those whose output is wanted.
        k_BHTD: Keys.
        v_BHTD: Values.
        tq_days_BQ: Time of each query in days.
        tk_days_BT: Time of each key in days.
        kv_end_BQ: Query i sees the keys ``0 … kv_end_i − 1`` of its row. 0 gives zeros.
        n_static_B: The first ``n_static`` keys of a row have no time: Δ to them is 0.
        rates_BHR: Decay rates λ > 0 per day, one set per subject and head.
        weights_BHR: Weights w ≥ 0 of the components, summing to 1 over R.
        variant: ``logbias``, or an ablation arm: ``postmul`` (after the softmax, not
            renormalised), ``logitmul`` (logits times K; arXiv 2507.14847), or ``none`` (no K:
            rates and weights get no gradient).

    Returns:
        The attended values, in the dtype of `v_BHTD`.
    """
    x = Inputs(
        q_BHQD,
        k_BHTD,
        v_BHTD,
        tq_days_BQ,
        tk_days_BT,
        kv_end_BQ,
        n_static_B,
        rates_BHR,
        weights_BHR,
    )
    if variant == "none":
        x, variant = without_decay(x), "logbias"
    attended: Tensor = ops.CTAttention.apply(*x, variant)[0]  # type: ignore[no-untyped-call]
    return attended
