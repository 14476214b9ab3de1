"""What codes say in some hours: what is summed up, what is read, and what must not be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from healthfm_core.config.compose import compose
from healthfm_core.data.batch.batch import Batch
from healthfm_core.data.batch.sequences import COUNT_SCALE, EVENT, NOW, STATIC
from healthfm_core.errors import ConfigError
from healthfm_core.models.code_summaries import NUMBERS, SummaryNetwork, summaries_of
from tests.models.tiny import tiny_batch, tiny_model

CODES = 5


def token(*values: float) -> list[float]:
    """Return the numbers of a token that stands for these values, by time."""
    ends = (values[0], values[-1])
    return [
        float(np.mean(values)),
        *(min(values), max(values), *ends),
        math.log1p(len(values)) / COUNT_SCALE,
    ]


def summed(code: list[int], tokens: list[list[float]], counted: list[bool] | None = None) -> Tensor:
    counted = [True] * len(code) if counted is None else counted
    return summaries_of(
        torch.tensor([code]), torch.tensor([tokens]), torch.tensor([counted]), CODES
    )[0]


def chart(hours: float = 24.0) -> tuple[Batch, SummaryNetwork]:
    """One row: a static, then code 2 on three days and code 3 on the last, asked at its end."""
    spread = [token(5.0), token(1.0), token(2.0), token(3.0), token(4.0), [0.0] * 6]
    batch = replace(
        tiny_batch(spread=torch.zeros(2, 6, 6)).take(torch.tensor([0])),
        kind=torch.tensor([[STATIC, EVENT, EVENT, EVENT, EVENT, NOW]]),
        code=torch.tensor([[1, 2, 2, 2, 3, 0]]),
        spread=torch.tensor([spread]),
        t_days=torch.tensor([[0.0, -2.2, -1.0, -0.5, -0.25, 0.0]]),
        kv_end=torch.tensor([[1, 2, 3, 4, 5, 5]], dtype=torch.int32),
        n_static=torch.tensor([1], dtype=torch.int32),
    )
    return batch, SummaryNetwork(CODES, 4, 3, hours, 0.0)


def test_tokens_of_one_code_are_summed_up_as_if_they_were_one_bin_s():
    parts = [token(4.0, 1.0), token(9.0), token(2.0, 3.0, 7.0)]
    found = summed([2, 3, 2], [parts[0], parts[1], parts[2]])
    whole = [4.0, 1.0, 2.0, 3.0, 7.0]
    wanted = [1.0, float(np.mean(whole)), 1.0, 7.0, 4.0, 7.0, math.log(6)]
    assert found[2].tolist() == pytest.approx(wanted)
    assert found[3].tolist() == pytest.approx([1.0, 9.0, 9.0, 9.0, 9.0, 9.0, math.log(2)])


def test_a_code_without_a_token_says_nothing():
    found = summed([2, 0, 4], [token(4.0), token(8.0), token(9.0)], [True, True, False])
    assert not found[[0, 1, 3, 4]].any()
    assert found[2].all()


def test_people_without_any_token_say_nothing():
    none = torch.zeros(2, 0)
    spread = torch.zeros(2, 0, NUMBERS - 1)
    assert not summaries_of(none.long(), spread, none.bool(), 3).any()


def test_the_network_reads_the_last_hours_and_the_statics_and_nothing_older():
    batch, network = chart()
    assert network.read(batch)[0, 0].tolist() == [True, False, False, True, True, False]
    numbers = network.summaries(batch).view(CODES, NUMBERS)
    assert numbers[:, 1].tolist() == pytest.approx([0.0, 5.0, 3.0, 4.0, 0.0])


def test_an_earlier_query_reads_its_own_last_hours():
    batch, network = chart()
    early = replace(batch, kv_end=torch.tensor([[1, 2, 3, 4, 5, 3]], dtype=torch.int32))
    early.t_days[0, 5] = -1.0
    assert network.read(early)[0, 0].tolist() == [True, False, True, False, False, False]


def test_the_same_hours_at_another_time_of_the_stay_are_the_same_to_it():
    batch, network = chart()
    moved = replace(batch, t_days=batch.t_days + 7.0, query_time_us=batch.query_time_us + 5)
    torch.testing.assert_close(network(batch), network(moved), rtol=0, atol=0)


def test_what_happens_after_a_query_is_not_read():
    batch, network = chart()
    early = replace(batch, kv_end=torch.tensor([[1, 2, 3, 4, 5, 4]], dtype=torch.int32))
    other = replace(early, spread=early.spread.clone())
    other.spread[0, 4] += 3.0
    torch.testing.assert_close(network(early), network(other), rtol=0, atol=0)


def test_a_state_reads_summaries_only_where_the_study_asks_for_them():
    later = torch.tensor([[3, 3], [4, 0]])
    batch = tiny_batch(
        spread=torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(2)),
        later_code=later,
        later_spread=torch.randn(2, 2, 6),
        later_has_value=later > 0,
    )
    changed = replace(batch, spread=batch.spread + 1.0)
    plain, reading = tiny_model(spread=6), tiny_model(spread=6, summary_hours=10_000.0)
    assert plain.recall(batch) == 0.0
    assert not torch.equal(reading.recall(batch), reading.recall(changed))
    asked = reading.recall(batch, batch.query)
    assert asked.shape == (2, 1, 8)
    unseen = replace(batch, later_spread=batch.later_spread + 1.0, later_code=later.flip(1))
    torch.testing.assert_close(reading(batch), reading(unseen), rtol=0, atol=0)


@pytest.mark.parametrize(
    "key", ["model.summary_hours=24", "train.objectives.value_forecast=1"], ids=["reads", "asks"]
)
def test_a_run_whose_bins_tell_no_numbers_is_refused(key):
    with pytest.raises(ConfigError, match=r"tokens\.bin_spread=true"):
        compose([key])
    assert compose([key, "tokens.bin_spread=true"]).tokens.bin_spread
