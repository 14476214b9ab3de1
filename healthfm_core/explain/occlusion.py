"""A person's risk over time, and what moved it: the model asked again with a part hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from healthfm_core.arrays import Float64, Int64
from healthfm_core.data.batch.hiding import HiddenItems
from healthfm_core.data.batch.row_plan import RowPlan
from healthfm_core.explain.record_parts import RecordPart, hidden_of
from healthfm_core.models.inference import answer
from healthfm_core.objectives.time_to_event import risk
from healthfm_core.trained import BATCH, StoreReading, death_among

NOTHING: Final = RecordPart("group", "nothing")
_LEAST: Final = 1e-12
"""Risks are held this far from 0 and 1, where log-odds end."""


@dataclass(frozen=True)
class Contribution:
    """What a part adds to a risk: the risk as it is, less the risk with the part hidden.

    Attributes:
        part: What was hidden.
        read: Whether the model read any of it; what was cut off of a long record adds 0.
        log_odds: The difference in log-odds.
        risk: The difference in probability.
    """

    part: RecordPart
    read: bool
    log_odds: float
    risk: float


@dataclass(frozen=True)
class OcclusionModel:
    """Asks a model for the risks of some targets.

    Attributes:
        reading: The people and the model.
        columns: Places of the V targets in the vocabulary's.
        edges_days: Ends of the hazard's pieces.
        horizon_days: Risk within so many days.
    """

    reading: StoreReading
    columns: tuple[int, ...]
    edges_days: tuple[float, ...]
    horizon_days: float

    def risks(self, rows: RowPlan, hidden: HiddenItems | None = None) -> Float64:
        """Return the risks [R, V] that rows have, each row with what is hidden of it."""
        batches = self.reading.loader.asked(rows, batch_size=BATCH, hidden=hidden)
        logit = answer(self.reading.model, batches, "time_to_event").logit.astype(np.float64)
        logits = torch.from_numpy(logit)[None]
        death = death_among(self.reading.vocabulary.targets)
        every = risk(logits, self.edges_days, self.horizon_days, death=death)[0]
        return every.numpy()[:, list(self.columns)]

    def contributions(self, row: RowPlan, parts: Sequence[RecordPart]) -> list[list[Contribution]]:
        """Return, for each target, what each part adds to the risk of one row.

        Every part is hidden on its own and the whole model asked again; what the model does not
        know of, neither as a token of the row nor in how often a target occurred, adds exactly 0.
        """
        people, subject = self.reading.people, int(row.subject[0])
        items = np.arange(people.offsets[subject], row.stop[0])
        target_of_code = self.reading.vocabulary.target_of_code
        every = hidden_of(parts, people, items, target_of_code)
        kept = self.reading.loader.items_read(row)
        read = [
            reads(part, kept) or bool(less.any())
            for part, less in zip(parts, every.visits, strict=True)
        ]
        asked = [NOTHING, *(part for part, is_read in zip(parts, read, strict=True) if is_read)]
        again = row.take(np.zeros(len(asked), np.int64))
        logit_risks = self.risks(again, hidden_of(asked, people, items, target_of_code))
        change = np.zeros((2, len(parts), len(self.columns)))
        change[0, read] = log_odds(logit_risks[:1]) - log_odds(logit_risks[1:])
        change[1, read] = logit_risks[:1] - logit_risks[1:]
        return [
            [
                Contribution(part, is_read, float(odds), float(chance))
                for part, is_read, odds, chance in zip(parts, read, *change[:, :, v], strict=True)
            ]
            for v in range(len(self.columns))
        ]


def reads(part: RecordPart, items: Int64) -> bool:
    """Return whether a row that holds `items` holds something of the part."""
    return part.birth or bool(part.scores) or bool(np.isin(part.items, items).any())


def log_odds(probability: Float64) -> Float64:
    """Return log(p / (1 − p))."""
    held = np.clip(probability, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(held) - np.log1p(-held))
