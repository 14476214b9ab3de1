"""The wearing of the hours to come, told from the state at an hour (arXiv 2601.12227)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

HALF_AN_HOUR_DAYS: Final = 0.5 / 24
"""How far an hour's token may lie from the hour that was asked for."""


def hours_ahead(
    t_days_BS: Float[Tensor, "B S"], worn_BS: Bool[Tensor, "B S"], hours: Sequence[int]
) -> tuple[Int64[Tensor, "B S A"], Bool[Tensor, "B S A"]]:
    """Return which token lies so many hours after each, and whether there is one."""
    offset = t_days_BS.new_tensor(hours) / 24
    apart = t_days_BS[:, None, :] - t_days_BS[:, :, None]
    near = (apart[..., None] - offset).abs() < HALF_AN_HOUR_DAYS
    near &= (worn_BS[:, None, :] & worn_BS[:, :, None])[..., None]
    return near.to(torch.uint8).argmax(2), near.any(2)


def predictive_coding(
    predicted_BSAd: Float[Tensor, "B S A d"],
    latent_BSd: Float[Tensor, "B S d"],
    ahead_BSA: Int64[Tensor, "B S A"],
    known_BSA: Bool[Tensor, "B S A"],
) -> Float[Tensor, " B"]:
    """Return each subject's mean squared error of the encoder's own later vectors.

    Args:
        predicted_BSAd: What the state at each hour says of A later ones.
        latent_BSd: The encoder's vectors, which get no gradient from here; normalised, so that
            making them small is no way out.
        ahead_BSA: Which vector each prediction is about.
        known_BSA: Whether that hour was worn.
    """
    b, s, a, d = predicted_BSAd.shape
    target = nn.functional.layer_norm(latent_BSd.detach().to(predicted_BSAd.dtype), (d,))
    wanted = target.gather(1, ahead_BSA.view(b, s * a, 1).expand(-1, -1, d)).view(b, s, a, d)
    error = (predicted_BSAd - wanted).square().mean(-1) * known_BSA
    return error.sum((1, 2)) / known_BSA.sum((1, 2)).clamp_min(1)
