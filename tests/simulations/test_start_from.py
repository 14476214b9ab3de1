"""A run that starts from a trained model: pretraining, then a task of one's own."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.errors import RunError
from healthfm_core.trained import TrainedModel
from healthfm_simulations.cohort import generate, write_sites
from healthfm_simulations.engine import NodeSpec, run_federation
from tests.training.test_loop import SETTINGS

SMALL = [*SETTINGS, "rounds=1", "federation.evaluate_every=0", "train.max_steps=1"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretraining")
    config = compose(SMALL)
    paths = write_sites(generate(config.data.cohort, 0), folder / "sites")
    nodes = [NodeSpec(path.name, ((path, None),)) for path in paths]
    result = run_federation(config, nodes, folder / "run")
    TrainedModel(result.study, result.parameters, 1).save(folder / "model")
    return folder / "model", nodes, result


def test_a_run_goes_on_from_the_model_it_names(pretrained, tmp_path):
    model, nodes, before = pretrained
    still = [*SMALL, f"federation.start_from={model}", "train.lr=1e-12"]
    after = run_federation(compose(still), nodes, tmp_path / "run")
    assert after.study.vocabulary == before.study.vocabulary
    for name, array in before.parameters.items():
        np.testing.assert_allclose(after.parameters[name], array, atol=1e-6)
    assert str(model) not in after.study.to_json()


def test_new_objectives_get_fresh_heads_and_the_vocabulary_stays(pretrained, tmp_path):
    model, nodes, before = pretrained
    other = [
        *(s for s in SMALL if "objectives" not in s),
        f"federation.start_from={model}",
        "train.lr=1e-12",
        "tokens.max_codes=7",
    ]
    after = run_federation(compose(other), nodes, tmp_path / "run")
    assert after.study.vocabulary == before.study.vocabulary
    assert "heads.time_to_event.state.weight" not in after.parameters


def test_a_model_of_another_size_is_refused(pretrained, tmp_path):
    model, nodes, _ = pretrained
    wider = [*SMALL, f"federation.start_from={model}", "model.width=32"]
    with pytest.raises(RunError, match="HF-712"):
        run_federation(compose(wider), nodes, tmp_path / "run")


def test_a_label_s_head_starts_fresh(pretrained):
    model, _, _ = pretrained
    trained = TrainedModel.load(model)
    names = ["heads.label.bias", "encoders.ehr.linear_logit.weight"]
    known = TrainedModel(trained.study, {name: np.ones(1, np.float32) for name in names}, 1)
    fresh = {name: np.zeros(1, np.float32) for name in names}
    fresh["backbone.norm.weight"] = np.full(16, 2.0, np.float32)
    assert not any(known.start(fresh)[name] for name in names)
    assert (trained.start(fresh)["backbone.norm.weight"] != 2.0).any()


@pytest.mark.parametrize(("trainable", "moved"), [("heads", 0), ("adapters", 2)])
def test_what_is_started_from_stays_where_only_new_parts_learn(
    pretrained, tmp_path, trainable, moved
):
    model, nodes, before = pretrained
    task = [
        *(s for s in SMALL if "objectives" not in s),
        f"federation.start_from={model}",
        f"train.trainable={trainable}",
        "model.adapter_rank=2",
        "train.objectives.next_visit=0",
        "train.objectives.label=1",
        "train.label_task=return_within_30_days",
        "train.max_steps=2",
    ]
    after = run_federation(compose(task), nodes, tmp_path / "run")
    body = [name for name in before.parameters if not name.startswith("heads.")]
    assert all(np.array_equal(after.parameters[n], before.parameters[n]) for n in body)
    ups = [array for name, array in after.parameters.items() if name.endswith("adapter.up.weight")]
    assert len(ups) == compose(task).model.layers
    assert sum(bool(array.any()) for array in ups) == min(moved, len(ups))
    assert np.abs(after.parameters["heads.label.weight"]).any()
