"""One question of a person at one moment: when the record was last added to, and what is read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np

from healthfm_core.arrays import Bool, Float32, Int64
from healthfm_core.data.batch.batch import US_PER_DAY
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.row_plan import RowPlan
from healthfm_core.data.batch.sequences import UNKNOWN_TIME

_ANY_TIME: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Moments:
    """n questions, by subject and time.

    Attributes:
        subject: [n] index of the subject in its `Sequences`.
        time_us: [n] the moment; `UNKNOWN_TIME` where none was named and there is no history.
        last_us: [n] the last of the record by then (after visits: of its events, where there are
            any); `UNKNOWN_TIME` where there is none.
        read_us: [n] when the model is asked, at the moment or before; `UNKNOWN_TIME` where there is
            no history by then, so that it cannot be.
        value: [n] the outcome where it was given, else NaN.
    """

    subject: Int64
    time_us: Int64
    last_us: Int64
    read_us: Int64
    value: Float32

    @classmethod
    def of(cls, loader: BatchLoader, *, named: bool, after_visits: bool) -> Self:
        """Return the moments to ask about.

        Args:
            loader: The people.
            named: The moments are those of the labels, else one of everybody, the last.
            after_visits: What is asked was learned after visits: it is asked after the last event
                by then, or where there is none after the last item; else at the moment itself.
        """
        people = loader.sequences
        if named:
            subject, time_us = people.label_subject, people.label_time_us
            value = people.label_value
        else:
            subject = np.arange(people.n_subjects)
            any_time = np.full(len(subject), _ANY_TIME)
            time_us = loader.last_item_us(subject, any_time, clinical=after_visits)
            value = np.full(len(subject), np.nan, np.float32)
        last_us = loader.last_item_us(subject, time_us, clinical=after_visits)
        at_moment = np.where(last_us == UNKNOWN_TIME, UNKNOWN_TIME, time_us)
        read_us = last_us if after_visits else at_moment
        return cls(subject, time_us, last_us, read_us, value)

    def take(self, which: slice) -> Self:
        """Return some of the moments."""
        return type(self)(*(getattr(self, field.name)[which] for field in fields(self)))

    @property
    def answered(self) -> Bool:
        """[n] where there is a history to answer from."""
        return self.read_us != UNKNOWN_TIME

    def rows(self, loader: BatchLoader) -> RowPlan:
        """Return a row for each of the `answered`."""
        known = self.answered
        return loader.rows_at(self.subject[known], self.read_us[known])

    @property
    def gap_days(self) -> Float32:
        """[n] days from when the model is asked to the moment, 0 where it is not."""
        span = np.where(self.answered, self.time_us - self.read_us, 0)
        return (span / US_PER_DAY).astype(np.float32)
