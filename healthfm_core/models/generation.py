"""Futures drawn from the next-event head, one event after the other (arXiv 2510.23639).

A trajectory goes on from the last item of a row: how long until the next event, which token, and
again, until the horizon. Times and tokens are drawn from the raw probabilities: cutting off the
unlikely (top-k, top-p) would give every rare outcome the probability 0. What the layers have read
of the past is kept, so one more event costs one more token, not one more pass over the record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from healthfm_core.data.batch.batch import DAYS_PER_YEAR, Batch
from healthfm_core.data.batch.sequences import EVENT
from healthfm_core.modalities.ehr import EHR
from healthfm_core.models.backbone import Block, gather
from healthfm_core.models.encoders import EHREncoder
from healthfm_core.models.gaps import GAP_BINS, gap_in
from healthfm_core.models.healthfm import HealthFM
from healthfm_core.models.time_features import first_time
from healthfm_core.tokens.vocabulary import TokenParts

STILL_RUNNING: Final = 0.75
"""Trajectories that are over are let go once fewer than this share of those at work go on."""


@dataclass(frozen=True)
class Futures:
    """N trajectories of each of R rows.

    Attributes:
        first_days: Days from the row's query to the target's first occurrence in the trajectory,
            +inf where it does not occur within the horizon.
        events: Events drawn in all.
        cut_short: Share of the trajectories that came to their most events before the horizon.
    """

    first_days: Float[Tensor, "R N V"]
    events: int
    cut_short: float


@torch.no_grad()
def draw_futures(
    model: HealthFM,
    batch: Batch,
    parts: TokenParts,
    *,
    samples: int,
    horizon_days: float,
    generator: torch.Generator,
    most_events: int = 256,
) -> Futures:
    """Draw what happens after each row's query.

    Args:
        model: With an EHR encoder and a next-event head.
        batch: Rows with one query each, after all of the row's history and at the time of its last
            item (as `BatchLoader.epoch` gives for ``now``).
        parts: What the vocabulary's tokens stand for.
        samples: N, trajectories of each row.
        horizon_days: Where they end.
        generator: Draws everything, on the CPU whatever the model's device.
        most_events: A trajectory ends after so many events.
    """
    was_training = model.training
    model.eval()
    past = _Past.read(model, batch, room=most_events)
    past = past.take(torch.arange(batch.size, device=model.device).repeat_interleave(samples))
    first = torch.full((batch.size * samples, model.shape.targets), torch.inf, device=model.device)
    table = {
        name: torch.from_numpy(getattr(parts, name)).to(model.device)
        for name in ("code", "quantile", "has_value", "target")
    }
    row = torch.arange(batch.size * samples, device=model.device)
    events = 0
    for step in range(most_events):
        gap, token = _draw(model, past, generator, may_coincide=step > 0)
        day = past.day + gap
        here = day <= horizon_days
        events += int(here.sum())
        if not here.any():
            row = row[here]
            break
        if here.float().mean() < STILL_RUNNING:
            past = past.take(torch.nonzero(here).squeeze(1))
            row, gap, token, day, here = (a[here] for a in (row, gap, token, day, here))
        target = table["target"][token]
        known = here & (target >= 0)
        at = (row[known], target[known])
        first[at] = torch.minimum(first[at], day[known])
        value = table["quantile"][token] * table["has_value"][token]
        past.append(model, token, table["code"][token], value, gap)
    model.train(was_training)
    left = float((past.day <= horizon_days).sum()) if len(row) else 0.0
    return Futures(first.view(batch.size, samples, -1), events, left / max(1, len(first)))


def _draw(
    model: HealthFM, past: _Past, generator: torch.Generator, *, may_coincide: bool
) -> tuple[Float[Tensor, " A"], Int64[Tensor, " A"]]:
    """Draw the days to the next event, and its token given them.

    The first event of a trajectory does not coincide with the last one of the record: the visit is
    over.
    """
    head = model.heads["next_event"]
    states = model.join(past.state, past.batch)
    nothing = torch.zeros(states.shape[:2], dtype=torch.int64, device=states.device)
    gaps = head(states, nothing)[:, 0, :GAP_BINS].float()
    if not may_coincide:
        gaps[:, 0] = -torch.inf
    bin_ = _pick(gaps, generator)
    token = _pick(head(states, bin_[:, None])[:, 0, GAP_BINS:].float(), generator)
    uniform = torch.rand(len(bin_), generator=generator).to(states.device)
    return gap_in(bin_, uniform), token


def _pick(logits: Float[Tensor, "A K"], generator: torch.Generator) -> Int64[Tensor, " A"]:
    """Draw an index of each row by its probability."""
    level = torch.rand(len(logits), 1, generator=generator).to(logits.device)
    reached = logits.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(reached, level * reached[:, -1:]).squeeze(1)


@dataclass
class _Past:
    """What the layers have read so far of A trajectories, with room for more.

    Attributes:
        batch: The rows the trajectories go on from, less their wearing.
        keys, values: Per layer, [A, H, P, D].
        t_days: [A, P] times in the batch's days.
        length: [A] positions that are filled.
        start: [A, 1] time of the row's first event.
        age_years: [A, 1] age at the last item; 0 where it is unknown.
        day: [A] days since the query.
        pooled: [A, 1, d] sum of what the tokens add by themselves; None for a model without.
        state: [A, 1, d] the backbone's state at the last item.
    """

    batch: Batch
    keys: list[Tensor]
    values: list[Tensor]
    t_days: Tensor
    length: Tensor
    start: Tensor
    age_years: Tensor
    day: Tensor
    pooled: Tensor | None
    state: Tensor

    @classmethod
    def read(cls, model: HealthFM, batch: Batch, *, room: int) -> _Past:
        """Read each row's history from left to right."""
        batch = batch.left_to_right()
        x = model.backbone.embed(model.encode(batch), batch)
        last = (batch.query[:, :1] - 1).clamp_min(0)
        pooled = (
            model.backbone.pooled_sums(x, batch, last) if model.backbone.has_sum_pooling else None
        )
        keys, values = [], []
        for block in map(_block, model.backbone.blocks):
            q, k, v = block.project(x)
            k, v = block.split(k, batch.t_days), block.split(v)
            q = block.split(q, batch.t_days)
            t, end, static = batch.t_days, batch.kv_end, batch.n_static
            x = block.read(x, q, k, v, t, t, end, static)
            keys.append(torch.nn.functional.pad(k, (0, 0, 0, room)))
            values.append(torch.nn.functional.pad(v, (0, 0, 0, room)))
        read = replace(
            batch, wearable=batch.wearable[:, :0], wearable_mask=batch.wearable_mask[:, :0]
        )
        return cls(
            read,
            keys,
            values,
            torch.nn.functional.pad(batch.t_days, (0, room)),
            batch.query[:, 0].clone(),
            first_time(batch),
            batch.age_years.gather(1, last),
            batch.t_days.gather(1, last)[:, 0] - batch.t_days.gather(1, batch.query[:, :1])[:, 0],
            pooled,
            model.backbone.norm(gather(x, last) + (0.0 if pooled is None else pooled)),
        )

    def take(self, rows: Int64[Tensor, " R"]) -> _Past:
        """Return some of the trajectories, in that order."""
        names = ("t_days", "length", "start", "age_years", "day", "state")
        return replace(
            self,
            batch=self.batch.take(rows),
            keys=[k[rows] for k in self.keys],
            values=[v[rows] for v in self.values],
            pooled=None if self.pooled is None else self.pooled[rows],
            **{name: getattr(self, name)[rows] for name in names},
        )

    def append(
        self, model: HealthFM, token: Tensor, code: Tensor, value: Tensor, gap: Tensor
    ) -> None:
        """Let one more event happen to every trajectory, `gap` [A] days after its last item."""
        backbone, row = model.backbone, torch.arange(len(token), device=token.device)
        now = self.t_days.gather(1, self.length[:, None] - 1) + gap[:, None]
        self.day = self.day + gap
        self.age_years = self.age_years + gap[:, None] / DAYS_PER_YEAR * (self.age_years > 0)
        encoder = cast(EHREncoder, model.encoders[EHR])
        x = encoder.embed(token[:, None], code[:, None], value[:, None])
        x = x + backbone.kind(torch.full_like(token[:, None], EVENT))
        if backbone.has_time:
            x = x + backbone.time.of(now - self.start, gap[:, None], self.age_years)
        if self.pooled is not None:
            self.pooled = self.pooled + backbone.sum_pooling.terms(x)
        self.t_days[row, self.length] = now[:, 0]
        end = (self.length[:, None] + 1).to(self.batch.kv_end.dtype)
        for block, keys, values in zip(
            map(_block, backbone.blocks), self.keys, self.values, strict=True
        ):
            q, k, v = block.project(x)
            keys[row, :, self.length] = block.split(k, now)[:, :, 0]
            values[row, :, self.length] = block.split(v)[:, :, 0]
            q, static = block.split(q, now), self.batch.n_static
            x = block.read(x, q, keys, values, now, self.t_days, end, static)
        self.length = self.length + 1
        self.state = backbone.norm(x if self.pooled is None else x + self.pooled)


def _block(module: torch.nn.Module) -> Block:
    return cast(Block, module)
