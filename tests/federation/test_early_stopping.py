"""Which round's model a run ends with, by three numbers."""

from __future__ import annotations

import pytest

from healthfm_core.config.compose import compose
from healthfm_core.config.federation import EarlyStoppingConfig
from healthfm_core.errors import ConfigError
from healthfm_core.federation.early_stopping import (
    best_round,
    chosen_round,
    is_out_of_patience,
    scores_of,
)

METRIC = "tuning_auroc"


def settings(**given: object) -> EarlyStoppingConfig:
    return EarlyStoppingConfig.model_validate({"monitor": METRIC, **given})


def test_a_row_scores_the_model_of_the_round_before_it() -> None:
    rows = [
        {"round": 1, "metrics": {METRIC: 0.5}},
        {"round": 2, "metrics": {}},
        {"round": 3, "metrics": {METRIC: 0.7}},
    ]
    assert scores_of(rows, METRIC) == {0: 0.5, 2: 0.7}


def test_the_earliest_of_the_best_is_best_and_a_gain_is_more_than_min_delta() -> None:
    scores = {0: 0.5, 1: 0.6, 2: 0.62, 3: 0.62}
    assert best_round(scores) == 2
    assert best_round(scores, min_delta=0.02) == 1
    assert best_round({}) is None


def test_patience_counts_the_scored_rounds_since_the_best() -> None:
    scores = {0: 0.5, 1: 0.6, 3: 0.59}
    assert not is_out_of_patience(scores, settings(patience=2))
    assert is_out_of_patience({**scores, 5: 0.6}, settings(patience=2))
    assert not is_out_of_patience({**scores, 5: 0.61}, settings(patience=2))
    assert not is_out_of_patience(scores, settings())
    assert not is_out_of_patience({}, settings(patience=1))


def test_the_best_is_kept_or_the_last_and_the_sentence_says_which() -> None:
    scores = {1: 0.6, 2: 0.5, 3: 0.55}
    best = chosen_round(scores, settings(patience=2), trained=3, rounds=9)
    assert (best.round, best.value) == (1, 0.6)
    assert best.sentence() == (
        "The model is round 1's (tuning_auroc 0.6000, the best of 3 scored; round 3 has 0.5500); "
        "stopped after round 3 of 9: no gain since"
    )
    last = chosen_round(scores, settings(restore_best=False), trained=3, rounds=3)
    assert (last.round, last.value) == (3, 0.55)
    assert "of 3 scored" in last.sentence()
    assert "the best of" not in last.sentence()
    nothing = chosen_round({}, settings(), trained=3, rounds=3)
    assert (nothing.round, nothing.value) == (3, None)
    assert "No site reported tuning_auroc" in nothing.sentence()


def test_it_is_off_and_a_patience_without_a_metric_means_nothing() -> None:
    assert compose([]).federation.early_stopping.monitor is None
    with pytest.raises(ConfigError, match="monitor"):
        compose(["federation.early_stopping.patience=3"])


@pytest.mark.parametrize(
    ("given", "because"),
    [
        (["federation.evaluate_every=0"], "no site scores a round"),
        (["privacy=dp"], "privacy.tuning_metrics=true"),
        (["privacy=distributed"], "shared noise carries none"),
        (
            ["federation=secure", "federation.aggregation.secure.epsilon=8"],
            "shared noise carries none",
        ),
        (["evaluation.task=death", "train.objectives.label=1"], "is of next visits"),
        (["train.objectives.next_visit=0", "train.objectives.next_event=1"], "next_visit is 0"),
    ],
)
def test_what_cannot_be_monitored_is_refused_before_anything_runs(
    given: list[str], because: str
) -> None:
    metric = "federation.early_stopping.monitor=tuning_auroc_new_onset"
    with pytest.raises(ConfigError, match="HF-103") as caught:
        compose([metric, *given])
    assert because in str(caught.value)


def test_private_sites_may_say_that_they_tell_more_than_epsilon_covers() -> None:
    metric = "federation.early_stopping.monitor=tuning_auroc"
    config = compose([metric, "privacy=dp", "privacy.tuning_metrics=true"])
    assert config.federation.early_stopping.monitor == METRIC
