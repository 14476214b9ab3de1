"""Stores of one site that share people: an id that is in several of them is one person.

A hospital's records often lie in two stores, the clinic's and the watches'. Whoever counted such a
person twice would let two of their updates into a sum that promises one, and half of k people
through a threshold of k.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Final, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from healthfm_core.arrays import Int64
from healthfm_core.data.store.events import coded, duplicates, ids, repeated, sort_events, times_us
from healthfm_core.data.store.schemas import EVENTS, SPLIT_NAMES
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.wearables import DAY_US, sort_wearable
from healthfm_core.errors import StoreError
from healthfm_core.modalities.registry import VITAL_CODES

AGREEING_DAYS: Final = 366
"""A source that knows a year, or an age in years, dates a birth by so much wrongly."""


class JoinedStores:
    """A read-only view of several stores, each person's records put together.

    Of what two stores say about one person in the same words (an event, a stretch of samples, a
    label) one remains; where both have a birth or a death, that of the first store remains.

    Args:
        stores: The stores, in the order in which they are believed.
    """

    def __init__(self, stores: Sequence[SiteStore]) -> None:
        self._stores = tuple(stores)
        self.name = " and ".join(store.name for store in stores)

    @classmethod
    def of(cls, stores: Sequence[SiteStore]) -> Self:
        """Return the view, once the stores agree on whom they share.

        Raises:
            StoreError: They do not (HF-212).
        """
        for at, store in enumerate(stores):
            for other in stores[:at]:
                _check_agreement(other, store)
        return cls(stores)

    @property
    def members(self) -> tuple[SiteStore, ...]:
        """The stores that the view is of."""
        return self._stores

    @cached_property
    def modalities(self) -> frozenset[str]:
        """The modalities that have rows and are permitted, in any of the stores."""
        return frozenset[str]().union(*(store.modalities for store in self._stores))

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The wearable devices with rows, by name."""
        return tuple(sorted({device for store in self._stores for device in store.devices}))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """The tasks with a label table, by name."""
        return tuple(sorted({task for store in self._stores for task in store.tasks}))

    def events(self, split: str | None = None) -> pa.Table:
        """Return the events by subject, then time (static first), in the types of `EVENTS`."""
        tables = [store.events(split) for store in self._stores]
        for code in VITAL_CODES:
            tables = _of_first(tables, code)
        table = sort_events(pa.concat_tables(tables)).cast(EVENTS)
        again = duplicates(table)
        return table.filter(pa.array(~again)) if again.any() else table

    def wearable(self, device: str | None = None, split: str | None = None) -> pa.Table:
        """Return the samples of one device by subject and start, in the types of `WEARABLE`.

        Args:
            device: One of `devices`; None is the first, and no row where there is none.
            split: train, tuning or held_out; None is all three.

        Raises:
            StoreError: HF-208 for a device that no store has.
        """
        chosen = device if device is not None or not self.devices else self.devices[0]
        having = [store for store in self._stores if chosen in store.devices] or self._stores[:1]
        table = pa.concat_tables(store.wearable(chosen, split) for store in having)
        again = repeated([ids(table), times_us(table, "start"), coded(table["channel"])[0]])
        return sort_wearable(table.filter(pa.array(~again)))

    def labels(self, task: str) -> pa.Table:
        """Return a task's labels by subject and time, in the columns that its tables share.

        Raises:
            StoreError: HF-208 for a task that no store has.
        """
        having = [store for store in self._stores if task in store.tasks] or self._stores[:1]
        tables = [store.labels(task) for store in having]
        shared = [
            field.name for field in tables[0].schema if all(field in t.schema for t in tables)
        ]
        table = pa.concat_tables(table.select(shared) for table in tables)
        again = repeated([ids(table), times_us(table, "prediction_time")])
        order = [("subject_id", "ascending"), ("prediction_time", "ascending")]
        return table.filter(pa.array(~again)).sort_by(order)

    def subjects(self, split: str | None = None) -> Int64:
        """Return the ids of the subjects, ascending, each once."""
        return np.unique(np.concatenate([store.subjects(split) for store in self._stores]))

    def parents(self) -> dict[str, list[str]]:
        """Return each code's parents: those of the first store that has any."""
        parents: dict[str, list[str]] = {}
        for store in reversed(self._stores):
            parents |= store.parents()
        return parents

    def narrowed(self, *, modalities: Collection[str] | None = None) -> Self:
        """Return a view of some modalities of this view; None is all it shows."""
        return type(self)([store.narrowed(modalities=modalities) for store in self._stores])


StoreView: TypeAlias = SiteStore | JoinedStores
"""What is read of a site's people, whether they lie in one store or in several."""


def join_stores(stores: Sequence[SiteStore]) -> list[StoreView]:
    """Return the stores of a site so that nobody is in two of them.

    Stores that share nobody stay as they are; those that share people, directly or by way of a
    third, become one `JoinedStores`.

    Args:
        stores: Of one site, whose ids mean the same people everywhere.

    Raises:
        StoreError: Two stores contradict each other about a person (HF-212); of how many people is
            not said, since the sentence may leave the site.
    """
    groups = _sharing(stores)
    return [group[0] if len(group) == 1 else JoinedStores.of(group) for group in groups]


def people_shared(stores: Sequence[SiteStore]) -> int:
    """Count the people who are in more than one of the stores."""
    everyone = [np.zeros(0, np.int64), *(store.subjects() for store in stores)]
    _, times = np.unique(np.concatenate(everyone), return_counts=True)
    return int((times > 1).sum())


def _sharing(stores: Sequence[SiteStore]) -> list[list[SiteStore]]:
    """Return the stores in groups that share nobody, each group in the order given."""
    people = [store.subjects() for store in stores]
    group = list(range(len(stores)))
    for at in range(len(stores)):
        for other in range(at):
            if group[at] != group[other] and len(np.intersect1d(people[at], people[other])):
                low, high = sorted((group[at], group[other]))
                group = [low if one == high else one for one in group]
    return [
        [store for store, of in zip(stores, group, strict=True) if of == one]
        for one in sorted(set(group))
    ]


def _of_first(tables: Sequence[pa.Table], code: str) -> list[pa.Table]:
    """Return the tables without a person's events of `code` where an earlier table has any."""
    known, left = np.zeros(0, np.int64), list[pa.Table]()
    for table in tables:
        is_code = np.asarray(pc.equal(table["code"], code).to_numpy(), np.bool_)
        said = is_code & np.isin(ids(table), known)
        known = np.union1d(known, ids(table)[is_code])
        left.append(table.filter(pa.array(~said)) if said.any() else table)
    return left


def _check_agreement(one: SiteStore, other: SiteStore) -> None:
    """Refuse two stores that cannot speak of the same people.

    Raises:
        StoreError: A person whom both have is in two splits, or has two births, deaths or labels
            (HF-212).
    """
    shared = np.intersect1d(one.subjects(), other.subjects())
    for split in SPLIT_NAMES:
        here, there = (np.isin(shared, store.subjects(split)) for store in (one, other))
        if (here != there).any():
            raise _contradiction(one, other, "people of different splits")
    for code, what in zip(VITAL_CODES, ("births", "deaths"), strict=True):
        if _apart(one.first_times(code), other.first_times(code)):
            raise _contradiction(one, other, f"{what} that lie more than a year apart")
    for task in sorted({*one.tasks} & {*other.tasks}):
        if _differ(_answers(one.labels(task)), _answers(other.labels(task))):
            raise _contradiction(one, other, f"different labels of the task {task} at one time")


def _apart(one: tuple[Int64, Int64], other: tuple[Int64, Int64]) -> bool:
    """Whether somebody's times, given as (ids, µs), are too far apart for one person's."""
    _, here, there = np.intersect1d(one[0], other[0], return_indices=True)
    return bool((np.abs(one[1][here] - other[1][there]) > AGREEING_DAYS * DAY_US).any())


def _answers(labels: pa.Table) -> dict[tuple[int, int], object]:
    """Return (subject, prediction time) → the label."""
    if "boolean_value" not in labels.column_names:
        return {}
    asked = zip(ids(labels).tolist(), times_us(labels, "prediction_time").tolist(), strict=True)
    return dict(zip(asked, labels["boolean_value"].to_pylist(), strict=True))


def _differ(one: dict[tuple[int, int], object], other: dict[tuple[int, int], object]) -> bool:
    return any(other.get(asked, answer) != answer for asked, answer in one.items())


def _contradiction(one: SiteStore, other: SiteStore, what: str) -> StoreError:
    where = f"stores {one.name} and {other.name}"
    return StoreError(212, where=where, seen=f"an id that both have stands for {what}")
