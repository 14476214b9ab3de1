"""The arm that puts zeros where a site has nothing."""

from __future__ import annotations

import pytest

from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_core.tokens.statistics import site_statistics
from healthfm_core.tokens.tokenizer import tokenize
from healthfm_core.tokens.vocabulary import build_vocabulary
from healthfm_simulations.arms.zero_imputation import imputed_fold, write_imputed
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.sites import SimulatedSite
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


def test_a_study_without_a_label_is_refused(site, tmp_path):
    here, vocabulary = site
    fold = CrossValidationFold("fold-0", (here,), (here,), None)
    with pytest.raises(ConfigError, match="HF-103"):
        imputed_fold(fold, vocabulary, compose([]), tmp_path / "copies", None)
