"""Trajectories: what is kept of the past is the past, and draws follow the probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from healthfm_core.data.batch.sequences import EVENT
from healthfm_core.models.gaps import GAP_BINS, gap_bin
from healthfm_core.models.generation import _Past, draw_futures
from healthfm_core.tokens.vocabulary import TokenParts
from tests.models.tiny import SHAPE, tiny_batch, tiny_model

PARTS = TokenParts(
    code=np.array([0, 1, 2, 1, 2, 3, 4, 3, 4]),
    quantile=np.zeros(9, np.float32),
    has_value=np.zeros(9, np.bool_),
    target=np.array([-1, -1, -1, -1, -1, 0, 1, 0, 1]),
)
DAY = 3.0


def answers(model, *, gap_days: float, tokens: dict[int, float]):
    """Make the head always say the same: a gap's bin, and the tokens' odds."""
    head = model.heads["next_event"]
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    head.gap.bias.data[gap_bin(torch.tensor(gap_days))] = 50.0
    head.token.bias.data.fill_(-50.0)
    for token, odds in tokens.items():
        head.token.bias.data[token] = odds
    return model


def drawn(model, **changes):
    settings = {"samples": 3, "horizon_days": 60.0} | changes
    generator = torch.Generator().manual_seed(0)
    return draw_futures(model, at_its_end(tiny_batch()), PARTS, generator=generator, **settings)


def at_its_end(batch):
    """The batch with each query at the time of the row's last item."""
    t_days = batch.t_days.clone()
    t_days[0, 5] = 0.0
    return replace(batch, t_days=t_days)


@pytest.mark.parametrize("attention", ["logbias", "postmul", "rope_days"])
@pytest.mark.parametrize(
    "switches", [{}, {"genomics_fusion": "cross_attention"}, {"sums": True}, {"floor": True}]
)
def test_an_appended_event_is_read_as_if_it_had_stood_in_the_record(attention, switches):
    model = tiny_model(heads=("next_event",), attention=attention, **switches)
    model.eval()
    batch = at_its_end(tiny_batch())
    past = _Past.read(model, batch, room=2)
    gap = torch.tensor([DAY, DAY])
    token, code = torch.tensor([5, 8]), torch.tensor([2, 3])
    past.append(model, token, code, torch.tensor([0.5, 0.0]), gap)
    joined = model.join(past.state, past.batch)
    longer = with_event(batch, token, code, torch.tensor([0.5, 0.0]))
    states = model(longer.left_to_right(), batch.query)
    torch.testing.assert_close(joined, states)
    assert past.day.tolist() == [DAY, DAY]


def with_event(batch, token, code, value):
    """The batch with an event in the place of each row's query, `DAY` days later."""
    fields = {name: getattr(batch, name).clone() for name in batch.__dataclass_fields__}
    row, at = torch.arange(2), batch.query[:, 0]
    for name, new in (("kind", EVENT), ("token", token), ("code", code), ("quantile", value)):
        fields[name][row, at] = new if isinstance(new, int) else new.to(fields[name].dtype)
    fields["has_value"][row, at] = True
    fields["t_days"][row, at] = batch.t_days[row, at] + DAY
    fields["gap_days"][row, at] = DAY
    last = batch.age_years[row, at - 1]
    fields["age_years"][row, at] = last + DAY / 365.25
    return type(batch)(**fields)


def test_a_certain_future_is_drawn_every_time():
    found = drawn(answers(tiny_model(heads=("next_event",)), gap_days=25.0, tokens={6: 0.0}))
    assert found.first_days.shape == (2, 3, SHAPE.targets)
    assert torch.isinf(found.first_days[..., 0]).all()
    assert ((found.first_days[..., 1] > 14) & (found.first_days[..., 1] <= 30)).all()
    assert found.cut_short == 0
    assert 2 * 2 * 3 <= found.events <= 4 * 2 * 3  # of 14 to 30 days each, in 60


def test_the_first_event_is_later_and_the_next_ones_may_coincide():
    model = answers(tiny_model(heads=("next_event",)), gap_days=0.0, tokens={5: 0.0})
    found = drawn(model, most_events=4)
    assert (found.first_days[..., 0] > 0).all()
    assert found.cut_short > 0


def test_the_unlikely_is_drawn_as_often_as_it_is_likely():
    odds = float(np.log(0.05 / 0.95))
    model = answers(tiny_model(heads=("next_event",)), gap_days=40.0, tokens={5: odds, 6: 0.0})
    found = drawn(model, samples=4000, horizon_days=60.0)
    first = found.first_days[..., 0]
    share = float(torch.isfinite(first).float().mean())
    assert 0.042 < share < 0.058  # one event in 30 to 60 days; 8,000 draws


def test_the_same_seed_draws_the_same_future():
    model = tiny_model(heads=("next_event",))
    assert torch.equal(drawn(model).first_days, drawn(model).first_days)


def test_there_is_a_bin_for_every_gap():
    assert int(gap_bin(torch.tensor(1e9))) == GAP_BINS - 1
