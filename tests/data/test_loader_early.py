"""Rows that end some hours before the record does, and what comes in those hours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.loader import BatchLoader
from healthfm_core.data.batch.sequences import EVENT
from tests.data.people import FEATURES, HOUR_US, TARGETS, WINDOWS, Person, sequences_of
from tests.data.test_loader import SLOTS, kept_items, loader_of, persons


def early_loader(people: list[Person], *, bin_hours: float, forecast_hours: float) -> BatchLoader:
    sequences = sequences_of(people)
    numbers = np.arange(len(sequences.token) * 6, dtype=np.float32).reshape(-1, 6)
    return BatchLoader(
        replace(sequences, spread=numbers),
        TokensConfig(max_len=64, bin_hours=bin_hours),
        n_targets=TARGETS,
        windows=WINDOWS,
        features=FEATURES,
        soft_tokens={"genomics": SLOTS},
        forecast_hours=forecast_hours,
    )


# Two days; something of the first is asked about the second.
STAY = Person(statics=(3,), events=((1, 4, 0), (20, 11, None), (30, 5, 1), (47, 12, None)))


def test_a_row_ends_at_the_end_of_a_bin_and_forecasts_the_hours_after_it():
    loader = early_loader([STAY], bin_hours=24.0, forecast_hours=24.0)
    (batch,) = loader.in_order(batch_size=9, query="early")
    assert batch.query_time_us.tolist() == [[24 * HOUR_US]]
    assert batch.token.tolist() == [[3, 4, 11, 0]]
    assert batch.kv_end.tolist() == [[1, 2, 3, 3]]
    assert batch.t_days[0, 3].item() == pytest.approx(4 / 24)
    assert batch.later_code.tolist() == [[5, 12]]
    assert batch.later_has_value.tolist() == [[False, True]]
    assert batch.later_spread.tolist() == loader.sequences.spread[None, 3:5].tolist()
    assert torch.isnan(batch.label).all()


def test_what_comes_after_the_hours_is_not_asked():
    loader = early_loader([STAY], bin_hours=6.0, forecast_hours=6.0)
    rng, asked = np.random.default_rng(0), {}
    for _ in range(60):
        (batch,) = loader.epoch(rng, batch_size=9, query="early")
        asked[int(batch.query_time_us[0, 0]) // HOUR_US] = batch.later_code[0].tolist()
    assert asked == {6: [], 24: [5], 36: []}


def test_a_record_that_does_not_go_on_so_long_has_no_row():
    short = Person(events=((1, 4, 0), (20, 5, None)))
    begins = Person(events=((0, 4, 0), (24, 5, None)))
    static = Person(statics=(3,), worn=(1, 90))
    people = [short, STAY, begins, Person(), static]
    loader = early_loader(people, bin_hours=24.0, forecast_hours=24.0)
    assert loader.n_rows("early") == 1
    (batch,) = loader.in_order(batch_size=9, query="early")
    assert batch.subject.tolist() == [1]
    assert early_loader([short], bin_hours=24.0, forecast_hours=24.0).n_rows("early") == 0


def test_what_is_dropped_of_a_row_is_still_to_be_forecast():
    loader = early_loader([STAY] * 8, bin_hours=24.0, forecast_hours=24.0)
    batches = loader.epoch(np.random.default_rng(0), batch_size=8, query="early", drop_events=0.95)
    (batch,) = batches
    assert int((batch.kind == EVENT).sum()) < 6
    assert batch.later_code.tolist() == [[5, 12]] * 8


@settings(max_examples=60)
@given(st.lists(persons, min_size=1, max_size=4), st.sampled_from([0.0, 6.0, 24.0]), st.booleans())
def test_a_row_holds_the_past_and_forecasts_the_next_hours_by_their_definition(
    people, bin_hours, in_training
):
    loader = early_loader(people, bin_hours=bin_hours, forecast_hours=12.0)
    rng, seen = np.random.default_rng(0), []
    if in_training:
        batches = list(loader.epoch(rng, batch_size=3, query="early"))
    else:
        batches = list(loader.in_order(batch_size=3, query="early"))
    span = bin_hours or 1
    for batch in batches:
        for row in range(batch.size):
            person = people[int(batch.subject[row])]
            seen.append(int(batch.subject[row]))
            hour = int(batch.query_time_us[row, 0]) // HOUR_US
            assert hour % span == 0
            items = kept_items(person, 0, hour, TokensConfig(max_len=64))
            at = int(batch.query[row, 0])
            assert at == (SLOTS if person.scores else 0) + len(items)
            held = [h for h, *_ in person.events if hour - span <= h < hour]
            assert held
            events = sorted(person.events, key=lambda e: e[0])
            come = [t for h, t, _ in events if hour < h <= hour + 12]
            assert batch.later_code[row][batch.later_code[row] > 0].tolist() == come
    assert len(set(seen)) == len(seen) == loader.n_rows("early")


def test_other_rows_forecast_nothing():
    for query in ("sep", "now", "label", "worn"):
        people = [replace(STAY, worn=(2, 3), labels=((48, 1),))]
        (batch,) = loader_of(people).in_order(batch_size=9, query=query)
        assert batch.later_code.shape == (1, 0)
        assert batch.later_spread.shape[:2] == (1, 0)
