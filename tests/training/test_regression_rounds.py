"""A round of regression at a site: the exact gradient of its labelled people, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from healthfm_core.config import PrivacyConfig
from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError, PrivacyError
from healthfm_core.federation.aggregation.regression_step import regressed
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import VERSION, RoundOrder, Study
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.training import (
    SiteData,
    initial_parameters,
    loaded_model,
    loader_for,
    train_round,
)
from healthfm_core.training.curriculum import in_round
from healthfm_core.training.privacy_plan import plan_privacy
from healthfm_simulations.cohort import generate, write_sites
from healthfm_simulations.cohort.cohort_tables import RETURN_TASK

SETTINGS = (
    "model=tiny",
    "model.width=16",
    "model.ffn=16",
    "model.linear_logit=true",
    "data.cohort.subjects=80",
    "data.cohort.sites=2",
    "data.cohort.years=2",
    "data.cohort.without_wearable=0",
    "data.cohort.without_genomics=0",
    "tokens.k_min=2",
    "tokens.max_len=48",
    "tokens.bin_spread=true",
    "train.objectives.next_visit=0",
    "train.objectives.label=1",
    f"evaluation.task={RETURN_TASK}",
    "train.regression_rounds=2",
    "train.drop_wearable=0.5",
    "federation.rounds=3",
)


def study_of(config, stores) -> Study:
    task = config.label_task
    merged = merge([site_statistics([store], config.tokens, task=task) for store in stores])
    vocabulary = build_vocabulary(merged, config.tokens)
    return Study(VERSION, "run", config, vocabulary, ("ehr", "genomics", "wearable"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = compose(list(SETTINGS))
    paths = write_sites(generate(config.data.cohort, 0), tmp_path_factory.mktemp("sites"))
    stores = [SiteStore.open(path) for path in paths]
    study = study_of(config, stores)
    return study, initial_parameters(study), SiteData.load([stores[0]], study)


def trained(world, round_):
    study, parameters, data = world
    groups = tuple(sorted({group_of(name) for name in parameters}))
    order = RoundOrder(round=round_, rounds=3, groups=groups, evaluate=False, seed=3)
    return train_round(parameters, data, study, order)


def by_person(world):
    """Return minus the gradient of each parameter, one labelled person after the other."""
    study, parameters, data = world
    model = loaded_model(parameters, study, data.modalities, data.intercepts).eval()
    for batch in loader_for(data.train, study).in_order(batch_size=1, query="label"):
        logit = model.head("label", model(batch, batch.query), batch)[0, 0, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, batch.label[0, 0])
        loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if n in regressed(parameters)}


def test_a_site_answers_with_the_summed_gradient_of_its_people(world):
    result = trained(world, 2)
    for name, gradient in by_person(world).items():
        answer = torch.from_numpy(result.update[name]) * result.weights[group_of(name)]
        torch.testing.assert_close(answer, -gradient, rtol=1e-3, atol=1e-4)
    assert result.weights["wearable"] != result.weights["head/label"]


def test_it_is_the_same_whatever_the_round_and_moves_nothing_else(world):
    first, second = trained(world, 2), trained(world, 3)
    names = set(regressed(first.update))
    assert len(names) == 4
    for name, change in first.update.items():
        assert (np.abs(change).max() > 0) == (name in names), name
        assert np.array_equal(change, second.update[name]), name


def test_the_rounds_before_train_the_network_as_if_there_were_no_others(world):
    result = trained(world, 1)
    assert np.abs(result.update["backbone.norm.weight"]).max() > 0
    config = world[0].config.train
    assert config.network_rounds(3) == 1
    assert [config.is_regression(r, 3) for r in (1, 2, 3)] == [False, True, True]
    assert in_round(config, round_=1, rounds=3) == config


def test_a_round_of_regression_asks_for_the_label_alone(world):
    config = world[0].config.train
    several = config.model_copy(
        update={"objectives": config.objectives.model_copy(update={"next_visit": 1.0})}
    )
    weights = in_round(several, round_=3, rounds=3).objectives
    assert {name: w for name, w in weights.model_dump().items() if w} == {"label": 1.0}
    assert in_round(several, round_=1, rounds=3).objectives.next_visit == 1.0


def test_a_site_that_trains_with_noise_of_its_own_takes_no_part(world):
    study, _, data = world
    with pytest.raises(PrivacyError, match="exact gradients in its last 2 rounds") as refused:
        plan_privacy(data.train, study, PrivacyConfig(mode="dp", epsilon=8.0, delta=1e-5))
    assert refused.value.number == 604


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        (["train.objectives.label=0", "train.objectives.next_visit=1"], "objectives.label"),
        (["federation.rounds=1"], "federation.rounds"),
        (["federation.fraction=0.5"], "federation.fraction"),
        (["federation.aggregation.method=krum"], "method=weighted_mean"),
        (["federation=int8"], "federation.codec"),
        (["privacy=dp"], "privacy.mode=none"),
        (["federation=secure", "federation.aggregation.secure.epsilon=8"], "without noise"),
    ],
)
def test_what_would_spoil_the_gradients_is_refused_by_name(changes, needed):
    with pytest.raises(ConfigError, match=r"train\.regression_rounds=2") as refused:
        compose([*SETTINGS, *changes])
    assert needed in str(refused.value)
