"""The objectives' weights over a run."""

from __future__ import annotations

import pytest

from healthfm_core.config import TrainConfig
from healthfm_core.config.train import ObjectivesConfig
from healthfm_core.training.curriculum import in_round
from healthfm_core.training.passes import queries_for

EVERYTHING = ObjectivesConfig(
    next_visit=1,
    time_to_event=1,
    masked_reconstruction=2,
    next_event=1,
    predictive_coding=1,
    cross_modal=4,
    label=1,
)


def weights(round_: int, curriculum: str = "staged", rounds: int = 11) -> ObjectivesConfig:
    config = TrainConfig(objectives=EVERYTHING, curriculum=curriculum)
    return in_round(config, round_=round_, rounds=rounds).objectives


def test_without_a_curriculum_the_weights_stay():
    assert weights(1, "none") == EVERYTHING


def test_a_run_begins_with_reading_each_modality_and_ends_with_the_forecasts():
    first, last = weights(1), weights(11)
    assert (first.masked_reconstruction, last.masked_reconstruction) == (2.0, pytest.approx(0.6))
    assert (first.next_visit, last.next_visit) == (0.5, 1.0)
    assert (first.time_to_event, last.next_event) == (0.5, 1.0)
    assert first.predictive_coding == last.predictive_coding == 0.5
    assert first.label == last.label == 1.0


def test_cross_modal_prediction_comes_in_on_a_cosine_between_a_tenth_and_half_of_the_run():
    found = [weights(r).cross_modal for r in (1, 2, 4, 6, 11)]
    assert found == pytest.approx([0.0, 0.0, 2.0, 4.0, 4.0])


def test_what_weighs_nothing_yet_is_not_asked():
    config = TrainConfig(objectives=EVERYTHING, curriculum="staged")
    asked = [queries_for(in_round(config, round_=r, rounds=11)) for r in (1, 3)]
    assert ["worn" in kinds for kinds in asked] == [False, True]


def test_a_run_of_one_round_ends_where_it_begins():
    assert weights(1, rounds=1) == weights(11)
