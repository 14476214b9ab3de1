"""The next event, token by token, given all before it and the polygenic scores (2510.23639)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import EVENT
from healthfm_core.modalities.ehr import EHR
from healthfm_core.models.gaps import GAP_BINS, gap_bin
from healthfm_core.models.heads import HeadSpec, start_small
from healthfm_core.models.shape import ModelShape
from healthfm_core.objectives.objective import Objective, PassOutputs, forecast_share


class NextEventHead(nn.Module):
    """How long until the next event, and, given that, which token it is (arXiv 2510.23639).

    Args:
        width: d.
        tokens: K.
    """

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.gap = nn.Linear(width, GAP_BINS)
        self.gap_embedding = nn.Embedding(GAP_BINS, width)
        self.token = nn.Linear(width, tokens)
        for layer in (self.gap, self.token):
            start_small(layer)
        nn.init.normal_(self.gap_embedding.weight, std=width**-0.5)

    @property
    def out_features(self) -> int:
        """Gap bins and tokens together."""
        return GAP_BINS + self.token.out_features

    def forward(
        self, states_BQd: Float[Tensor, "B Q d"], gap_BQ: Int64[Tensor, "B Q"]
    ) -> Float[Tensor, "B Q GK"]:
        """Return logits of the gap's bin, then of the token given that the gap is in `gap_BQ`."""
        tokens = self.token(states_BQd + self.gap_embedding(gap_BQ))
        return torch.cat([self.gap(states_BQd), tokens], dim=-1)


@dataclass(frozen=True)
class NextEvents:
    """A batch in which no token sees a later one, and what comes next at each position.

    Attributes:
        batch: The batch; a token sees the row up to itself, even inside its own visit.
        gap: Bin of the time to the event that stands next in the row.
        token: Its token.
        counted: Whether an event stands next.
    """

    batch: Batch
    gap: Int64[Tensor, "B T"]
    token: Int64[Tensor, "B T"]
    counted: Bool[Tensor, "B T"]


def next_events(batch: Batch) -> NextEvents:
    """Return the batch read from left to right.

    An event that follows a worn hour is asked for there; nothing is asked about wearing. From the
    last static the first event is asked for, without its time, which nothing tells.
    """
    follows = torch.roll(batch.kind == EVENT, -1, 1)
    follows[:, -1] = False
    return NextEvents(
        batch.left_to_right(),
        gap_bin(torch.roll(batch.gap_days, -1, 1)),
        torch.roll(batch.token, -1, 1),
        follows & (batch.kind > 0),
    )


def next_event_loss(logits_BTGK: Float[Tensor, "B T GK"], asked: NextEvents) -> Float[Tensor, " B"]:
    """Return each subject's mean negative log-likelihood of the next event's time and token."""
    position = torch.arange(asked.gap.shape[1], device=asked.gap.device)
    timed = position >= asked.batch.n_static[:, None]
    logits = logits_BTGK.transpose(1, 2)
    gap, token = logits[:, :GAP_BINS], logits[:, GAP_BINS:]
    of_gap = nn.functional.cross_entropy(gap, asked.gap, reduction="none") * timed
    of_token = nn.functional.cross_entropy(token, asked.token, reduction="none")
    loss = (of_gap + of_token) * asked.counted
    return loss.sum(1) / asked.counted.sum(1).clamp_min(1)


def _head(shape: ModelShape, width: int) -> nn.Module:
    """Return a head with logits of the gap, then of the token."""
    return NextEventHead(width, shape.tokens)


def _loss(seen: PassOutputs) -> Float[Tensor, " B"]:
    asked = next_events(seen.batch)
    logits = seen.model.head("next_event", seen.states, seen.batch, asked.gap)
    return next_event_loss(logits, asked)


NEXT_EVENT: Final = Objective(
    name="next_event",
    head=HeadSpec(_head),
    loss=_loss,
    query="sep",
    modality=EHR,
    own_view=Batch.left_to_right,
    share=forecast_share,
)
