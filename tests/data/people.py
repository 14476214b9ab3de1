"""People written down in hours, and their `Sequences` made one by one in plain Python."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healthfm_core.data.batch.sequences import EVENT, STATIC, UNKNOWN_TIME, WEARABLE, Sequences

HOUR_US = 3_600_000_000
WINDOWS, FEATURES = 2, 3
TARGETS, SCORES = 4, 2


@dataclass(frozen=True)
class Person:
    """Times in hours since 1970; an event is (hour, token, target or None)."""

    events: tuple[tuple[int, int, int | None], ...] = ()
    statics: tuple[int, ...] = ()
    worn: tuple[int, ...] = ()
    scores: tuple[float, float] | None = None
    labels: tuple[tuple[int, int], ...] = ()
    birth: int | None = None


@dataclass(frozen=True)
class Item:
    kind: int
    token: int
    hour: int
    visit: int
    worn: int


def visits_of(person: Person, gap: int) -> list[list[tuple[int, int, int | None]]]:
    """Events in their visits, by the definition."""
    visits: list[list[tuple[int, int, int | None]]] = []
    for event in sorted(person.events, key=lambda e: e[0]):
        if visits and event[0] - visits[-1][-1][0] <= gap:
            visits[-1].append(event)
        else:
            visits.append([event])
    return visits


def items_of(person: Person, gap: int) -> list[Item]:
    """The person's items in the order of `Sequences`."""
    timed = [
        Item(EVENT, token, hour, v, -1)
        for v, visit in enumerate(visits_of(person, gap))
        for hour, token, _ in visit
    ]
    timed += [Item(WEARABLE, 0, hour, -1, i) for i, hour in enumerate(sorted(person.worn))]
    timed.sort(key=lambda item: (item.hour, item.kind))
    return [Item(STATIC, token, 0, -1, -1) for token in person.statics] + timed


def sequences_of(people: list[Person], gap: int = 0) -> Sequences:
    """Columns of many people; code = token, and tokens from 10 on have a value."""
    items = [items_of(person, gap) for person in people]
    visits = [visits_of(person, gap) for person in people]
    flat = [item for own in items for item in own]
    worn_before = np.cumsum([0] + [len(p.worn) for p in people])
    rows = [
        -1 if item.worn < 0 else worn_before[s] + item.worn
        for s, own in enumerate(items)
        for item in own
    ]
    n_worn = int(worn_before[-1])
    targets = [sorted({t for _, _, t in visit if t is not None}) for own in visits for visit in own]
    token = np.array([item.token for item in flat], np.int32)
    labels = [(s, *label) for s, p in enumerate(people) for label in sorted(p.labels)]
    wearable = 1 + np.arange(n_worn * WINDOWS * FEATURES, dtype=np.float32)
    return Sequences(
        subject_id=np.arange(len(people)) + 100,
        site=np.zeros(len(people), np.int32),
        birth_us=np.array(
            [UNKNOWN_TIME if p.birth is None else p.birth * HOUR_US for p in people], np.int64
        ),
        offsets=np.cumsum([0] + [len(own) for own in items]),
        kind=np.array([item.kind for item in flat], np.uint8),
        token=token,
        code=token.copy(),
        quantile=(token / 100).astype(np.float32),
        spread=np.zeros((len(token), 0), np.float32),
        has_value=token >= 10,
        time_us=np.array([item.hour * HOUR_US for item in flat], np.int64),
        visit=np.array([item.visit for item in flat], np.int32),
        wearable_row=np.array(rows, np.int64),
        wearable=wearable.reshape(n_worn, WINDOWS, FEATURES),
        wearable_mask=np.ones((n_worn, WINDOWS, FEATURES), np.bool_),
        panel=np.array([p.scores or (0, 0) for p in people], np.float32).reshape(-1, SCORES),
        panel_mask=np.array([[p.scores is not None] * SCORES for p in people], np.bool_).reshape(
            -1, SCORES
        ),
        visit_offsets=np.cumsum([0] + [len(own) for own in visits]),
        visit_time_us=np.array([v[0][0] * HOUR_US for own in visits for v in own], np.int64),
        visit_target_offsets=np.cumsum([0] + [len(t) for t in targets]),
        visit_target=np.array([t for own in targets for t in own], np.int32),
        label_subject=np.array([label[0] for label in labels], np.int64),
        label_time_us=np.array([label[1] * HOUR_US for label in labels], np.int64),
        label_value=np.array([label[2] for label in labels], np.float32),
        panel_names=tuple(f"PGS{i}" for i in range(SCORES)),
    )
