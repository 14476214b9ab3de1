"""A learned scale on what the blocks say at queries, and the way past the blocks beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from healthfm_core.models import HealthFM
from tests.models.tiny import tiny_batch, tiny_model


def scaled_model(**changes: object) -> HealthFM:
    return tiny_model(memory=True, layer_scale=0.25, **changes).eval()


def test_blocks_are_scaled_at_queries_and_nowhere_else():
    model, batch = scaled_model(time_features=False), tiny_batch()
    asked = torch.zeros_like(batch.kind, dtype=torch.bool).scatter_(1, batch.query, True)
    with torch.no_grad():
        scaled = model.backbone(model.encode(batch), batch)
        at_queries = model.backbone(model.encode(batch), batch, batch.query)
        model.backbone.layer_scale.weight.fill_(1.0)
        whole = model.backbone(model.encode(batch), batch)
    torch.testing.assert_close(scaled[asked], whole[asked] / 4)
    torch.testing.assert_close(at_queries.flatten(0, 1), whole[asked] / 4)
    assert torch.equal(scaled[~asked], whole[~asked])


@pytest.mark.parametrize("told", ["age_years", "gap_days"])
def test_a_query_s_own_age_and_gap_reach_its_state_past_the_blocks(told: str):
    model, batch = scaled_model(), tiny_batch()
    later = replace(batch, **{told: getattr(batch, told) + 50.0})
    with torch.no_grad():
        model.backbone.layer_scale.weight.zero_()
        assert not torch.allclose(model(later, batch.query), model(batch, batch.query))
        model.backbone.query_time.weight.zero_()
        torch.testing.assert_close(model(later, batch.query), model(batch, batch.query))


def test_without_a_layer_scale_the_model_has_none_of_its_parts():
    names = {name for name, _ in tiny_model(memory=True).named_parameters()}
    with_it = {name for name, _ in scaled_model().named_parameters()}
    assert with_it - names == {"backbone.layer_scale.weight", "backbone.query_time.weight"}
    assert not any(
        "query_time" in name for name, _ in scaled_model(time_features=False).named_parameters()
    )
