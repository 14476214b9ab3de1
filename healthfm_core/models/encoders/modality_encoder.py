"""What the model asks of a modality's encoder, and how an encoder is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.config import ModelConfig
from healthfm_core.data.batch.batch import Batch
from healthfm_core.models.backbone import gather
from healthfm_core.models.product_of_experts import ExpertSums
from healthfm_core.models.shape import ModelShape


class ModalityEncoder(nn.Module):
    """One modality's way into the model; an encoder overrides what it has to say."""

    def tokens(self, batch: Batch) -> Float[Tensor, "B T d"] | None:
        """Return what it puts at each position of the rows, 0 elsewhere; None: nothing anywhere."""
        return None

    def join(self, states_BQd: Float[Tensor, "B Q d"], batch: Batch) -> Float[Tensor, "B Q d"]:
        """Return the backbone's states with what the modality adds to them late."""
        return states_BQd

    def recall(self, batch: Batch) -> Float[Tensor, "B Q d"] | None:
        """Return what its memory adds to the states of the batch's queries; None: it has none."""
        return None

    def expert(self, batch: Batch, fade_BH: Float[Tensor, "B H"]) -> ExpertSums | None:
        """Return what its tokens say for the one mean of all modalities; None: nothing.

        Args:
            batch: The rows.
            fade_BH: λ per day at which what a token says wears off.
        """
        return None

    def query_logit(self, batch: Batch) -> Float[Tensor, "B Q"] | None:
        """Return what its values add to a label's logit, linearly, at the batch's queries."""
        return None


def no_soft_tokens(config: ModelConfig) -> int:
    """Return 0, for an encoder without soft tokens."""
    return 0


@dataclass(frozen=True)
class EncoderFactory:
    """How the encoder of a modality is built.

    Attributes:
        modality: Its name (`healthfm_core.modalities`).
        build: Returns the encoder for a configuration and a shape; the flag says whether it also
            adds to a label's logit (`ModalityEncoder.query_logit`).
        soft_tokens: Returns how many positions at the start of a row its panel takes.
    """

    modality: str
    build: Callable[[ModelConfig, ModelShape, bool], ModalityEncoder]
    soft_tokens: Callable[[ModelConfig], int] = no_soft_tokens


def place(vectors_BSd: Float[Tensor, "B S d"], slot_BT: Tensor) -> Float[Tensor, "B T d"]:
    """Return each position's own vector, 0 where its slot is none of the vectors'."""
    last = vectors_BSd.shape[1] - 1
    has_vector = (slot_BT >= 0) & (slot_BT <= last)
    return gather(vectors_BSd, slot_BT.clamp(0, last)) * has_vector.unsqueeze(-1)
