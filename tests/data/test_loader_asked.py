"""Other times to ask at: worn hours, and any time ahead of what is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from healthfm_core.config.tokens import TokensConfig
from healthfm_core.data.batch.sequences import SEP
from tests.data.people import HOUR_US, TARGETS, visits_of
from tests.data.test_loader import ANNA, INF, SLOTS, kept_items, loader_of, one_batch, persons


@settings(max_examples=60)
@given(st.lists(persons, min_size=1, max_size=4), st.sampled_from([0, 2]), st.booleans())
def test_worn_rows_end_at_a_worn_hour_and_hold_the_past(people, gap, in_training):
    wearers = [p for p in people if p.worn and p.events]
    loader = loader_of(people, gap)
    assert loader.n_rows("worn") == len(wearers)
    rng = np.random.default_rng(0)
    if in_training:
        batches = list(loader.epoch(rng, batch_size=3, query="worn"))
    else:
        batches = list(loader.in_order(batch_size=3, query="worn"))
    seen = []
    for batch in batches:
        for row in range(batch.size):
            person = people[int(batch.subject[row])]
            seen.append(int(batch.subject[row]))
            hour = int(batch.query_time_us[row, 0]) // HOUR_US
            assert hour in person.worn if in_training else hour == max(person.worn)
            items = kept_items(person, gap, hour, TokensConfig(max_len=64))
            at = int(batch.query[row, 0])
            assert at == (SLOTS if person.scores else 0) + len(items)
            for target in range(TARGETS):
                later = [
                    v[0][0]
                    for v in visits_of(person, gap)
                    if v[0][0] > hour and any(t == target for *_, t in v)
                ]
                days = (min(later) - hour) / 24 if later else INF
                assert batch.event_days[row, 0, target] == pytest.approx(days, abs=1e-6)
    assert sorted(seen) == [i for i, p in enumerate(people) if p.worn and p.events]


def test_a_sep_can_be_put_any_time_ahead_of_what_is_known():
    now = one_batch([ANNA], "now")
    ahead = now.ahead(30.0)
    at = ahead.query[0]
    assert ahead.kind[0, at].tolist() == [SEP, SEP]
    assert (ahead.query_time_us - now.query_time_us == 30 * 24 * HOUR_US).all()
    torch.testing.assert_close(ahead.kv_end, now.kv_end)
    torch.testing.assert_close(ahead.gap_days[0, at], now.gap_days[0, at] + 30)
    torch.testing.assert_close(ahead.t_days[0, at], now.t_days[0, at] + 30)
    torch.testing.assert_close(ahead.age_years[0, at], now.age_years[0, at] + 30 / 365.25)
    at = torch.arange(int(at[0]))
    torch.testing.assert_close(ahead.t_days[0, at], now.t_days[0, at])
    torch.testing.assert_close(ahead.repeats, now.repeats)
