"""The wearable's next hours, predicted from the state at an hour (arXiv 2601.12227)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from healthfm_core.modalities.wearable import WEARABLES
from healthfm_core.models.heads import HeadSpec, output_layer
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.objective import Objective, PassOutputs
from healthfm_core.objectives.worn_hours import worn_positions, worn_slots

HOURS_AHEAD: Final = (1, 3, 6, 24)
"""How many hours ahead it looks."""

SHARE: Final = 0.5
"""Share of its weight in the staged curriculum, in every round."""

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


def predictive_coding_loss(
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


def _head(shape: ModelShape, width: int) -> nn.Module:
    """Return a head with one vector of the encoder per hour ahead."""
    return output_layer(width, len(HOURS_AHEAD) * width)


def _loss(seen: PassOutputs) -> Float[Tensor, " B"]:
    batch = seen.batch
    t_days = batch.t_days.gather(1, worn_positions(batch))
    ahead, known = hours_ahead(t_days, worn_slots(batch), HOURS_AHEAD)
    predicted = seen.model.head("predictive_coding", seen.states, batch)
    with torch.no_grad():
        latent = seen.model.encoders[WEARABLES](batch)
    return predictive_coding_loss(predicted.reshape(*known.shape, -1), latent, ahead, known)


def _share(progress: float) -> float:
    return SHARE


PREDICTIVE_CODING: Final = Objective(
    name="predictive_coding",
    head=HeadSpec(_head),
    loss=_loss,
    modality=WEARABLES,
    positions=worn_positions,
    share=_share,
)
