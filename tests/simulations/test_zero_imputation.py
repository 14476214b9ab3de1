"""The arm that puts zeros where a site has nothing."""

from __future__ import annotations

import json

import pytest

from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.tokens.statistics import site_statistics
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_simulations.__main__ import main
from healthfm_simulations.arms.zero_imputation import imputed_fold, write_imputed
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.sites import SimulatedSite
from tests.simulations.test_simulate_command import SMALL
from tests.tokens.small_store import Row, Worn, write

ROWS: list[Row] = [
    row
    for s in range(4)
    for row in ((s, -9000.0, "MEDS_BIRTH", None), (s, 1.0, "LAB//K", 1.0 * s), (s, 1.0, "DX", None))
]
WORN: list[Worn] = [(s, 24.0, "steps", 1 / 86400, [10.0 * s]) for s in range(4)]
LABELS = {"death": [(s, 72.0, s % 2 == 0) for s in range(4)]}
CONFIG = compose(
    [
        "train.label_task=death",
        "evaluation.task=death",
        "tokens.k_min=1",
        "tokens.wearable_token_s=86400",
        "tokens.wearable_window_s=86400",
    ]
)


@pytest.fixture
def site(tmp_path):
    store = write(tmp_path / "a", ROWS, worn=WORN, labels=LABELS)
    statistics = site_statistics([store], CONFIG.tokens, task="death")
    return SimulatedSite("a", store.path, ("ehr",)), build_vocabulary(statistics, CONFIG.tokens)


def test_who_lacks_wearables_gets_an_average_day_that_says_it_was_worn(site, tmp_path):
    here, vocabulary = site
    write_imputed(here.view(), vocabulary, tmp_path / "copy")
    copy = SiteStore.open(tmp_path / "copy")
    assert copy.modalities == {"ehr", "wearable"}
    found = tokenize([copy], vocabulary, CONFIG.tokens, split=None, task="death")
    assert found.wearable.shape == (4, 1, 1)
    assert found.wearable == pytest.approx(0, abs=1e-6)
    assert found.wearable_mask.all()
    ends = found.time_us[found.wearable_row >= 0]
    assert (ends <= found.label_time_us).all()
    held = here.view()
    assert copy.events().equals(held.events())
    assert (copy.subjects("train") == held.subjects("train")).all()
    assert copy.labels("death").equals(held.labels("death"))


def test_who_lacks_a_clinic_gets_the_medians_and_no_age(site, tmp_path):
    here, vocabulary = site
    worn = SiteStore.open(here.path, modalities=("wearable",))
    write_imputed(worn, vocabulary, tmp_path / "copy")
    copy = SiteStore.open(tmp_path / "copy")
    assert set(copy.events()["code"].to_pylist()) == {"LAB//K"}
    found = tokenize([copy], vocabulary, CONFIG.tokens, split=None, task="death")
    events = found.wearable_row < 0
    assert events.sum() == 4
    assert found.has_value[events].all()
    assert found.quantile[events] == pytest.approx(0, abs=0.02)
    assert (found.wearable != 0).any()


def test_a_test_person_is_given_the_inputs_asked_for_and_zeros_for_the_rest(site, tmp_path):
    here, vocabulary = site
    fold = CrossValidationFold("fold-0", (here,), (here,), None)
    given = imputed_fold(fold, vocabulary, CONFIG, tmp_path / "copies", "wearable")
    store = given.test[0].view()
    assert set(store.events()["code"].to_pylist()) == {"LAB//K"}
    assert store.wearable().equals(SiteStore.open(here.path).wearable())
    trained = imputed_fold(fold, vocabulary, CONFIG, tmp_path / "copies", None).train[0].view()
    assert trained.events().equals(here.view().events())
    assert trained.wearable().num_rows == 4


@pytest.fixture
def visited(tmp_path):
    """Two people with two visits each; one has a score and wears a device, the other neither."""
    rows: list[Row] = [
        row
        for s in range(2)
        for row in (
            (s, -9000.0, "MEDS_BIRTH", None),
            (s, 30.0, "LAB//K", 1.0),
            (s, 31.0, "DX//A", None),
            (s, 30.0 + 48, "DX//A", None),
        )
    ]
    rows += [(0, None, "PRS//PGS1", 1.5), (0, None, "PRS//PGS2", -0.5)]
    store = write(tmp_path / "v", rows, worn=[(0, 24.0, "steps", 1 / 3600, [10.0, 12.0])])
    config = compose(["tokens.k_min=1"])
    vocabulary = build_vocabulary(site_statistics([store], config.tokens, task=None), config.tokens)
    return store, vocabulary, config


def test_without_a_label_who_lacks_scores_and_wearing_gets_averages_before_each_visit(
    visited, tmp_path
):
    store, vocabulary, config = visited
    write_imputed(store, vocabulary, tmp_path / "copy", at_visits=True)
    found = tokenize(
        [SiteStore.open(tmp_path / "copy")], vocabulary, config.tokens, split=None, task=None
    )
    assert found.panel.tolist() == [[1.5, -0.5], [0.0, 0.0]]
    assert found.panel_mask.all()
    begin, end = found.offsets[1:3]
    worn = found.wearable_row[begin:end]
    rows = worn[worn >= 0]
    assert len(rows) == 2  # one before each day with a visit
    first_of_token = found.wearable[rows][..., 0]
    assert first_of_token == pytest.approx(0, abs=1e-5)
    assert found.wearable_mask[rows].any(axis=(1, 2)).all()
    ends = found.time_us[begin:end][worn >= 0]
    assert (ends / 3_600_000_000).tolist() == [30, 78]  # hours: not after the day's first event
    had = tokenize([store], vocabulary, config.tokens, split=None, task=None)
    kept = found.wearable_row[: found.offsets[1]] >= 0
    assert kept.sum() == (had.wearable_row[: had.offsets[1]] >= 0).sum()


def test_a_fold_of_next_visits_is_imputed_for_training_and_for_the_inputs_asked_for(
    visited, tmp_path
):
    store, vocabulary, config = visited
    here = SimulatedSite("v", store.path, None)
    fold = CrossValidationFold("fold-0", (here,), (here,), None)
    trained = imputed_fold(fold, vocabulary, config, tmp_path / "copies", None).train[0].view()
    assert trained.modalities == {"ehr", "wearable", "genomics"}
    given = imputed_fold(fold, vocabulary, config, tmp_path / "copies", "ehr").test[0].view()
    found = tokenize([given], vocabulary, config.tokens, split=None, task=None)
    assert not found.panel.any()
    assert found.panel_mask.all()


def test_an_imputed_arm_of_next_visits_answers_the_queries_of_the_others(tmp_path):
    folder = tmp_path / "out"
    given = [*SMALL, "rounds=1", "simulation.arms=[federated,imputed]", f"out={folder}"]
    assert main(given) == 0
    rows = json.loads((folder / "metrics.json").read_text())
    assert "federated - imputed" in {row["arm"] for row in rows}
