"""What is hidden of a row is as if it had never been."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
import torch

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.hiding import HiddenItems
from healthfm_core.data.batch.loader import BatchLoader
from tests.data.people import (
    FEATURES,
    HOUR_US,
    SCORES,
    TARGETS,
    WINDOWS,
    Person,
    items_of,
    sequences_of,
)

BETH = Person(
    statics=(3,),
    events=((0, 4, 0), (0, 10, None), (48, 5, 1), (48, 11, None), (96, 6, 0)),
    worn=(24, 47, 96),
    scores=(1.5, -2.0),
    birth=-24,
)
OF_THE_RECORD = {"subject", "repeats", "target", "event_days"}
"""What a batch says of the whole record, whatever is hidden of it."""


def loader_of(people: list[Person], max_len: int = 64, sequences=None) -> BatchLoader:
    return BatchLoader(
        sequences or sequences_of(people),
        TokensConfig(max_len=max_len),
        n_targets=TARGETS,
        windows=WINDOWS,
        features=FEATURES,
        soft_tokens={"genomics": 2},
    )


def hidden_of(items, scores=(False, False), birth=False) -> HiddenItems:
    """One row's."""
    item = np.array(items, np.int64)
    visits = np.zeros((1, TARGETS), np.int64)
    return HiddenItems(np.zeros_like(item), item, np.array([scores]), np.array([birth]), visits)


def without(person: Person, items: set[int]) -> Person:
    """The person as written down without them."""
    left = [item for i, item in enumerate(items_of(person, 0)) if i not in items]
    codes = {(item.hour, item.token) for item in left if item.visit >= 0}
    return replace(
        person,
        statics=tuple(item.token for item in left if item.kind == 1),
        events=tuple(event for event in person.events if event[:2] in codes),
        worn=tuple(item.hour for item in left if item.worn >= 0),
    )


def differences(one, other) -> set[str]:
    """Names of the arrays that are not the same."""
    names = [field.name for field in fields(one)]
    pairs = ((name, getattr(one, name).numpy(), getattr(other, name).numpy()) for name in names)
    return {name for name, a, b in pairs if not np.array_equal(a, b, equal_nan=True)}


def rows_and_batch(loader: BatchLoader, hidden: HiddenItems | None = None):
    rows = loader.after_visits(0)
    last = rows.take(np.array([len(rows) - 1]))
    (batch,) = loader.asked(last, batch_size=4, hidden=hidden)
    return last, batch


@pytest.mark.parametrize("max_len", [64, 8])
def test_what_is_hidden_gives_the_batch_of_a_record_without_it(max_len):
    items = items_of(BETH, 0)
    last_visit = len(items) - 2
    whole = sequences_of([BETH])
    loader = loader_of([BETH], max_len)
    choices = [i for i in range(len(items)) if i != last_visit]
    for picked in product([False, True], repeat=len(choices)):
        gone = {i for i, hide in zip(choices, picked, strict=True) if hide}
        _, batch = rows_and_batch(loader, hidden_of(sorted(gone)))
        other = sequences_of([without(BETH, gone)])
        worn = [item.worn for i, item in enumerate(items) if item.worn >= 0 and i not in gone]
        other = replace(other, wearable=whole.wearable[worn])
        _, wanted = rows_and_batch(loader_of([], max_len, other))
        assert differences(batch, wanted) <= OF_THE_RECORD, gone


def test_a_hidden_score_and_a_hidden_birth_are_absent():
    loader = loader_of([BETH])
    _, batch = rows_and_batch(loader, hidden_of([], scores=(True, False), birth=True))
    assert batch.panel_mask.tolist() == [[False, True]]
    assert batch.panel.tolist() == [[0, -2]]
    assert (batch.age_years == 0).all()
    _, none = rows_and_batch(loader, hidden_of([], scores=(True, True)))
    _, wanted = rows_and_batch(loader_of([replace(BETH, scores=None)]))
    assert differences(none, wanted) == set()


def test_hiding_what_was_cut_off_changes_no_array():
    loader = loader_of([BETH], max_len=8)
    row, batch = rows_and_batch(loader)
    read = loader.items_read(row)
    assert 0 < len(read) < len(items_of(BETH, 0))
    cut = sorted(set(range(len(items_of(BETH, 0)))) - set(read.tolist()))
    _, again = rows_and_batch(loader, hidden_of(cut))
    assert differences(batch, again) == set()


def test_each_row_hides_its_own_over_the_bounds_of_batches():
    loader = loader_of([BETH])
    last = loader.after_visits(0).take(np.array([2]))
    rows = last.take(np.zeros(5, np.int64))
    events = np.flatnonzero(loader.sequences.kind == 2)
    visits = np.eye(5, TARGETS, dtype=np.int64)
    none = np.zeros((5, SCORES), np.bool_)
    hidden = HiddenItems(np.arange(5), events, none, np.zeros(5, np.bool_), visits)
    batches = list(loader.asked(rows, batch_size=2, hidden=hidden))
    assert [batch.size for batch in batches] == [2, 2, 1]
    tokens = [set(row.tolist()) - {0} for batch in batches for row in batch.token]
    every = {3, 4, 5, 6, 10, 11}
    assert [every - found for found in tokens] == [{4}, {10}, {5}, {11}, {6}]
    repeats = torch.cat([batch.repeats for batch in batches])[:, 0]
    assert repeats.tolist() == ([2, 1, 0, 0] - visits).tolist()


def test_an_item_of_another_row_s_subject_hides_nothing():
    loader = loader_of([BETH, BETH])
    first = loader.after_visits(0).take(np.array([2]))
    (batch,) = loader.asked(first, batch_size=1, hidden=hidden_of([len(items_of(BETH, 0)) + 2]))
    (wanted,) = loader.asked(first, batch_size=1)
    assert torch.equal(batch.token, wanted.token)


def test_a_row_follows_each_visit_and_ends_with_it():
    loader = loader_of([BETH])
    rows = loader.after_visits(0)
    assert rows.time_us.tolist() == [0, 48 * HOUR_US, 96 * HOUR_US]
    (batch,) = loader.asked(rows, batch_size=8)
    assert batch.query_mask.tolist() == [[True]] * 3
    assert (batch.kind == 2).sum(1).tolist() == [2, 4, 5]
    assert (batch.kind == 3).sum(1).tolist() == [0, 2, 3]
    assert batch.exposure_days.tolist() == [[4], [2], [0]]


def test_a_subject_without_a_visit_is_asked_at_the_end_of_the_history():
    worn, never = Person(worn=(5, 9)), Person(statics=(3,))
    loader = loader_of([worn, never])
    assert loader.after_visits(0).time_us.tolist() == [9 * HOUR_US]
    assert len(loader.after_visits(1)) == 0
    assert list(loader.asked(loader.after_visits(1), batch_size=2)) == []
