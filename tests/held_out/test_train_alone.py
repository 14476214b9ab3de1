"""The model a site would have alone: same start, same rounds, its own people, its best round."""

from __future__ import annotations

import numpy as np

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.core_local_work import CoreLocalWork
from healthfm_core.federation.protocol import VERSION, Study
from healthfm_core.held_out import train_alone as alone
from healthfm_core.held_out.train_alone import train_alone
from healthfm_core.training import initial_parameters
from healthfm_simulations.engine import NodeSpec, run_federation
from tests.held_out.test_held_out_people import site

__all__ = ["site"]


def short(study, **federation):
    """Return the study with three rounds of a step each."""
    config = study.config.model_copy(
        update={
            "federation": study.config.federation.model_copy(update={"rounds": 3, **federation}),
            "train": study.config.train.model_copy(update={"max_steps": 2}),
        }
    )
    return Study(VERSION, study.run_id, config, study.vocabulary, study.modalities)


def test_it_trains_to_the_bit_as_a_federation_of_one_does(site, tmp_path, monkeypatch):
    """That is what the local arm of a simulation is."""
    study, spec = site
    config = short(study, evaluate_every=0).config
    nodes = [NodeSpec("alone", ((spec.path, spec.modalities),))]
    result = run_federation(config, nodes, tmp_path / "run")
    data = CoreLocalWork().load((spec,), result.study)
    original = alone.train_round

    def unscored(*asked):
        found = original(*asked)
        return type(found)(found.update, found.weights, {})

    monkeypatch.setattr(alone, "train_round", unscored)
    found = train_alone(data, result.study)
    assert (found.round, found.rounds, found.scores) == (3, 3, {})
    for name, array in found.parameters.items():
        np.testing.assert_array_equal(array, result.parameters[name], err_msg=name)


def test_the_round_that_is_best_on_its_tuning_people_is_the_one(site, monkeypatch):
    study, spec = site
    data, ours = CoreLocalWork().load((spec,), short(study)), short(study)
    scores, made = {1: 0.1, 2: 0.7, 3: 0.3, 4: 0.2}, []
    original = alone.train_round

    def scored(parameters, data, study, order):
        result = original(parameters, data, study, order)
        made.append((order.round, parameters))
        metrics = {**result.metrics, "tuning_average_precision_new_onset": scores[order.round]}
        return type(result)(result.update, result.weights, metrics)

    monkeypatch.setattr(alone, "train_round", scored)
    shown = []
    found = train_alone(data, ours, show=lambda done, of: shown.append((done, of)))
    assert (found.round, found.scores) == (1, {0: 0.1, 1: 0.7, 2: 0.3, 3: 0.2})
    received = dict(made)[2]
    assert all(np.array_equal(found.parameters[name], received[name]) for name in received)
    assert shown == [(1, 3), (2, 3), (3, 3)]


def test_it_starts_from_the_model_that_the_run_started_from(site):
    study, spec = site
    data, ours = CoreLocalWork().load((spec,), short(study)), short(study)
    start = {name: array + np.float32(1) for name, array in initial_parameters(ours).items()}
    before = {name: array.copy() for name, array in start.items()}
    found = train_alone(data, ours, start=start)
    far = [np.abs(found.parameters[name] - start[name]).mean() for name in found.parameters]
    assert max(far) < 0.5
    assert all(np.array_equal(start[name], before[name]) for name in start), "it is left as it was"
