"""Partitions: sizes, missing modalities, label shift, dialects, and a real store dealt to sites."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthfm_core.config import CohortConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_simulations.cohort import generate, write_sites
from healthfm_simulations.partition import (
    assign_sites,
    crossed_absence,
    draw_local_names,
    rate_offsets,
    rename_codes,
    shared_rate_offsets,
    shifted_assignment,
    site_sizes,
    split_store,
)
from healthfm_simulations.partition.label_shift import MOST_OFFSET

seeds = st.integers(0, 2**32 - 1)


@given(st.integers(1, 12), st.integers(0, 300), st.floats(0.05, 50), seeds)
def test_sizes_add_up_and_no_site_is_smaller_than_the_least(sites, extra, alpha, seed):
    total = 3 * sites + extra
    found = site_sizes(total, sites, alpha, np.random.default_rng(seed), at_least=3)
    assert found.sum() == total
    assert found.min() >= 3
    people = assign_sites(found, np.random.default_rng(seed))
    assert np.bincount(people, minlength=sites).tolist() == found.tolist()


def test_too_few_people_for_the_sites_is_refused():
    with pytest.raises(ConfigError, match="HF-103"):
        site_sizes(5, 3, 1.0, np.random.default_rng(0), at_least=2)


@given(st.integers(1, 30), st.floats(0, 1), st.floats(0, 1), seeds)
def test_as_many_sites_lack_a_modality_as_asked(sites, a, b, seed):
    without_a, without_b = crossed_absence(sites, a, b, np.random.default_rng(seed))
    assert without_a.sum() == round(a * sites)
    assert without_b.sum() == round(b * sites)


@given(st.integers(4, 40), seeds)
def test_at_a_half_each_all_four_combinations_occur_from_four_sites_on(sites, seed):
    a, b = crossed_absence(sites, 0.5, 0.5, np.random.default_rng(seed))
    assert {(bool(x), bool(y)) for x, y in zip(a, b, strict=True)} == {
        (x, y) for x in (False, True) for y in (False, True)
    }


def test_rate_offsets_cancel_over_the_sites():
    found = rate_offsets(5, 3, 0.5, np.random.default_rng(0))
    assert found.sum(axis=0) == pytest.approx(np.zeros(3))
    assert (rate_offsets(5, 3, 0.0, np.random.default_rng(0)) == 0).all()


@given(st.integers(1, 12), st.sampled_from([0.05, 0.5, 5.0]), seeds)
def test_shared_rates_stay_within_their_bounds(sites, alpha, seed):
    found = shared_rate_offsets(sites, 6, alpha, np.random.default_rng(seed))
    assert found.shape == (sites, 6)
    assert np.abs(found).max() <= MOST_OFFSET
    assert (found.max(axis=0) > -1e-9).all()


def test_shared_rates_have_the_common_rate_as_their_mean_where_nothing_is_cut():
    found = shared_rate_offsets(5, 200, 50.0, np.random.default_rng(0))
    assert np.exp(found).mean(axis=0) == pytest.approx(np.ones(200))


@pytest.mark.parametrize(("alpha", "low", "high"), [(0.1, 3.0, 5.0), (2.0, 1.5, 2.6)])
def test_a_small_alpha_leaves_a_condition_to_one_site(alpha, low, high):
    """The site with the largest share of five has up to five times the common rate."""
    found = shared_rate_offsets(5, 400, alpha, np.random.default_rng(0))
    assert low < np.exp(found).max(axis=0).mean() < high


def test_label_alpha_moves_the_onsets_to_the_sites_that_got_the_share():
    """Onsets counted in the records follow the offsets; nothing else of the process changes."""
    plain = CohortConfig(subjects=1200, sites=3, size_skew=1000.0, label_shift=0.0)
    even, skewed = (
        generate(plain.model_copy(update={"label_alpha": alpha}), 0) for alpha in (None, 0.2)
    )
    assert np.array_equal(even.process.intercept, skewed.process.intercept)
    assert (even.process.site_offset == 0).all()
    offset, onsets = skewed.process.site_offset, np.stack([_onsets(s) for s in skewed.sites])
    assert np.corrcoef(offset.ravel(), np.log(onsets + 1).ravel())[0, 1] > 0.8
    spread = [np.ptp(np.stack([_onsets(s) for s in c.sites]), axis=0).sum() for c in (even, skewed)]
    assert spread[1] > 3 * spread[0]


def _onsets(site):
    """New onsets of each condition after a first visit."""
    truth = site.truth
    new = (truth["repeats"].to_numpy() == 0) & np.asarray(truth["outcome"])
    _, condition = np.unique(np.asarray(truth["code"].cast(pa.string())), return_inverse=True)
    return np.bincount(condition[new], minlength=24)


def test_a_small_alpha_keeps_the_groups_apart():
    group = np.repeat(np.arange(3), 300)
    apart = shifted_assignment(group, 3, 0.01, np.random.default_rng(0))
    mixed = shifted_assignment(group, 3, 1000.0, np.random.default_rng(0))

    def largest_share(site: np.ndarray) -> float:
        return float(np.mean([np.bincount(site[group == g]).max() / 300 for g in range(3)]))

    assert largest_share(apart) > 0.9
    assert largest_share(mixed) < 0.4


def test_a_dialect_renames_the_chosen_share_and_leaves_the_rest():
    names = draw_local_names(("A", "B", "C", "D"), 0.5, "north", np.random.default_rng(0))
    assert len(names) == 2
    table = pa.table({"subject_id": [1, 1], "code": ["A", "Z"]})
    spoken = rename_codes(table, {"A": "A//north"})
    assert spoken["code"].to_pylist() == ["A//north", "Z"]
    assert spoken["subject_id"].to_pylist() == [1, 1]
    assert rename_codes(table, {}) is table


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    config = CohortConfig(subjects=60, sites=1, without_wearable=0, without_genomics=0)
    (path,) = write_sites(generate(config, 0), tmp_path_factory.mktemp("one"))
    return path


def test_a_store_dealt_to_sites_keeps_everyone_once_and_in_their_split(store, tmp_path):
    whole = SiteStore.open(store)
    site = assign_sites(np.array([40, 20]), np.random.default_rng(0))
    paths = split_store(store, tmp_path, site, names=("a", "b"), modalities=(None, ("ehr",)))
    parts = [SiteStore.open(path) for path in paths]
    assert [part.name for part in parts] == ["a", "b"]
    assert [len(part.subjects()) for part in parts] == [40, 20]
    assert parts[0].modalities == whole.modalities
    assert parts[1].modalities == {"ehr"}
    for split in ("train", "tuning", "held_out"):
        together = np.sort(np.concatenate([part.subjects(split) for part in parts]))
        assert together.tolist() == whole.subjects(split).tolist()


def test_a_site_that_gets_nobody_is_not_written(store, tmp_path):
    site = np.zeros(60, np.int32)
    assert len(split_store(store, tmp_path, site, names=("a", "b"))) == 1


def test_a_person_without_a_site_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match="one site index per subject"):
        split_store(store, tmp_path, np.zeros(59, np.int32), names=("a",))
