"""Baselines see what the network sees: its rows, its modalities, its people and no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from healthfm_core.config.compose import compose
from healthfm_core.modalities.registry import modality_names
from healthfm_core.seeding import numpy_generator
from healthfm_core.training import SiteData, loader_for
from healthfm_simulations.arms.arm_training import shared_vocabulary
from healthfm_simulations.arms.fair_baselines import FoldFeatures, fair_baselines
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.sites import prepare_sites
from tests.simulations.test_simulate_command import SMALL

LONG_RECORDS_CUT = ["tokens.max_len=40", "tokens.max_wearable_tokens=8"]


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    config = compose([*SMALL, *LONG_RECORDS_CUT])
    sites = prepare_sites(config, tmp_path_factory.mktemp("fair") / "sites")
    (fold,) = cross_validation_folds(config, sites)
    vocabulary = shared_vocabulary(config, fold)
    return config, sites, fold, vocabulary, FoldFeatures.of(config, fold, vocabulary)


def asked_in_an_epoch(site, study, split):
    """Return the (subject, time) of every query of a training pass of the network."""
    data = getattr(SiteData.load([site.view()], study), split)
    batches = loader_for(data, study).epoch(
        numpy_generator(0, "epoch"), batch_size=8, query="sep", dropout={"ehr": 0.3}
    )
    return {
        (int(data.subject_id[subject]), int(time))
        for batch in batches
        for subject, times, is_query in zip(
            batch.subject, batch.query_time_us, batch.query_mask, strict=True
        )
        for time in times[is_query]
    }


@pytest.mark.parametrize("split", ["train", "tuning"])
def test_they_are_fitted_on_the_very_queries_that_the_network_trains_on(read, split):
    _, _, fold, _, fitted = read
    rows = getattr(fitted, split)
    for index, site in enumerate(fold.train):
        own = rows.site == index
        pairs = zip(rows.subject_id[own].tolist(), rows.time_us[own].tolist(), strict=True)
        assert sorted(pairs) == sorted(asked_in_an_epoch(site, fitted.study, split))


def test_every_modality_of_the_network_is_read_and_at_each_site_only_what_it_may_use(read):
    _, _, fold, _, fitted = read
    assert set(fitted.study.modalities) == set(modality_names())
    x, blocks = fitted.train.features.x, fitted.train.features.blocks
    for index, site in enumerate(fold.train):
        own = x[fitted.train.site == index]
        seen = {name for name in modality_names() if own[:, blocks[name]].any()}
        assert seen == site.view().modalities
        assert (own[:, blocks["site"]] == np.eye(len(fold.train))[index]).all()


def test_a_site_that_may_not_use_a_modality_gives_the_baselines_nothing_of_it(read):
    config, _, fold, vocabulary, _ = read
    barred = replace(fold, train=tuple(replace(s, modalities=("ehr",)) for s in fold.train))
    fitted = FoldFeatures.of(config, barred, vocabulary)
    x, blocks = fitted.train.features.x, fitted.train.features.blocks
    assert not x[:, blocks["wearable"]].any()
    assert not x[:, blocks["genomics"]].any()


def test_all_of_them_answer_the_rows_of_an_arm_and_learn_from_them(read):
    config, sites, fold, vocabulary, fitted = read
    scored = fitted.every_query(fold, sites)
    answers = fair_baselines(config, fold, sites, vocabulary, scored)
    assert set(answers) == {
        "logistic_regression",
        "gradient_boosting",
        "federated_regression",
        "local_regression",
        "local_boosting",
    }
    for predictions in answers.values():
        assert np.array_equal(predictions.subject, scored.predictions.subject)
        assert np.array_equal(predictions.outcome, scored.predictions.outcome)
        hit = predictions.score[predictions.outcome].mean()
        assert hit > 1.1 * predictions.score[~predictions.outcome].mean()


def test_the_test_rows_are_those_of_the_arm_in_its_order(read):
    _, sites, fold, _, fitted = read
    scored = fitted.every_query(fold, sites)
    found = fitted.test(fold, sites, scored)
    assert found.subject_id.tolist() == scored.subject_id.tolist()
    assert found.time_us.tolist() == scored.time_us.tolist()
    n_judged = int(found.judged.sum())
    outcome = scored.predictions.outcome.reshape(-1, n_judged)
    assert np.array_equal(found.queries.outcome[:, found.judged], outcome)


def test_a_site_that_took_no_part_has_no_column_of_its_own(read):
    _, sites, fold, vocabulary, _ = read
    newcomers = replace(fold, train=fold.train[:2], test=fold.test[2:], split=None)
    found = FoldFeatures.of(read[0], newcomers, vocabulary)
    scored = found.every_query(newcomers, sites)
    test = found.test(newcomers, sites, scored)
    assert not test.features.x[:, test.features.blocks["site"]].any()
    assert set(fair_baselines(read[0], newcomers, sites, vocabulary, scored)) == {
        "logistic_regression",
        "gradient_boosting",
        "federated_regression",
    }
