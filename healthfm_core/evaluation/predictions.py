"""What a model said and what happened, as flat columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int32, Int64
from healthfm_core.data.batch.sequences import UNKNOWN_TIME

Subset = Literal["overall", "repeat", "new_onset"]
SUBSETS: Final[tuple[Subset, ...]] = ("overall", "repeat", "new_onset")


@dataclass(frozen=True)
class Predictions:
    """n predictions, a row per (subject, query, target).

    Attributes:
        subject: [n] int64, whom to resample together; unique over the sites, need not be an id.
        site: [n] int32, index of the subject's site.
        target: [n] int32, column of the vocabulary's targets; 0 for a label task.
        repeats: [n] float32, visits in the whole earlier history with the target's code.
        score: [n] float32 in [0, 1].
        outcome: [n] bool.
        time_us: [n] int64, as of when it was asked, µs since 1970; `UNKNOWN_TIME` throughout where
            nobody says.
    """

    subject: Int64
    site: Int32
    target: Int32
    repeats: Float32
    score: Float32
    outcome: Bool
    time_us: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.time_us):
            object.__setattr__(self, "time_us", np.full(len(self.score), UNKNOWN_TIME))
        lengths = {len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(lengths) > 1:
            raise ValueError(f"columns of predictions differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.score)

    @property
    def n_subjects(self) -> int:
        """Number of different subjects."""
        return len(np.unique(self.subject))

    def where(self, mask: Bool) -> Predictions:
        """Return the rows where `mask` [n] is true."""
        return Predictions(
            **{name: getattr(self, name)[mask] for name in self.__dataclass_fields__}
        )

    def subset(self, name: Subset) -> Predictions:
        """Return all rows, those of codes seen before, or those of codes never seen before."""
        if name == "overall":
            return self
        return self.where((self.repeats > 0) == (name == "repeat"))

    @classmethod
    def of_queries(
        cls,
        subject: Int64,
        site: Int32,
        score: Float32,
        outcome: Bool,
        repeats: Float32,
        time_us: Int64 | None = None,
    ) -> Predictions:
        """Return a row per query and target, from n queries of V targets.

        Args:
            subject: [n].
            site: [n].
            score: [n, V].
            outcome: [n, V].
            repeats: [n, V].
            time_us: [n]; None: nobody says.
        """
        n, targets = score.shape
        asked_us = np.full(n, UNKNOWN_TIME) if time_us is None else time_us
        return cls(
            subject=np.repeat(subject.astype(np.int64), targets),
            site=np.repeat(site.astype(np.int32), targets),
            target=np.tile(np.arange(targets, dtype=np.int32), n),
            repeats=repeats.astype(np.float32).ravel(),
            score=score.astype(np.float32).ravel(),
            outcome=outcome.astype(np.bool_).ravel(),
            time_us=np.repeat(asked_us.astype(np.int64), targets),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Predictions]) -> Predictions:
        """Return the rows of all parts, which must not share subjects by accident of numbering."""
        if not parts:
            return cls.empty()
        columns = cls.__dataclass_fields__
        return cls(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in columns})

    @classmethod
    def empty(cls) -> Predictions:
        """Return no rows."""
        return cls(
            np.zeros(0, np.int64),
            np.zeros(0, np.int32),
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.bool_),
        )
