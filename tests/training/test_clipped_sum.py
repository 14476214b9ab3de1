"""A site's part in a step of all sites: the sum of its people's clipped gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from healthfm_core.config import PrivacyConfig, RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_core.federation.parameter_groups import is_trainable
from healthfm_core.federation.protocol import VERSION, Study
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.privacy.entropy import Entropy
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.training import (
    PrivacyPlan,
    SiteData,
    initial_parameters,
    loaded_model,
    loader_for,
    train_round,
)
from healthfm_core.training.gradients.clipped_sum import ClippedSumGradient
from healthfm_core.training.loop import take_steps
from healthfm_core.training.passes import losses, private_passes
from healthfm_simulations.cohort import generate, write_sites
from tests.training.test_loop import order

NORM = 0.05
SETTINGS = [
    "model=tiny",
    "model.width=16",
    "model.ffn=16",
    "model.dropout=0",
    "data.cohort.subjects=40",
    "data.cohort.sites=2",
    "data.cohort.years=2",
    "tokens.k_min=2",
    "tokens.max_len=48",
    "train.drop_events=0",
    "train.drop_ehr=0",
    "train.drop_wearable=0",
    "train.drop_genomics=0",
    "privacy.mode=distributed",
    "privacy.epsilon=8",
    f"privacy.max_grad_norm={NORM}",
    "federation.aggregation.secure.enabled=true",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = compose(
        [*SETTINGS, "train.objectives.time_to_event=1", "train.objectives.next_visit=0"]
    )
    paths = write_sites(generate(config.data.cohort, 0), tmp_path_factory.mktemp("sites"))
    store = SiteStore.open(paths[0])
    merged = merge([site_statistics([store], config.tokens)])
    vocabulary = build_vocabulary(merged, config.tokens)
    study = Study(VERSION, "run", config, vocabulary, tuple(sorted(store.modalities)))
    return study, initial_parameters(study), SiteData.load([store], study)


def private(**more) -> PrivacyPlan:
    config = PrivacyConfig(mode="distributed", epsilon=8.0, max_grad_norm=NORM, **more)
    return PrivacyPlan(config, Mechanism(1.0, 1.0, 1), 2)


class Fixed(Entropy):
    """Draws the same rows every time."""

    def seed(self) -> int:
        return 7


def one_by_one(model, data, study) -> dict[str, np.ndarray]:
    """Return what a loop over people gives: the gradient of each, clipped, added up."""
    config = study.config.train
    (part,) = private_passes(config, list(model.heads))
    everyone = np.ones(data.train.n_subjects, np.bool_)
    rows = loader_for(data.train, study).sampled(
        np.random.default_rng(7), everyone, batch_size=32, query=part.query
    )
    total = {name: np.zeros(p.shape) for name, p in model.named_parameters()}
    for batch in rows:
        found = losses(model, batch, (part,), config, torch.Generator())
        for loss in found.per_subject:
            model.zero_grad()
            loss.backward(retain_graph=True)
            grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            norm = float(torch.cat([g.flatten() for g in grads.values()]).norm())
            for name, g in grads.items():
                total[name] -= g.double().numpy() * min(1.0, NORM / max(norm, 1e-9))
    return total


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
def test_the_sum_is_that_of_a_loop_over_people(world, mode) -> None:
    study, parameters, data = world
    model = loaded_model(parameters, study, data.modalities)
    wanted = one_by_one(model, data, study)
    model.zero_grad()
    loader, config = loader_for(data.train, study), study.config.train
    gradient = ClippedSumGradient(model, loader, config, private(grad_sample=mode), Fixed())
    take_steps(model, gradient, config, order(parameters))
    found = gradient.update({})
    gradient.close()
    assert found.keys() == wanted.keys()
    for name, array in found.items():
        assert np.allclose(array, wanted[name], rtol=1e-3, atol=1e-4 * NORM), name
    length = np.sqrt(sum(np.square(a).sum() for a in found.values()))
    assert length > NORM, "more than one person's"
    assert length <= NORM * data.train.n_subjects


def test_a_round_says_nothing_but_the_sum_and_leaves_the_parameters(world) -> None:
    study, parameters, data = world
    before = {name: array.copy() for name, array in parameters.items()}
    found = train_round(parameters, data, study, order(parameters, evaluate=True), private())
    assert found.metrics == {}
    assert set(found.weights) == set(order(parameters).groups)
    assert all(np.array_equal(before[name], array) for name, array in parameters.items())


def test_only_what_learns_has_a_sum(world) -> None:
    study, parameters, data = world
    train = study.config.train.model_copy(update={"trainable": "heads"})
    study = replace(study, config=study.config.model_copy(update={"train": train}))
    found = train_round(parameters, data, study, order(parameters), private()).update
    assert set(found) == {name for name in parameters if is_trainable(name, "heads")}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("federation.aggregation.secure.enabled=false", "needs federation.aggregation.secure"),
        ("federation.aggregation.secure.epsilon=8", "needs federation.aggregation.secure"),
        ("train.objectives.label=1", "one question in every round"),
        ("train.curriculum=staged", "one question in every round"),
        ("privacy.noise_multiplier=1", "takes epsilon"),
        ("privacy.epsilon=null", "takes epsilon"),
        ("train.precision=bfloat16", "needs train.precision=float32"),
    ],
)
def test_a_study_that_cannot_share_noise_is_refused_in_a_sentence(change, sentence) -> None:
    assert isinstance(compose(SETTINGS), RunConfig)
    with pytest.raises(ConfigError, match=sentence):
        compose([*SETTINGS, change])
