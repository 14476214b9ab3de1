"""What can be hidden of one person's record: an event, a visit, a day of wearing, a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from healthfm_core.arrays import Int32, Int64, Integers
from healthfm_core.data.batch.hiding import HiddenItems
from healthfm_core.data.batch.segments import run_starts
from healthfm_core.data.batch.sequences import EVENT, STATIC, UNKNOWN_TIME, WEARABLE, Sequences
from healthfm_core.explain.naming import CodeNames

US_PER_DAY: Final = 86_400_000_000
Kind = Literal["event", "visit", "wearing", "score", "static", "age", "group"]


@dataclass(frozen=True)
class RecordPart:
    """Something in a record that is hidden as a whole.

    Attributes:
        kind: ``event``, a ``visit`` with all its events, a day of ``wearing``, one polygenic
            ``score``, a ``static`` fact, the ``age``, or a ``group`` of them.
        name: In plain words.
        detail: Its value in plain words, empty where there is none.
        time_us: When it ended, µs since 1970; None for what has no time.
        items: Indices into `Sequences`.
        scores: Places in the panel.
        birth: Whether the birth is hidden.
        visit: Number of the visit that an event is in or that this is; -1 for others.
    """

    kind: Kind
    name: str
    detail: str = ""
    time_us: int | None = None
    items: tuple[int, ...] = ()
    scores: tuple[int, ...] = ()
    birth: bool = False
    visit: int = -1


def hidden_of(
    parts: Sequence[RecordPart], people: Sequences, items: Int64, target_of_code: Int32
) -> HiddenItems:
    """Return that row i lacks ``parts[i]``.

    Args:
        parts: What is hidden of each row.
        people: The tokenised people.
        items: The items of the record that is explained, in order.
        target_of_code: The target of each code index, -1 where it is none.
    """
    count = [len(part.items) for part in parts]
    score = np.zeros((len(parts), people.panel.shape[1]), np.bool_)
    for row, part in enumerate(parts):
        score[row, list(part.scores)] = True
    return HiddenItems(
        np.repeat(np.arange(len(parts)), count),
        np.array([item for part in parts for item in part.items], np.int64),
        score,
        np.array([part.birth for part in parts], np.bool_),
        _visits_less(parts, people, items, target_of_code),
    )


def _visits_less(
    parts: Sequence[RecordPart], people: Sequences, items: Int64, target_of_code: Int32
) -> Int64:
    """Return [n, V] visits that hold a target with everything there, but not without a part."""
    n_targets = max(1, int(target_of_code.max()) + 1)
    target = np.where(people.kind[items] == EVENT, target_of_code[people.code[items]], -1)
    pair = np.where(target >= 0, people.visit[items] * n_targets + target, -1)
    pairs, which, total = np.unique(pair, return_inverse=True, return_counts=True)
    less = np.zeros((len(parts), n_targets), np.int64)
    for row, part in enumerate(parts):
        inside = np.searchsorted(items, part.items)
        gone = np.bincount(which[inside], minlength=len(pairs)) == total
        np.add.at(less[row], pairs[gone & (pairs >= 0)] % n_targets, 1)
    return less


def parts_of(people: Sequences, subject: int, stop: int, names: CodeNames) -> list[RecordPart]:
    """Return every part of a subject's record before item `stop`: single ones, visits, groups.

    Args:
        people: The tokenised people.
        subject: Index of the subject.
        stop: Item before which the record that is explained ends.
        names: How things are called.
    """
    item = np.arange(people.offsets[subject], stop)
    kind = people.kind[item]
    events, worn = item[kind == EVENT], item[kind == WEARABLE]
    scores = np.flatnonzero(people.panel_mask[subject])
    fixed = [_static(people, at, names) for at in item[kind == STATIC].tolist()]
    if people.birth_us[subject] != UNKNOWN_TIME:
        fixed.append(RecordPart("age", "age", birth=True))
    own = [
        RecordPart("score", names.score(p), names.z(people.panel[subject, p]), scores=(p,))
        for p in scores.tolist()
    ]
    single = [_event(people, at, names) for at in events.tolist()]
    days = _runs(worn, (people.time_us[worn] - 1) // US_PER_DAY)
    single += [_day(people, day, names) for day in days] + own + fixed
    visits = [_visit(people, run) for run in _runs(events, people.visit[events])]
    return single + visits + _groups(events, worn, own, fixed)


def _runs(item: Int64, key: Integers) -> list[Int64]:
    """Return the items in their runs of equal keys."""
    return np.split(item, np.flatnonzero(run_starts(key))[1:]) if len(item) else []


def _static(people: Sequences, at: int, names: CodeNames) -> RecordPart:
    return RecordPart(
        "static", names.code(int(people.code[at])), _value(people, at, names), items=(at,)
    )


def _event(people: Sequences, at: int, names: CodeNames) -> RecordPart:
    return RecordPart(
        "event",
        names.code(int(people.code[at])),
        _value(people, at, names),
        int(people.time_us[at]),
        items=(at,),
        visit=int(people.visit[at]),
    )


def _value(people: Sequences, at: int, names: CodeNames) -> str:
    return names.quantile(float(people.quantile[at])) if people.has_value[at] else ""


def _day(people: Sequences, items: Int64, names: CodeNames) -> RecordPart:
    worn = names.worn(len(items))
    return RecordPart(
        "wearing", "a day of wearing", worn, int(people.time_us[items[-1]]), tuple(items.tolist())
    )


def _visit(people: Sequences, items: Int64) -> RecordPart:
    number, end = int(people.visit[items[0]]), int(people.time_us[items[-1]])
    many = f"{len(items)} events" if len(items) > 1 else "1 event"
    return RecordPart("visit", "the whole visit", many, end, tuple(items.tolist()), visit=number)


def _groups(
    events: Int64, worn: Int64, scores: list[RecordPart], fixed: list[RecordPart]
) -> list[RecordPart]:
    """Return one part per kind of data that there is."""
    panel = tuple(p for part in scores for p in part.scores)
    statics = tuple(at for part in fixed for at in part.items)
    born = any(part.birth for part in fixed)
    groups = [
        RecordPart("group", "all clinical events", items=tuple(events.tolist())),
        RecordPart("group", "all wearing", items=tuple(worn.tolist())),
        RecordPart("group", "all polygenic scores", scores=panel),
        RecordPart("group", "age and what does not change", items=statics, birth=born),
    ]
    return [part for part in groups if part.items or part.scores or part.birth]
