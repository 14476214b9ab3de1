"""A memory of tokens: what it reads, how it fades, and what it must not see."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from healthfm_core.data.batch.batch import Batch
from healthfm_core.models.decay import HALF_LIFE_MIN_DAYS, clamp_half_lives
from healthfm_core.models.decaying_memory import PRIOR_TOKENS, DecayingMemory
from tests.models.tiny import tiny_batch, tiny_model

RECENCY, FADE = 10.0, 100.0


def one_mean() -> DecayingMemory:
    """Return a memory of one number whose state is the mean, the log count and the mean of 1."""
    memory = DecayingMemory(1, 1, 3, recency_days=(RECENCY,), fade_days=(FADE,))
    with torch.no_grad():
        memory.value.weight.fill_(1.0)
        memory.value.bias.zero_()
        memory.out.weight.copy_(torch.eye(3))
    return memory


def read(batch: Batch, number: Tensor, holds: Tensor) -> Tensor:
    return one_mean()(number.unsqueeze(-1), holds, batch)[:, 0].detach()


NUMBER = torch.tensor([[9.0, 5.0, 1.0, 3.0, 9.0, 9.0], [7.0, 2.0, 4.0, 9.0, 9.0, 9.0]])


def test_a_memory_is_the_fading_mean_shrunk_by_its_prior():
    batch = tiny_batch()
    holds = batch.code > 0
    says = read(batch, NUMBER, holds)
    # Row 0 asks on day 1 of a static, of an event 401 days before and of one 31 days before.
    days, value = [0.0, 401.0, 31.0], [5.0, 1.0, 3.0]
    weight = [2 ** (-(age - min(days)) / RECENCY) for age in days]
    faded = [w * 2 ** (-age / FADE) for w, age in zip(weight, days, strict=True)]
    total = sum(weight) + PRIOR_TOKENS
    mean = sum(f * v for f, v in zip(faded, value, strict=True)) / total
    expected = torch.tensor([mean, math.log1p(sum(weight)), sum(faded) / total])
    torch.testing.assert_close(says[0], expected)


def test_what_was_read_long_ago_counts_for_less():
    batch = tiny_batch()
    events = (batch.code > 0) & (batch.t_days < 0)
    soon = read(batch, NUMBER, events)[0]
    later = batch.t_days.clone()
    later[0, batch.query[0, 0]] += FADE
    late = read(replace(batch, t_days=later), NUMBER, events)[0]
    torch.testing.assert_close(late[0], soon[0] / 2)
    torch.testing.assert_close(late[1], soon[1])


def test_without_decay_a_memory_is_a_plain_mean_that_no_time_changes():
    batch = tiny_batch()
    memory = DecayingMemory(1, 1, 3, recency_days=(RECENCY,), fade_days=(FADE,), decays=False)
    with torch.no_grad():
        memory.value.weight.fill_(1.0)
        memory.value.bias.zero_()
        memory.out.weight.copy_(torch.eye(3))
        says = memory(NUMBER.unsqueeze(-1), batch.code > 0, batch)[:, 0]
        # Row 0 reads a static of 5 and events of 1 and 3, 401 and 31 days before.
        total = 3 + PRIOR_TOKENS
        expected = torch.tensor([(5.0 + 1.0 + 3.0) / total, math.log1p(3), 3 / total])
        torch.testing.assert_close(says[0], expected)
        earlier = replace(batch, t_days=batch.t_days * 7)
        assert torch.equal(memory(NUMBER.unsqueeze(-1), batch.code > 0, earlier)[:, 0], says)
    assert not [name for name, _ in memory.named_parameters() if "log_rate" in name]
    with_and_without = [
        sum(p.numel() for p in tiny_model(memory=True, memory_decay=d).parameters())
        for d in (True, False)
    ]
    assert (
        with_and_without[0] - with_and_without[1] == 2 * 2 * 6
    )  # two memories, six pairs of rates


def test_nothing_of_time_is_left_with_every_switch_off():
    """What `simulations/experiments/continuous_time` calls no time at all."""
    off = {"memory_decay": False, "time_features": False, "attention": "sinusoid"}
    batch = tiny_batch()
    earlier = replace(batch, t_days=batch.t_days * 7, gap_days=batch.gap_days * 3)

    def differs(**changes: object) -> bool:
        model = tiny_model(memory=True, **changes).eval()
        with torch.no_grad():
            return not torch.equal(model(batch, batch.query), model(earlier, batch.query))

    assert not differs(**off)
    for name in off:
        assert differs(**{key: value for key, value in off.items() if key != name}), name


def test_a_query_reads_nothing_behind_what_it_may_see_and_nothing_of_others():
    batch = tiny_batch()
    holds = batch.code > 0
    before = read(batch, NUMBER, holds)
    changed = NUMBER.clone()
    changed[~holds] = -1e6
    torch.testing.assert_close(read(batch, changed, holds), before)
    end = batch.kv_end.clone()
    end[0, batch.query[0, 0]] = 3
    hidden = NUMBER.clone()
    hidden[0, 3] = -1e6
    cut = replace(batch, kv_end=end)
    torch.testing.assert_close(read(cut, hidden, holds), read(cut, NUMBER, holds))


def test_without_a_token_a_memory_says_nothing():
    batch = tiny_batch()
    memory = DecayingMemory(1, 2, 3, recency_days=(RECENCY, 1.0), fade_days=(FADE,))
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.normal_()
    none = torch.zeros_like(batch.code, dtype=torch.bool)
    says = memory(NUMBER.unsqueeze(-1), none, batch)
    assert torch.equal(says, torch.zeros_like(says))
    assert (memory(NUMBER.unsqueeze(-1), batch.code > 0, batch) != 0).any()


@pytest.mark.parametrize("name", ["ehr", "wearable", "genomics"])
def test_each_modality_has_a_memory_that_reads_its_own_inputs(name: str):
    model, batch = tiny_model(memory=True).eval(), tiny_batch()
    own = model.encoders[name]
    before = own.recall(batch)
    changed = {
        "ehr": {"quantile": batch.quantile + 1.0},
        "wearable": {"wearable": batch.wearable + 1.0},
        "genomics": {"panel": batch.panel + 1.0},
    }[name]
    after = own.recall(replace(batch, **changed))
    assert not torch.allclose(after[0], before[0])
    others = [e for n, e in model.encoders.items() if n != name]
    for other in others:
        assert torch.equal(other.recall(replace(batch, **changed)), other.recall(batch))


def test_states_hold_what_is_remembered_at_queries_alone():
    model, batch = tiny_model(memory=True).eval(), tiny_batch()
    with torch.no_grad():
        states, recalled = model(batch), model.recall(batch, batch.query)
        torch.testing.assert_close(
            model(batch, batch.query),
            states.gather(1, batch.query.unsqueeze(-1).expand(-1, -1, states.shape[-1])),
        )
        plain = model.join(model.backbone(model.encode(batch), batch), batch)
    difference = states - plain
    at_query = torch.zeros_like(batch.kind, dtype=torch.bool).scatter_(1, batch.query, True)
    assert torch.equal(difference[~at_query], torch.zeros_like(difference[~at_query]))
    torch.testing.assert_close(difference[at_query], recalled.flatten(0, 1))
    assert (recalled != 0).any()


def test_a_place_without_a_query_remembers_nothing():
    """Rows with fewer queries are padded with position 0, where another token stands."""
    model, batch = tiny_model(memory=True).eval(), tiny_batch()
    of_queries = ("query", "query_mask", "query_time_us", "target", "repeats")
    of_queries += ("event_days", "exposure_days", "label")
    each = {name: getattr(batch, name) for name in of_queries}
    padded = replace(
        batch, **{name: torch.cat([x, torch.zeros_like(x)], 1) for name, x in each.items()}
    )
    with torch.no_grad():
        torch.testing.assert_close(model(padded), model(batch))


def test_half_lives_of_memories_are_held_in_their_range_too():
    model = tiny_model(memory=True)
    log_rate = model.encoders["ehr"].memory.log_rate.weight
    with torch.no_grad():
        log_rate.fill_(50.0)
    clamp_half_lives(model)
    shortest = math.log(2) / log_rate.detach().exp()
    torch.testing.assert_close(shortest, torch.full_like(shortest, HALF_LIFE_MIN_DAYS))
