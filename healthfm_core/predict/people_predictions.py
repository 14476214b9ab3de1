"""Predictions for a store's people, a part of them at a time, in the order of their ids.

However large the store, no more than a part is held. Batches are those that `TrainedModel` makes of
the whole store at once: whoever falls into a batch that a part does not fill is read again with the
next, so that the numbers are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from meds import death_code

from healthfm_core.arrays import Float32, Int64
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.moments import Moments
from healthfm_core.data.batch.row_plan import RowPlan
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.data.store.events import STATIC_TIME, ids, times_us
from healthfm_core.data.store.people_in_order import PeopleInOrder
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.models import HealthFM
from healthfm_core.models.inference import logits_of
from healthfm_core.predict.people_limits import REASONS, PeopleFacts, PeopleLimits
from healthfm_core.predict.prediction_task import PredictionTask
from healthfm_core.trained import BATCH, TrainedModel
from healthfm_core.training.loaders import loader_for

PEOPLE: Final = 1024
"""People read at a time."""
_NEVER: Final = np.iinfo(np.int64).max

ShowDone = Callable[[int, int], None]
"""Called with people done, people in all."""


@dataclass(frozen=True)
class PeoplePredictions:
    """n predictions.

    Attributes:
        subject_id: [n] int64, the store's own.
        time_us: [n] int64, the moment, µs since 1970; `UNKNOWN_TIME` where there is none.
        outcome: [n] 1 or 0 where it was given, else NaN.
        probability: [n] float32, as the model says it; NaN where there is a reason against it.
        reason: [n] int64, place in `REASONS`, -1 where there is none.
        known_codes: [n] see `PeopleFacts`.
        age_years: [n] at the moment.
        gap_days: [n] from the last of the record to the moment.
    """

    subject_id: Int64
    time_us: Int64
    outcome: Float32
    probability: Float32
    reason: Int64
    known_codes: Float32
    age_years: Float32
    gap_days: Float32

    def __len__(self) -> int:
        return len(self.subject_id)


def predict_people(
    model: TrainedModel,
    store: SiteStore,
    task: PredictionTask,
    *,
    limits: PeopleLimits,
    at: pa.Table | None = None,
    show: ShowDone | None = None,
    people: int = PEOPLE,
) -> Iterator[PeoplePredictions]:
    """Yield the predictions of a store's people, by their ids and times.

    Args:
        model: The model.
        store: What of the store it is to read (`check_readable`).
        task: What is asked.
        limits: Whom it is not asked of.
        at: Whom and when to ask about (subject_id, prediction_time and, where known,
            boolean_value); None is everybody, at the last visit's end, of a label at the record's.
            People whom the store does not have come last.
        show: Is told how far it is.
        people: People read at a time, about.
    """
    asking = _Asking.of(model, store, task, at, people)
    with asking.window:
        position = skip = 0
        size = people
        while position < len(asking.subjects):
            part = asking.part(position, min(position + size, len(asking.subjects)), skip)
            if not part.complete:  # not one batch is full: more people are needed for the next
                size *= 2
                continue
            yield asking.predictions(part, limits)
            position, skip, size = part.next_position, part.next_skip, people
            if show is not None:
                show(position, len(asking.subjects))
    if asking.unknown.num_rows:
        yield _unknown(asking.unknown)


@dataclass(frozen=True)
class _Part:
    """Some people, and which of their moments are asked about now.

    Attributes:
        people: The people.
        loader: Batches of them.
        moments: Those asked about now.
        rows: A row for each that has a history: whole batches, but of the last people.
        died_us: [S] when they died, the latest time where they did not.
        complete: Whether there is anything to do.
        next_position: The first person who is not done after this.
        next_skip: How many of that person's moments are.
    """

    people: Sequences
    loader: BatchLoader
    moments: Moments
    rows: RowPlan
    died_us: Int64
    complete: bool
    next_position: int
    next_skip: int


@dataclass(frozen=True)
class _Asking:
    """A model, and the people whom it is asked about.

    Attributes:
        model: The parameters.
        network: The model in memory.
        task: What is asked.
        window: The people, some at a time.
        at: Moments by subject and time, of people whom the store has; None: everybody's last.
        unknown: Those of people whom it does not have.
    """

    model: TrainedModel
    network: HealthFM
    task: PredictionTask
    window: PeopleInOrder
    at: pa.Table | None
    unknown: pa.Table

    @classmethod
    def of(
        cls,
        model: TrainedModel,
        store: SiteStore,
        task: PredictionTask,
        at: pa.Table | None,
        people: int,
    ) -> Self:
        subjects = store.subjects()
        unknown = pa.table({})
        if at is not None:
            here = np.isin(ids(at), subjects)
            unknown, at = at.filter(pa.array(~here)), at.filter(pa.array(here))
            order = np.lexsort((times_us(at, "prediction_time"), ids(at)))
            at, subjects = at.take(pa.array(order)), np.unique(ids(at))
        network = model.network(store.modalities)
        return cls(model, network, task, PeopleInOrder(store, subjects), at, unknown)

    @property
    def subjects(self) -> Int64:
        return self.window.subjects

    def part(self, low: int, high: int, skip: int) -> _Part:
        """Return what is asked of people ``low … high - 1``, less the first `skip` moments."""
        view = self.window.view(low, high)
        asked = None if self.at is None else _of_people(self.at, self.subjects[low:high])
        people = self.model.people(view, asked)
        loader = loader_for(people, self.model.study)
        moments = Moments.of(
            loader, named=asked is not None, after_visits=self.task.after_visits
        ).take(slice(skip, None))
        answered = np.flatnonzero(moments.answered)
        full = len(answered)
        if high < len(self.subjects):
            full -= full % BATCH
        stop = len(moments.subject) if full == len(answered) else int(answered[full])
        moved, done = high, 0
        if stop < len(moments.subject):
            first = int(moments.subject[stop])
            moved = low + first
            done = int((moments.subject[:stop] == first).sum())
            done += skip if first == 0 else 0
        now = moments.take(slice(0, stop))
        died_us = _deaths(view, people.subject_id)
        rows = now.rows(loader)
        return _Part(people, loader, now, rows, died_us, stop > 0, moved, done)

    def predictions(self, part: _Part, limits: PeopleLimits) -> PeoplePredictions:
        """Ask the model."""
        moments, vocabulary = part.moments, self.model.study.vocabulary
        first_code = vocabulary.n_codes - len(vocabulary.codes)
        facts = PeopleFacts.of(part.people, moments, part.rows, part.died_us, first_code)
        reason = facts.reasons(limits, self.task.horizon_days)
        probability = np.full(len(moments.subject), np.nan, np.float32)
        probability[moments.answered] = self._asked(part)
        return PeoplePredictions(
            subject_id=part.people.subject_id[moments.subject],
            time_us=moments.time_us,
            outcome=moments.value,
            probability=np.where(reason < 0, probability, np.float32(np.nan)),
            reason=reason,
            known_codes=facts.known_codes,
            age_years=facts.age_years,
            gap_days=facts.gap_days,
        )

    def _asked(self, part: _Part) -> Float32:
        gaps = part.moments.gap_days[part.moments.answered]
        asked = part.loader.asked(part.rows, batch_size=BATCH)
        parts = [np.zeros(0, np.float32)]
        for number, logits in enumerate(logits_of(self.network, asked, self.task.head)):
            from_days = gaps[number * BATCH :][: len(logits)]
            parts.append(self.task.probability(self.model, logits, from_days))
        return np.concatenate(parts)


def _of_people(at: pa.Table, subjects: Int64) -> pa.Table:
    """Return the moments, which are by subject, from the first to the last of some people."""
    low, high = np.searchsorted(ids(at), [subjects[0], subjects[-1] + 1])
    return at.slice(int(low), int(high - low))


def _deaths(view: SiteStore, subjects: Int64) -> Int64:
    """Return when each of the people died, the latest time where they did not."""
    events = view.events()
    rows = events.filter(pc.equal(events["code"], death_code))
    who, time = ids(rows), times_us(rows)
    died = np.full(len(subjects), _NEVER, np.int64)
    dated = time != STATIC_TIME
    np.minimum.at(died, np.searchsorted(subjects, who[dated]), time[dated])
    return died


def _unknown(asked: pa.Table) -> PeoplePredictions:
    """Return the moments of people whom the store does not have, without a prediction."""
    columns: dict[str, Any] = {
        name: np.full(asked.num_rows, np.nan, np.float32)
        for name in ("probability", "known_codes", "age_years", "gap_days")
    }
    outcome = np.full(asked.num_rows, np.nan, np.float32)
    if "boolean_value" in asked.column_names:
        outcome = np.asarray(asked["boolean_value"].cast(pa.float32()).to_numpy(), np.float32)
    return PeoplePredictions(
        subject_id=ids(asked),
        time_us=times_us(asked, "prediction_time"),
        outcome=outcome,
        reason=np.full(asked.num_rows, tuple(REASONS).index("not_in_store"), np.int64),
        **columns,
    )
