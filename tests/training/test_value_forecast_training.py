"""A round of the value forecast at a site: what it moves, and what it must not read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.config import PrivacyConfig
from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import RoundOrder
from healthfm_core.privacy.accounting import Mechanism
from healthfm_core.training import PrivacyPlan, SiteData, initial_parameters, train_round
from healthfm_simulations.cohort import generate, write_sites
from tests.training.test_loop import SETTINGS, study_of

FORECAST = (
    *(setting for setting in SETTINGS if "objectives" not in setting),
    "tokens.bin_hours=720",
    "tokens.bin_spread=true",
    "model.summary_hours=8760",
    "model.summary_width=8",
    "train.objectives.next_visit=0",
    "train.objectives.value_forecast=1",
    "train.forecast_hours=4380",
    "train.batch_size=4",
)
SUMMARY, HEAD = "encoders.ehr.summary.first.weight", "heads.value_forecast.weight"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = compose(list(FORECAST))
    paths = write_sites(generate(config.data.cohort, 0), tmp_path_factory.mktemp("sites"))
    study = study_of(config, [SiteStore.open(path) for path in paths])
    data = [SiteData.load([SiteStore.open(path)], study) for path in paths]
    return study, initial_parameters(study), max(data, key=lambda site: site.train.n_subjects)


def trained(world, data=None, privacy=None):
    study, parameters, own = world
    groups = tuple(sorted({group_of(name) for name in parameters}))
    order = RoundOrder(round=1, rounds=2, groups=groups, evaluate=False, seed=3)
    return train_round(parameters, own if data is None else data, study, order, privacy)


def test_a_round_teaches_the_network_that_reads_the_hours_and_its_head(world):
    found = trained(world)
    assert found.metrics["loss_value_forecast"] > 0
    for name in (SUMMARY, HEAD):
        assert np.abs(found.update[name]).max() > 0, name


def test_a_round_reads_no_label(world):
    _, _, data = world
    someone = np.zeros(1, np.int64)
    labelled = replace(
        data.train,
        label_subject=someone,
        label_time_us=someone,
        label_value=np.ones(1, np.float32),
    )
    before, after = trained(world), trained(world, replace(data, train=labelled))
    assert all(np.array_equal(before.update[name], after.update[name]) for name in before.update)


def test_a_private_round_moves_it_too(world):
    plan = PrivacyPlan(PrivacyConfig(mode="dp", noise_multiplier=1.0), Mechanism(1.0, 0.7, 2), 2)
    found = trained(world, privacy=plan)
    for name in (SUMMARY, HEAD):
        assert np.isfinite(found.update[name]).all(), name
        assert np.abs(found.update[name]).max() > 0, name
