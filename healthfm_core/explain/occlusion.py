"""A person's risk over time, and what moved it: the model asked again with a part hidden."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from healthfm_core.data.batch import Batch
from healthfm_core.data.hiding import Hidden
from healthfm_core.data.rows import Rows
from healthfm_core.explain.parts import Part, hidden_of
from healthfm_core.models.heads import HAZARD
from healthfm_core.models.inference import answer
from healthfm_core.objectives.time_to_event import risk
from healthfm_core.trained import BATCH, Reading

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

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

    part: Part
    read: bool
    log_odds: float
    risk: float


@dataclass(frozen=True)
class Asker:
    """Asks a model for the risks of some targets.

    Attributes:
        reading: The people and the model.
        columns: Places of the V targets in the vocabulary's.
        edges_days: Ends of the hazard's pieces.
        horizon_days: Risk within so many days.
    """

    reading: Reading
    columns: tuple[int, ...]
    edges_days: tuple[float, ...]
    horizon_days: float

    def risks(
        self, rows: Rows, hidden: Hidden | None = None, forgotten: Float32 | None = None
    ) -> Float64:
        """Return the risks [R, V] that rows have, each row with what is hidden of it.

        Args:
            rows: The rows.
            hidden: What each of them lacks.
            forgotten: [R, all targets] earlier visits that no longer count as having held a target.
        """
        batches = self.reading.loader.asked(rows, batch_size=BATCH, hidden=hidden)
        if forgotten is not None:
            batches = _forgetting(batches, forgotten)
        found = answer(self.reading.model, batches, HAZARD).logit.astype(np.float64)
        pieces = len(self.edges_days)
        chosen = found.reshape(len(found), -1, pieces)[:, list(self.columns)]
        logits = torch.from_numpy(chosen.reshape(len(found), -1))
        return risk(logits[None], self.edges_days, self.horizon_days)[0].numpy()

    def contributions(self, row: Rows, parts: Sequence[Part]) -> list[list[Contribution]]:
        """Return, for each target, what each part adds to the risk of one row.

        Every part is hidden on its own and the whole model asked again, which then also counts
        fewer earlier visits with a target; what neither is read nor counted adds exactly 0.
        """
        items = self.reading.loader.items_read(row)
        lost = self._lost(parts)
        read = [reads(part, items) or bool(n.any()) for part, n in zip(parts, lost, strict=True)]
        asked = [part for part, is_read in zip(parts, read, strict=True) if is_read]
        whole = Part("group", "nothing hidden")
        again = row.take(np.zeros(len(asked) + 1, np.int64))
        n_scores = self.reading.people.prs.shape[1]
        forgotten = np.vstack([np.zeros_like(lost[:1]), lost[read]])
        found = self.risks(again, hidden_of([whole, *asked], n_scores), forgotten)
        change = np.zeros((2, len(parts), len(self.columns)))
        change[0, read] = log_odds(found[:1]) - log_odds(found[1:])
        change[1, read] = found[:1] - found[1:]
        return [
            [
                Contribution(part, is_read, float(odds), float(chance))
                for part, is_read, odds, chance in zip(parts, read, *change[:, :, v], strict=True)
            ]
            for v in range(len(self.columns))
        ]

    def _lost(self, parts: Sequence[Part]) -> Float32:
        """Return [parts, all targets] visits whose every record of a target is in the part."""
        people, vocabulary = self.reading.people, self.reading.vocabulary
        target = vocabulary.target_of_code[people.code]
        found = np.zeros((len(parts), len(vocabulary.targets)), np.float32)
        for place, part in enumerate(parts):
            items = np.array([i for i in part.items if target[i] >= 0], np.int64)
            owner = np.searchsorted(people.offsets, items, side="right") - 1
            for visit, code, subject in {
                *zip(people.visit[items], target[items], owner, strict=True)
            }:
                mine = slice(people.offsets[subject], people.offsets[subject + 1])
                same = (people.visit[mine] == visit) & (target[mine] == code)
                held = people.offsets[subject] + np.flatnonzero(same)
                found[place, code] += visit >= 0 and bool(np.isin(held, items).all())
        return found


def _forgetting(batches: Iterable[Batch], forgotten: Float32) -> Iterator[Batch]:
    done = 0
    for batch in batches:
        fewer = torch.from_numpy(forgotten[done : done + batch.size])[:, None]
        done += batch.size
        yield replace(batch, repeats=(batch.repeats - fewer).clamp_min(0))


def reads(part: Part, items: npt.NDArray[np.int64]) -> bool:
    """Return whether a row that holds `items` holds something of the part."""
    return part.birth or bool(part.scores) or bool(np.isin(part.items, items).any())


def log_odds(probability: Float64) -> Float64:
    """Return log(p / (1 − p))."""
    held = np.clip(probability, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(held) - np.log1p(-held))
