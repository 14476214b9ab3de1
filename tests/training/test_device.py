"""Training on a GPU, as far as a machine without one can tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import VERSION, RoundOrder, Study
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.training import SiteData, initial_parameters, train_round
from healthfm_core.training.loaders import loader_for
from healthfm_core.training.passes import losses, passes_for, queries_for
from healthfm_core.training.site_data import compute_device, loaded_model
from healthfm_simulations.cohort import generate, write_sites
from tests.training.test_loop import SETTINGS


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    config = compose(SETTINGS)
    paths = write_sites(generate(config.data.cohort, 0), tmp_path_factory.mktemp("sites"))
    stores = [SiteStore.open(path) for path in paths]
    merged = merge([site_statistics([store], config.tokens) for store in stores])
    vocabulary = build_vocabulary(merged, config.tokens)
    study = Study(VERSION, "run", config, vocabulary, ("ehr", "genomics", "wearable"))
    everything = next(store for store in stores if len(store.modalities) == 3)
    return study, SiteData.load([everything], study)


@pytest.mark.parametrize("attention", ["logbias", "rope_days"])
def test_a_step_keeps_to_the_device_of_the_model(site, attention):
    """On torch's meta device, whose operations refuse tensors from elsewhere as a GPU's do."""
    study, data = site
    settings = study.config.model.model_copy(update={"attention": attention})
    config = study.config.model_copy(update={"model": settings})
    study = Study(study.version, study.run_id, config, study.vocabulary, study.modalities)
    meta = torch.device("meta")
    model = loaded_model(initial_parameters(study), study, data.modalities, data.intercepts)
    model = model.to(meta)
    model.intercepts = {name: shift.to(meta) for name, shift in model.intercepts.items()}
    loader = loader_for(data.train, study)
    for query in queries_for(config.train):
        rng = np.random.default_rng(0)
        batch = next(loader.epoch(rng, batch_size=4, query=query)).to(meta)
        passes = [part for part in passes_for(config.train) if part.query == query]
        found = losses(model, batch, passes, config.train, torch.Generator())
        assert {mean.device.type for mean in found.means.values()} == {"meta"}
        found.per_subject.sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    unused = {name for name in without if ".decay." in name} if attention == "rope_days" else set()
    assert without == unused


def test_training_in_bfloat16_goes_where_training_in_float32_goes(site):
    study, data = site
    parameters = initial_parameters(study)
    groups = tuple(sorted({group_of(name) for name in parameters}))
    order = RoundOrder(round=1, rounds=2, groups=groups, evaluate=False, seed=3)
    updates = []
    for precision in ("float32", "bfloat16"):
        train = study.config.train.model_copy(update={"precision": precision})
        config = study.config.model_copy(update={"train": train})
        of = Study(study.version, study.run_id, config, study.vocabulary, study.modalities)
        update = train_round(parameters, data, of, order).update
        assert {array.dtype for array in update.values()} == {np.dtype(np.float32)}
        updates.append(np.concatenate([update[name].ravel() for name in sorted(update)]))
    full, half = updates
    assert not np.array_equal(full, half)
    assert full @ half / (np.linalg.norm(full) * np.linalg.norm(half)) > 0.95


def test_a_site_computes_on_its_gpu_if_it_has_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert compute_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert compute_device() == torch.device("cuda", 0)
