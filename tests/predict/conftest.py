"""The planted rule of `tests.explain`, people unlike any of its, and a model with a label."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.data.store.labels import label_table
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.data.store.store_writer import StoreWriter, add_labels
from healthfm_core.federation.protocol import Study
from healthfm_core.trained import TrainedModel
from healthfm_core.training import initial_parameters
from tests.data.conftest import Row, table
from tests.explain.conftest import (
    FIRST,
    QUIET,
    SETTINGS,
    SIGNAL,
    Planted,
    planted,  # noqa: F401  (a fixture)
    record,
)

KNOWN, STRANGER, NOTHING, DEAD, CHILD, AGELESS = range(1, 7)


@pytest.fixture(scope="session")
def unlike(tmp_path_factory) -> SiteStore:
    """One person like the model's, and one of each kind that it should not be asked about."""
    rows: list[Row] = [*record(KNOWN, True, False), *record(DEAD, False, False)]
    rows += [(STRANGER, datetime(1960, 1, 1), "MEDS_BIRTH", None, None)]
    rows += [(STRANGER, FIRST, f"OTHER//{n}", None, None) for n in range(3)]
    rows += [(STRANGER, FIRST, SIGNAL, None, None), (STRANGER, FIRST, QUIET, None, None)]
    rows += [(NOTHING, None, "SEX//F", None, None)]
    rows += [(DEAD, FIRST + timedelta(days=300), "MEDS_DEATH", None, None)]
    rows += [(CHILD, datetime(2010, 1, 1), "MEDS_BIRTH", None, None)]
    rows += [(CHILD, FIRST, SIGNAL, None, None), (AGELESS, FIRST, SIGNAL, None, None)]
    folder = tmp_path_factory.mktemp("unlike") / "store"
    writer = StoreWriter(folder, dataset_name="unlike")
    writer.add_events(table(rows))
    writer.write()
    return SiteStore.open(folder)


@pytest.fixture(scope="session")
def labelled(planted: Planted, tmp_path_factory) -> tuple[TrainedModel, SiteStore]:  # noqa: F811
    """A model with a label head, its numbers drawn, and a store with two labels of each person."""
    folder = tmp_path_factory.mktemp("labelled") / "store"
    shutil.copytree(planted.store.path, folder)
    who = np.repeat(planted.store.subjects(), 2)
    first_us = round(FIRST.timestamp()) * 1_000_000
    when = first_us + np.tile([86_400_000_000, 90 * 86_400_000_000], len(who) // 2)
    add_labels(folder, "soon", label_table(who, when, who % 2 == 1))
    settings = [*SETTINGS, "evaluation.task=soon", "train.objectives.label=1"]
    config = compose([s for s in settings if s != "train=multitask"])
    old = planted.model.study
    study = Study(old.version, "labelled", config, old.vocabulary, old.modalities)
    rng = np.random.default_rng(0)
    start = {
        name: (array + rng.normal(0, 0.1, array.shape)).astype(np.float32)
        for name, array in initial_parameters(study).items()
    }
    model = replace(planted.model, study=study, parameters=start)
    model.save(folder.parent / "model")
    return model, SiteStore.open(folder)
