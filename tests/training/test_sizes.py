"""The sizes of the design's table train."""

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
from healthfm_simulations.cohort import generate, write_sites

FEW = [
    "data.cohort.subjects=40",
    "data.cohort.sites=1",
    "data.cohort.years=2",
    "data.cohort.without_wearable=0",
    "data.cohort.without_genomics=0",
    "data.cohort.wearable_hours=2",
    "data.cohort.worn_hours=8",
    "tokens.k_min=2",
    "tokens.max_len=48",
    "train.max_steps=1",
    "train.batch_size=2",
]


def one_step(tmp_path, *settings: str):
    """Run one step of one site, and return the update of every parameter."""
    config = compose([*FEW, *settings])
    paths = write_sites(generate(config.data.cohort, 0), tmp_path)
    stores = [SiteStore.open(path) for path in paths]
    vocabulary = build_vocabulary(
        merge([site_statistics([store], config.tokens) for store in stores]), config.tokens
    )
    study = Study(VERSION, "run", config, vocabulary, ("ehr", "genomics", "wearable"))
    parameters = initial_parameters(study)
    groups = tuple(sorted({group_of(name) for name in parameters}))
    order = RoundOrder(round=1, rounds=1, groups=groups, evaluate=False, seed=0)
    return train_round(parameters, SiteData.load(stores, study), study, order)


def test_the_small_size_trains_a_step_on_a_cpu(tmp_path):
    found = one_step(tmp_path, "model=small")
    assert found.metrics["steps"] == 1
    assert np.isfinite(found.metrics["loss_next_visit"])
    moved = {name for name, update in found.update.items() if np.abs(update).max() > 0}
    assert {"backbone.blocks.7.qkv.weight", "encoders.wearable.layers.5.out.weight"} <= moved


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="asks for a step on a CUDA device, and torch finds none on this machine",
)
def test_the_paper_s_size_trains_a_step_in_half_precision_on_a_gpu(tmp_path):
    found = one_step(tmp_path, "model=paper", "train.precision=bfloat16")
    assert found.metrics["steps"] == 1
    assert np.isfinite(found.metrics["loss_next_visit"])
