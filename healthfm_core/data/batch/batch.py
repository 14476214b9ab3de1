"""One batch of rows, a row per subject, as the model reads it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final, Self

import torch
from jaxtyping import Bool, Float32, Int32, Int64
from torch import Tensor

from healthfm_core.data.batch.sequences import EVENT, NOW, SEP, WEARABLE

US_PER_DAY: Final = 86_400_000_000
DAYS_PER_YEAR: Final = 365.25


@dataclass(frozen=True)
class Batch:
    """B rows of T tokens: ``[soft tokens | statics | history by time | queries | padding]``.

    A row holds one subject. Queries (SEP, NOW) stand behind the history, so nothing ever attends
    to them or to padding: a token sees the row's positions ``0 … kv_end - 1`` and no others. For a
    history token `kv_end` is the end of its own visit (of its own time, for wearables), for a query
    the end of what it may know, for padding 0 … (an output there is unspecified but finite).

    Attributes:
        kind: what each position is (see `sequences`).
        token: code⊕bin token, 0 where the position is not a code.
        code: code index without its bin, 0 likewise.
        quantile: position of the value in its code's distribution, in [-1, 1].
        spread: K further numbers about the value's bin, see `sequences.SPREAD`; 0 without one.
        has_value: whether there is one.
        t_days: days from the subject's last history item (≤ 0 in the history; a SEP's is the next
            visit's, a NOW's the prediction time's); 0 for statics and padding.
        gap_days: days since the previous history item, ≥ 0.
        age_years: age at the token's time; 0 where birth is unknown or the token is static.
        kv_end: see above.
        n_static: leading positions without a time (soft tokens and statics): Δ to them is 0.
        wearable_slot: index into S of the wearable token at this position, -1 elsewhere.
        soft_slot: index of the soft token at this position, -1 elsewhere.
        wearable: S ≥ 1 wearable tokens of W windows of F values; 0 where not observed or padded.
        wearable_mask: where observed.
        panel: P ≥ 1 values of the panels, those of one modality side by side.
        panel_mask: where present (all false where the modality was dropped or is absent).
        query: positions of the Q queries of the row, 0 where there is none.
        query_mask: where there is one.
        query_time_us: the query's own time.
        target: for SEP, whether target v occurs in the visit asked about; zeros otherwise.
        repeats: number of visits in the **whole** earlier history in which v occurred.
        event_days: for each target, days from the query to v's next occurrence, +inf if none.
        exposure_days: days from the query to the end of the record, ≥ 0.
        label: the task's label at the query, NaN where there is none.
        later_code: for an ``early`` row the codes of L tokens of the hours after its query, by
            time, 0 where there is none; L is 0 in other rows. What the row forecasts: no encoder
            reads it.
        later_spread: their numbers, as `spread`.
        later_has_value: whether they have values.
        subject: index of the row's subject in the `Sequences` it came from.
    """

    kind: Int64[Tensor, "B T"]
    token: Int64[Tensor, "B T"]
    code: Int64[Tensor, "B T"]
    quantile: Float32[Tensor, "B T"]
    spread: Float32[Tensor, "B T K"]
    has_value: Bool[Tensor, "B T"]
    t_days: Float32[Tensor, "B T"]
    gap_days: Float32[Tensor, "B T"]
    age_years: Float32[Tensor, "B T"]
    kv_end: Int32[Tensor, "B T"]
    n_static: Int32[Tensor, " B"]
    wearable_slot: Int64[Tensor, "B T"]
    soft_slot: Int64[Tensor, "B T"]
    wearable: Float32[Tensor, "B S W F"]
    wearable_mask: Bool[Tensor, "B S W F"]
    panel: Float32[Tensor, "B P"]
    panel_mask: Bool[Tensor, "B P"]
    query: Int64[Tensor, "B Q"]
    query_mask: Bool[Tensor, "B Q"]
    query_time_us: Int64[Tensor, "B Q"]
    target: Float32[Tensor, "B Q V"]
    repeats: Float32[Tensor, "B Q V"]
    event_days: Float32[Tensor, "B Q V"]
    exposure_days: Float32[Tensor, "B Q"]
    label: Float32[Tensor, "B Q"]
    later_code: Int64[Tensor, "B L"]
    later_spread: Float32[Tensor, "B L K"]
    later_has_value: Bool[Tensor, "B L"]
    subject: Int64[Tensor, " B"]

    @property
    def size(self) -> int:
        """Number of subjects B."""
        return int(self.kind.shape[0])

    def to(self, device: torch.device) -> Self:
        """Return the batch on `device`; itself where it is there."""
        if self.kind.device == device:
            return self
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return type(self)(**moved)

    def ahead(self, days: float) -> Self:
        """Return the same rows asked as SEPs `days` after their queries, knowing no more.

        What would a visit bring that took place on that day? `target` and the other answers stay
        those of the queries as they were.
        """
        asked = (self.kind == NOW) | (self.kind == SEP)
        later = asked * torch.tensor(days, dtype=self.t_days.dtype, device=self.t_days.device)
        return replace(
            self,
            kind=self.kind.masked_fill(asked, SEP),
            t_days=self.t_days + later,
            gap_days=self.gap_days + later,
            age_years=self.age_years + later / DAYS_PER_YEAR * (self.age_years > 0),
            query_time_us=self.query_time_us + round(days * US_PER_DAY),
        )

    def left_to_right(self) -> Self:
        """Return the batch in which a token sees the row up to itself, in its own visit too."""
        position = torch.arange(self.kind.shape[1], device=self.kind.device)
        history = (self.kind == EVENT) | (self.kind == WEARABLE)
        end = torch.where(history, position + 1, self.kv_end)
        return replace(self, kv_end=end.to(self.kv_end.dtype))

    def take(self, rows: Int64[Tensor, " R"]) -> Self:
        """Return some of the rows, in that order; a row may come more than once."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})
