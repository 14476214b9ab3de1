"""What training says of a round is what the study declares, name by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.config.train import ObjectivesConfig
from healthfm_core.data.batch.sequences import Sequences
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.federation.declared_metrics import declared_metrics
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import VERSION, RoundOrder, Study
from healthfm_core.objectives import OBJECTIVES
from healthfm_core.tokens.statistics import merge, site_statistics
from healthfm_core.tokens.tokenizer import concatenate
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_core.training import SiteData, initial_parameters, plan_privacy, train_round
from healthfm_simulations.cohort import generate, write_sites

EVERY = tuple(sorted({objective.weight_field for objective in OBJECTIVES}))
SETTINGS = [
    "model=tiny",
    "data.cohort.subjects=200",
    "data.cohort.sites=4",
    "data.cohort.years=3",
    "tokens.k_min=3",
    "tokens.bin_spread=true",
    "train.max_steps=2",
    "train.batch_size=8",
    "rounds=2",
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    config = compose(SETTINGS)
    folder = tmp_path_factory.mktemp("sites")
    stores = [SiteStore.open(p) for p in write_sites(generate(config.data.cohort, 0), folder)]
    return [next(store for store in stores if len(store.modalities) == 3)]


@pytest.fixture(scope="module")
def study_and_data(stores):
    config = compose(SETTINGS)
    vocabulary = build_vocabulary(merge([site_statistics(stores, config.tokens)]), config.tokens)
    study = Study(VERSION, "run", config, vocabulary, ("ehr", "genomics", "wearable"))
    data = SiteData.load(stores, study)
    return study, replace(data, tuning=concatenate([data.train] * 3))  # enough for every metric


def with_config(study: Study, objectives: dict[str, float], *more: str) -> Study:
    config = compose([*SETTINGS, *more])
    weights = ObjectivesConfig(**(dict.fromkeys(EVERY, 0.0) | objectives))
    train = config.train.model_copy(update={"objectives": weights})
    return replace(study, config=config.model_copy(update={"train": train}))


def with_labels(people: Sequences) -> Sequences:
    """The same people with a label each, at the end of their record."""
    n = people.n_subjects
    return replace(
        people,
        label_subject=np.arange(n),
        label_time_us=people.time_us[np.maximum(people.offsets[1:] - 1, 0)],
        label_value=(np.arange(n) % 2).astype(np.float32),
    )


def emitted(study: Study, data: SiteData) -> set[str]:
    parameters = initial_parameters(study)
    groups = tuple(sorted({group_of(name) for name in parameters}))
    order = RoundOrder(round=1, rounds=2, groups=groups, evaluate=True, seed=1)
    privacy = study.config.privacy
    plan = None if privacy.mode == "off" else plan_privacy(data.train, study, privacy)
    return set(train_round(parameters, data, study, order, plan).metrics)


def test_every_objective_of_the_record_is_emitted_as_it_is_declared(study_and_data) -> None:
    study, data = study_and_data
    weights = dict.fromkeys(EVERY, 0.5) | {"label": 0.0}
    study = with_config(study, weights, "model.floor=true")
    assert emitted(study, data) == set(declared_metrics(study))
    assert {"loss_time_to_event", "grad_norm/head/masked_wearable"} <= set(declared_metrics(study))


@pytest.mark.parametrize(
    "objective", [o for o in OBJECTIVES if o.name != "label"], ids=lambda o: o.name
)
def test_each_objective_alone_is_emitted_as_it_is_declared(study_and_data, objective) -> None:
    study, data = study_and_data
    study = with_config(study, {objective.weight_field: 1.0}, "train.max_steps=1")
    assert emitted(study, data) == set(declared_metrics(study))
    assert {objective.loss_metric, f"grad_norm/{objective.group}"} <= set(declared_metrics(study))


def test_a_label_is_emitted_as_it_is_declared(study_and_data) -> None:
    study, data = study_and_data
    study = with_config(study, {"label": 1.0}, "train.label_task=readmission")
    labelled = with_labels(data.train)
    found = emitted(study, replace(data, train=labelled, tuning=with_labels(data.tuning)))
    assert found == set(declared_metrics(study))
    assert "loss_label" in found


@pytest.mark.parametrize("scored", [False, True])
def test_a_private_round_is_emitted_as_it_is_declared(study_and_data, scored) -> None:
    study, data = study_and_data
    more = ("privacy=dp", f"privacy.tuning_metrics={str(scored).lower()}")
    study = with_config(study, {"next_visit": 1.0}, *more)
    assert emitted(study, data) == set(declared_metrics(study))


def test_the_configuration_knows_which_objectives_ask_at_rows_of_their_own() -> None:
    assert set(EVERY) == set(ObjectivesConfig.model_fields)
    asking = {objective.weight_field for objective in OBJECTIVES if objective.query is not None}
    assert asking == set(ObjectivesConfig.asking())


def test_no_two_objectives_share_a_name() -> None:
    names = [objective.name for objective in OBJECTIVES]
    assert len(names) == len(set(names))


def test_sums_that_hide_modalities_carry_no_metric_that_only_holders_of_one_have(study_and_data):
    study, _ = study_and_data
    weights = dict.fromkeys(EVERY, 1.0)
    clear = set(declared_metrics(with_config(study, weights)))
    told = ("federation=secure", "federation.aggregation.secure.hide_modalities=false")
    assert set(declared_metrics(with_config(study, weights, *told))) == clear
    gone = {f"grad_norm/{modality}" for modality in study.modalities}
    for objective in OBJECTIVES:
        if objective.modality is not None:
            gone |= {objective.loss_metric, f"grad_norm/{objective.group}"}
    summed = set(declared_metrics(with_config(study, weights, "federation=secure")))
    assert summed == clear - gone
    assert {"loss_next_visit", "update_norm"} <= summed
