"""Private training at a site: what a step draws, trains, and leaves to be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from healthfm_core.config import PrivacyConfig, TrainConfig
from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import PrivacyError
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import VERSION, RoundOrder, Study
from healthfm_core.privacy.accounting import Mechanism, epsilon
from healthfm_core.privacy.entropy import Entropy
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.tokenizer import concatenate
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.training import (
    PrivacyPlan,
    SiteData,
    initial_parameters,
    loaded_model,
    loader_for,
    plan_privacy,
    train_round,
)
from healthfm_core.training.gradients import per_person
from healthfm_core.training.gradients.dp_sgd import DPSGDGradient
from healthfm_core.training.intercepts import site_intercepts
from healthfm_core.training.passes import losses, private_passes
from healthfm_simulations.cohort import generate, write_sites
from tests.training.test_loop import SETTINGS

ROUNDS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = compose([*SETTINGS, f"rounds={ROUNDS}", "train.max_steps=4", "privacy=dp"])
    folder = tmp_path_factory.mktemp("sites")
    stores = [SiteStore.open(p) for p in write_sites(generate(config.data.cohort, 0), folder)]
    merged = merge([site_statistics([store], config.tokens) for store in stores])
    vocabulary = build_vocabulary(merged, config.tokens)
    study = Study(VERSION, "run", config, vocabulary, ("ehr", "genomics", "wearable"))
    every = next(s for s in stores if len(s.modalities) == 3)
    return study, initial_parameters(study), SiteData.load([every], study)


def order(parameters, **changes):
    groups = tuple(sorted({group_of(name) for name in parameters}))
    return RoundOrder(
        **{"round": 1, "rounds": ROUNDS, "groups": groups, "evaluate": True, "seed": 3} | changes
    )


def dp(**changes) -> PrivacyConfig:
    return PrivacyConfig(**{"mode": "dp", "noise_multiplier": 1.0} | changes)


def test_the_noise_makes_all_rounds_fit_into_epsilon(world):
    study, _, data = world
    found = plan_privacy(data.train, study, study.config.privacy)
    people = data.train.n_subjects
    assert found.mechanism.sample_rate == min(1.0, study.config.train.batch_size / people)
    assert found.whole.steps == ROUNDS * found.mechanism.steps
    assert 0.95 * 8 < found.epsilon() <= 8
    assert found.epsilon() == epsilon([found.whole], 1e-5)


def test_delta_has_to_be_less_than_one_in_the_people(world):
    study, _, data = world
    with pytest.raises(PrivacyError, match="HF-604"):
        plan_privacy(concatenate([data.train] * 20), study, dp(delta=0.0099))
    assert plan_privacy(data.train, study, dp(delta=1e-4))


def test_two_rounds_of_one_order_differ_and_say_nothing_of_the_people(world):
    study, parameters, data = world
    private = plan_privacy(data.train, study, study.config.privacy)
    first = train_round(parameters, data, study, order(parameters), private)
    again = train_round(parameters, data, study, order(parameters), private)
    assert any((first.update[name] != again.update[name]).any() for name in parameters)
    assert all(np.isfinite(value).all() for value in first.update.values())
    told = {name.partition("/")[0] for name in first.metrics}
    assert told == {
        "steps",
        "privacy_noise_multiplier",
        "privacy_epsilon",
        "update_norm",
        *(name for name in told if name.startswith("layer")),
    }


def test_without_noise_to_speak_of_private_training_learns(world):
    study, parameters, data = world
    train = study.config.train.model_copy(update={"max_steps": 20, "lr_final": 1.0})
    study = replace(study, config=study.config.model_copy(update={"train": train}))
    still = PrivacyPlan(dp(max_grad_norm=10.0), Mechanism(1e-3, 0.5, 20), ROUNDS)
    found = train_round(parameters, data, study, order(parameters, evaluate=False), still)
    moved = {name: parameters[name] + found.update[name] for name in parameters}

    def loss(values) -> float:
        model = loaded_model(values, study, data.modalities)
        batches = loader_for(data.train, study).in_order(batch_size=64, query="sep")
        config = study.config.train
        masks = torch.Generator().manual_seed(0)
        passes = [p for p in private_passes(config, list(model.heads)) if p.query == "sep"]
        found = [losses(model, b, passes, config, masks).per_subject for b in batches]
        return float(torch.cat(found).mean())

    with torch.no_grad():
        assert loss(moved) < 0.97 * loss(parameters)


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
def test_what_is_not_to_learn_gets_no_noise_either(world, mode):
    study, parameters, data = world
    train = study.config.train.model_copy(update={"trainable": "heads"})
    study = replace(study, config=study.config.model_copy(update={"train": train}))
    private = PrivacyPlan(dp(grad_sample=mode), Mechanism(1.0, 0.5, 2), ROUNDS)
    update = train_round(parameters, data, study, order(parameters), private).update
    moved = {name for name, array in update.items() if array.any()}
    assert moved
    assert all(name.startswith("heads.") for name in moved)


def gradient_of(model, data, study, private, entropy, batch_size=8) -> DPSGDGradient:
    config = study.config.train.model_copy(update={"batch_size": batch_size})
    loader = loader_for(data.train, study)
    return DPSGDGradient(model, loader, config, order({}), private, entropy)


class Nobody(Entropy):
    """Draws nobody, with the noise of every day."""

    def chosen(self, count: int, rate: float):
        return np.zeros(count, np.bool_)


@pytest.mark.parametrize("mode", ["ghost", "hooks"])
@pytest.mark.parametrize("entropy", [Entropy, Nobody])
def test_a_step_moves_the_same_parameters_whoever_was_drawn(world, entropy, mode):
    study, parameters, data = world
    model = loaded_model(parameters, study, data.modalities).train()
    private = PrivacyPlan(dp(grad_sample=mode, rows_at_once=5), Mechanism(1.0, 0.5, 1), ROUNDS)
    gradient = gradient_of(model, data, study, private, entropy())
    for part in private_passes(study.config.train, list(model.heads)):
        model.zero_grad()
        gradient.compute_pass(part)
        moved = {name for name, p in model.named_parameters() if p.grad is not None}
        asked = {name for name in parameters if part.trains(name)}
        assert moved == asked
        assert all(p.grad.count_nonzero() > 0 for p in model.parameters() if p.grad is not None)
    gradient.close()


def test_the_noise_of_a_step_has_the_size_that_was_paid_for(world):
    study, parameters, data = world
    model = loaded_model(parameters, study, data.modalities).train()
    config = dp(max_grad_norm=0.5, group_norms={"backbone": 2.0}, grad_sample="hooks")
    private = PrivacyPlan(config, Mechanism(3.0, 0.5, 1), ROUNDS)
    gradient = gradient_of(model, data, study, private, Nobody(), batch_size=4)
    gradient.compute_pass(private_passes(study.config.train, list(model.heads))[0])
    live = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    groups = {group_of(name) for name in live}
    for group, norm in [("backbone", 2.0), ("ehr", 0.5)]:
        noise = torch.cat([g.flatten() for name, g in live.items() if group_of(name) == group])
        expected = 3.0 * norm * len(groups) ** 0.5 / 4
        assert abs(float(noise.std()) / expected - 1) < 5 / len(noise) ** 0.5
    gradient.close()


def test_a_person_whose_loss_is_not_finite_is_left_out_and_the_step_goes_on(world, monkeypatch):
    study, parameters, data = world
    model = loaded_model(parameters, study, data.modalities).train()
    private = PrivacyPlan(dp(), Mechanism(1.0, 1.0, 1), ROUNDS)
    gradient = gradient_of(model, data, study, private, Entropy())
    seen = []
    real = per_person.losses

    def spoiled(model, batch, *args, **more):
        found = real(model, batch, *args, **more)
        seen.append(set(batch.subject.tolist()))
        factor = torch.where(batch.subject == min(seen[0]), torch.nan, 1.0)
        return replace(found, per_subject=found.per_subject * factor)

    monkeypatch.setattr(per_person, "losses", spoiled)
    gradient.compute_pass(private_passes(study.config.train, list(model.heads))[0])
    first, again, *_ = seen
    assert len(first) > 1
    assert again == first - {min(first)}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    gradient.close()


def test_each_kind_of_step_is_one_pass_and_none_asks_the_data(world):
    study, parameters, data = world
    model = loaded_model(parameters, study, data.modalities)
    passes = private_passes(study.config.train, list(model.heads))
    assert [(part.query, sorted(o.name for o in part.objectives)) for part in passes] == [
        ("sep", ["masked_codes", "masked_wearable", "next_visit", "predictive_coding"]),
        ("now", ["time_to_event"]),
        ("worn", ["cross_modal"]),
        ("sep", ["next_event"]),
    ]
    clinic = loaded_model(parameters, study, frozenset({"ehr"}))
    config = TrainConfig(objectives=study.config.train.objectives)
    assert "worn" not in {part.query for part in private_passes(config, list(clinic.heads))}


def test_a_private_study_has_no_intercepts(world):
    study, _, data = world
    assert data.intercepts == {}
    assert site_intercepts(data.train, study) == {}
    off = study.config.model_copy(update={"privacy": PrivacyConfig()})
    assert site_intercepts(data.train, replace(study, config=off)) != {}


def test_of_several_labels_of_a_person_a_step_reads_one(world):
    study, _, data = world
    n = data.train.n_subjects
    time = data.train.time_us[np.maximum(data.train.offsets[1:] - 1, 0)]
    twice = replace(
        data.train,
        label_subject=np.repeat(np.arange(n), 2),
        label_time_us=np.repeat(time, 2),
        label_value=np.tile(np.array([0.0, 1.0], np.float32), n),
    )
    loader = loader_for(twice, study)
    drawn = np.ones(n, np.bool_)
    drawn[0] = False
    rng = np.random.default_rng(0)
    batches = list(loader.sampled(rng, drawn, batch_size=7, query="label"))
    assert sorted(np.concatenate([b.subject for b in batches])) == list(range(1, n))
    labels = torch.cat([b.label.flatten() for b in batches])
    assert 0 < int(labels.sum()) < len(labels)
    assert list(loader.sampled(rng, drawn & False, batch_size=7, query="label")) == []
