"""What the clinic will find, told while the device is worn (arXiv 2601.12227), one way only."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch


def cross_modal(
    logits_BQVH: Float[Tensor, "B Q VH"], batch: Batch, *, horizons_days: Sequence[float]
) -> Float[Tensor, " B"]:
    """Return each subject's mean cross-entropy of "v occurs within h days" at its queries.

    The row ends at a worn hour, so every clinical token of the horizon is hidden; what happens is
    known where it happened, or where the record goes on to the horizon's end (a little more often
    than it happens in people, see `evaluation.horizons`; these outputs are no one's forecast). No
    other subject of the batch is a contrast: one subject's loss would depend on another's.
    """
    logits = logits_BQVH.reshape(*logits_BQVH.shape[:2], -1, len(horizons_days))
    ends = batch.event_days.new_tensor(list(horizons_days))
    happens = batch.event_days.unsqueeze(-1) <= ends
    followed = batch.exposure_days[..., None, None] >= ends
    known = (happens | followed) & batch.query_mask[..., None, None]
    loss = nn.functional.binary_cross_entropy_with_logits(
        logits, happens.to(logits.dtype), reduction="none"
    )
    return (loss * known).sum((1, 2, 3)) / known.sum((1, 2, 3)).clamp_min(1)
