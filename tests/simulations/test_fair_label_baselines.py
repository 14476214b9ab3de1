"""A label's baselines are fitted on the labels the network trains on, not those it is scored on."""

from __future__ import annotations

import numpy as np
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.federation.protocol import VERSION, Study, for_the_wire
from healthfm_core.training import SiteData
from healthfm_simulations.arms.arm_training import shared_vocabulary
from healthfm_simulations.arms.fair_label_baselines import (
    FoldSummaries,
    fitted_on,
    label_predictions,
)
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.scoring.model_scores import EVERYTHING
from healthfm_simulations.sites import prepare_sites
from tests.simulations.test_simulate_command import SMALL
from tests.tokens.small_store import write

LABEL = [
    *SMALL,
    "evaluation.task=return_within_30_days",
    "train.objectives.next_visit=0",
    "train.objectives.label=1",
]


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    return prepare_sites(compose(LABEL), tmp_path_factory.mktemp("labels") / "sites")


def trained_labels(config, fold):
    """Return (site, subject) of every label that the network trains on, sorted."""
    vocabulary = shared_vocabulary(config, fold)
    pairs = []
    for index, site in enumerate(fold.train):
        view = site.view()
        study = Study(
            VERSION, "t", for_the_wire(config), vocabulary, tuple(sorted(view.modalities))
        )
        train = SiteData.load([view], study).train
        pairs += [(index, int(train.subject_id[s])) for s in train.label_subject]
    return sorted(pairs)


@pytest.mark.parametrize("protocol", ["held_out", "leave_sites_out"])
def test_they_are_fitted_on_the_very_labels_that_the_network_trains_on(sites, protocol):
    config = compose([*LABEL, f"evaluation.protocol={protocol}", "evaluation.folds=2"])
    fold = cross_validation_folds(config, sites)[0]
    read = FoldSummaries.of(config, fold, EVERYTHING)
    found = zip(read.train.site.tolist(), read.train.subject.tolist(), strict=True)
    assert sorted(found) == trained_labels(config, fold)
    assert f"on the {len(read.train.outcome):,} labels of return" in fitted_on(
        config, fold, read.train
    )


def test_a_share_of_the_labels_is_the_same_share_for_network_and_baselines(sites):
    found = {}
    for share in (0.5, 0.2):
        config = compose([*LABEL, f"train.label_share={share}"])
        (fold,) = cross_validation_folds(config, sites)
        read = FoldSummaries.of(config, fold, EVERYTHING)
        pairs = zip(read.train.site.tolist(), read.train.subject.tolist(), strict=True)
        found[share] = sorted(pairs)
        assert found[share] == trained_labels(config, fold)
        test = len(FoldSummaries.of(compose(LABEL), fold, EVERYTHING).test.subject)
        assert len(read.test.subject) == test
    everyone = trained_labels(compose(LABEL), cross_validation_folds(compose(LABEL), sites)[0])
    assert 0 < len(found[0.2]) < len(found[0.5]) < len(everyone)
    assert set(found[0.2]) < set(found[0.5]) < set(everyone)


def test_all_of_them_answer_the_same_test_people_and_the_sites_are_read(sites):
    config = compose([*LABEL, "rounds=60"])  # a step of the sums each
    (fold,) = cross_validation_folds(config, sites)
    read = FoldSummaries.of(config, fold, EVERYTHING)
    assert (read.train.x[:, -len(sites) :].argmax(axis=1) == read.train.site).all()
    answers = label_predictions(config, fold, read, pooled_only=False)
    assert set(answers) == {
        "logistic_regression",
        "gradient_boosting",
        "federated_regression",
        "local_regression",
        "local_boosting",
    }
    for predictions in answers.values():
        assert np.array_equal(predictions.subject, read.test.subject)
        assert np.array_equal(predictions.outcome, read.test.outcome)
    pooled, summed = answers["logistic_regression"].score, answers["federated_regression"].score
    assert np.corrcoef(pooled, summed)[0, 1] > 0.95


def test_another_label_is_trained_on_than_is_scored(tmp_path):
    rows = [(s, 1.0, "LAB//K", float(s)) for s in range(12)]
    labels = {
        "death_all": [(s, 24.0, s % 2 == 0) for s in range(12)],
        "death": [(s, 24.0, s % 2 == 0) for s in range(4)],
    }
    stores = [write(tmp_path / name, rows, labels=labels).path for name in ("a", "b")]
    config = compose(
        [
            "data=stores",
            f"data.stores=[{stores[0]},{stores[1]}]",
            "evaluation.task=death",
            "train.label_task=death_all",
            "train.objectives.next_visit=0",
            "train.objectives.label=1",
            "tokens.k_min=1",
        ]
    )
    (fold,) = cross_validation_folds(config, prepare_sites(config, tmp_path / "sites"))
    read = FoldSummaries.of(config, fold, EVERYTHING)
    train = SiteStore.open(stores[0]).subjects("train")
    assert read.train.subject[read.train.site == 0].tolist() == train.tolist()
    assert set(read.test.subject) <= set(range(4))
