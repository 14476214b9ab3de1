"""Sums without noise: what stands in them where sites hide their modalities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.arrays import Arrays
from healthfm_core.config.secure_aggregation import SecureAggregationConfig
from healthfm_core.federation.secure.codecs import sum_codec
from healthfm_core.federation.secure.update_codec import COUNTS, UPDATE, HiddenWeights, SumCodec
from healthfm_core.federation.update_checks import UpdateSchema
from healthfm_core.privacy.secure_aggregation.masks import Ring

SHAPES = {"backbone.w": (2,), "encoders.ehr.w": (2,), "encoders.wearable.w": (3,)}
ZEROS = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
SCHEMA = UpdateSchema.of(ZEROS, max_norm=100.0)
METRICS = ("steps", "tuning_auroc")
PEOPLE = {"ehr": 60.0, "wearable": 40.0}


def codec(fewest: int = 5) -> SumCodec:
    config = SecureAggregationConfig(enabled=True, ring_bits=64)
    return sum_codec(SCHEMA, METRICS, 60, 3, config, HiddenWeights(fewest, PEOPLE))


def update(value: float) -> Arrays:
    return {name: np.full(shape, value, np.float32) for name, shape in SHAPES.items()}


def sent(plan: SumCodec, value: float, people: int, wearers: int) -> dict[str, Ring]:
    weights = {"backbone": float(people), "ehr": float(people)}
    weights |= {"wearable": float(wearers)} if wearers else {}
    return plan.encode(update(value), weights, {"steps": 10.0}, float(people))


def added(*sites: dict[str, Ring]) -> dict[str, Ring]:
    return {name: sum(site[name] for site in sites) for name in (COUNTS, UPDATE)}


def test_all_sites_together_give_the_means_by_people():
    plan = codec()
    opened = plan.decode(
        added(sent(plan, 0.1, 20, 0), sent(plan, 0.2, 30, 30), sent(plan, 0.4, 10, 10))
    )
    assert opened.weights == {"backbone": 60.0, **PEOPLE}
    np.testing.assert_allclose(opened.means["wearable"]["encoders.wearable.w"], 0.25, atol=1e-6)
    np.testing.assert_allclose(opened.means["ehr"]["encoders.ehr.w"], 12 / 60, atol=1e-6)
    assert opened.metrics == pytest.approx({"steps": 10.0}), "nobody reported the other"
    assert opened.clipped == {"backbone": 0}


@pytest.mark.parametrize("hidden", [HiddenWeights(5, PEOPLE), None])
def test_people_are_added_up_in_a_sum_and_other_metrics_averaged(hidden: HiddenWeights | None):
    config = SecureAggregationConfig(enabled=True, ring_bits=64)
    plan = sum_codec(SCHEMA, ("steps", "tuning_subjects"), 60, 3, config, hidden)
    told = ({"steps": 1.0, "tuning_subjects": 7.0}, {"steps": 4.0, "tuning_subjects": 12.0}, {})
    weights = {"backbone": 20.0, "ehr": 20.0}
    parts = [plan.encode(update(0.1), weights, metrics, 20.0) for metrics in told]
    steps = 5 / (3 if hidden else 2)  # who hides what it has counts as a zero
    assert plan.decode(added(*parts)).metrics == pytest.approx(
        {"steps": steps, "tuning_subjects": 19.0}
    )


def test_no_number_beside_the_update_is_another_with_a_modality_than_without():
    plan = codec()
    without, with_it = (sent(plan, 0.1, 20, wearers)[COUNTS] for wearers in (0, 20))
    np.testing.assert_array_equal(with_it, without)
    long = replace(plan, fixed_point=lambda group: replace(plan.fixed_point(group), clip=0.25))
    without, with_it = (sent(long, 0.15, 20, wearers)[COUNTS] for wearers in (0, 20))
    np.testing.assert_array_equal(with_it, without)  # three numbers of .15 are over the clip


def test_a_modality_whose_holders_are_all_away_is_not_moved():
    plan = codec()
    opened = plan.decode(added(sent(plan, 0.1, 20, 0), sent(plan, 0.2, 30, 0)), 50 / 60)
    assert opened.means.keys() == opened.weights.keys() == {"backbone", "ehr"}


def test_while_a_site_is_away_every_weight_falls_by_its_share_of_the_people():
    plan = codec()
    opened = plan.decode(added(sent(plan, 0.1, 20, 0), sent(plan, 0.2, 30, 30)), 50 / 60)
    assert opened.weights == pytest.approx({"backbone": 50, "ehr": 50, "wearable": 40 * 50 / 60})


def test_a_site_with_fewer_people_of_a_modality_than_round_0_counts_brings_nothing_of_it():
    plan = codec()
    few = plan.decode(added(sent(plan, 0.2, 30, 30), sent(plan, 0.4, 10, 4)))
    np.testing.assert_allclose(
        few.means["wearable"]["encoders.wearable.w"], 0.2 * 30 / 40, atol=1e-6
    )
