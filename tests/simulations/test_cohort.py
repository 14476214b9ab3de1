"""The simulated cohort: what it promises of people, sites, stores and the truth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from healthfm_core.config import CohortConfig
from healthfm_core.data.store.events import ids, times_us
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError, IngestError, StoreError
from healthfm_core.evaluation.metrics.ranking import auroc, average_precision
from healthfm_simulations.cohort import ceiling, generate, half_lives, scores_at, write_sites

SMALL = CohortConfig(subjects=400, sites=4)


@pytest.fixture(scope="module")
def cohort():
    return generate(SMALL, 0)


@pytest.fixture(scope="module")
def folder(cohort, tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort")
    write_sites(cohort, path)
    return path


def everybody(cohort, name: str) -> pa.Table:
    return pa.concat_tables([getattr(site, name) for site in cohort.sites]).combine_chunks()


def test_equal_seeds_give_equal_people_and_another_seed_others(cohort):
    again, other = generate(SMALL, 0), generate(SMALL, 1)
    for site, twin in zip(cohort.sites, again.sites, strict=True):
        assert site.events.equals(twin.events)
        assert site.wearable.equals(twin.wearable)
        assert site.truth.equals(twin.truth)
    assert not cohort.sites[0].events.equals(other.sites[0].events)


def test_all_four_combinations_of_modality_occur_at_four_sites(cohort):
    held = {site.modalities for site in cohort.sites}
    assert held == {
        frozenset({"ehr"}),
        frozenset({"ehr", "wearable"}),
        frozenset({"ehr", "genomics"}),
        frozenset({"ehr", "wearable", "genomics"}),
    }


def test_a_site_without_a_modality_has_no_rows_of_it(cohort):
    for site in cohort.sites:
        assert (site.wearable.num_rows > 0) == ("wearable" in site.modalities)
        assert (site.scores.num_rows > 0) == ("genomics" in site.modalities)


def test_the_default_cohort_has_the_size_its_description_says():
    found = generate(CohortConfig(), 0)
    truth, events = everybody(found, "truth"), everybody(found, "events")
    new = truth["repeats"].to_numpy() == 0
    visits = truth.num_rows / 24 / 2400 + 1
    hours = sum(len(v) / 16 for v in everybody(found, "wearable")["value"].to_pylist())
    assert 8 < visits < 12
    assert 60 < events.num_rows / 2400 < 120
    assert 0.02 < np.asarray(truth["outcome"])[new].mean() < 0.05
    assert hours / len(np.unique(ids(everybody(found, "wearable")))) <= 60


def test_the_stores_pass_the_full_check_and_hold_everyone(cohort, folder):
    total = 0
    for site in cohort.sites:
        store = SiteStore.open(folder / site.name)
        store.check()
        assert store.modalities == site.modalities
        assert store.name == site.name
        total += len(store.subjects())
    assert total == 400


def test_a_second_writing_is_refused(cohort, folder):
    with pytest.raises(IngestError, match="HF-304"):
        write_sites(cohort, folder)


def test_no_reader_sees_the_truth(cohort, folder):
    site = cohort.sites[0]
    assert not (folder / site.name / "truth").exists()
    assert half_lives(folder) == (700.0, 700.0, 20.0, 20.0)


def test_wearing_ends_before_the_visit_and_begins_after_the_last_one(cohort):
    site = next(site for site in cohort.sites if "wearable" in site.modalities)
    visits = site.events.filter(pa.compute.equal(site.events["code"], "VITAL//V00//units"))
    first = next(iter(np.unique(ids(site.wearable))))
    times = visits.filter(pa.compute.equal(visits["subject_id"], first))["time"].cast(pa.int64())
    rows = site.wearable.filter(pa.compute.equal(site.wearable["subject_id"], first))
    start = np.unique(rows["start"].cast(pa.int64()).to_numpy())
    length = np.unique([len(v) for v in rows["value"].to_pylist()]).max() * 900 * 10**6
    assert (start % (3600 * 10**6) == 0).all()
    at = np.searchsorted(times.to_numpy(), start)
    assert (start + length <= times.to_numpy()[at]).all()
    assert (start[at > 0] >= times.to_numpy()[at[at > 0] - 1]).all()


def test_every_oracle_knows_more_than_the_one_before(cohort):
    truth = everybody(cohort, "truth")
    new = truth["repeats"].to_numpy() == 0
    outcome = np.asarray(truth["outcome"])[new]
    scores = [truth[name].to_numpy()[new] for name in ("filtered", "present", "all")]
    for less, more in pairwise(scores):
        assert average_precision(less, outcome) < average_precision(more, outcome)
        assert auroc(less, outcome) < auroc(more, outcome)


@pytest.mark.parametrize(
    ("information", "within"), [("filtered", 0.25), ("present", 0.1), ("all", 0.1)]
)
def test_the_oracles_probabilities_are_calibrated(cohort, information, within):
    """The filter does not see that who is still free of a condition is likelier a low risk."""
    truth = everybody(cohort, "truth")
    score, outcome = truth[information].to_numpy(), np.asarray(truth["outcome"])
    assert score.mean() == pytest.approx(outcome.mean(), rel=within / 2)
    for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 1.0)):
        part = (score > low) & (score <= high)
        assert score[part].mean() == pytest.approx(outcome[part].mean(), rel=within)


def test_wearables_and_scores_raise_what_can_be_known_of_new_onsets():
    """The reason the modalities are there: filtered oracle with both against with neither."""
    found = {}
    for name, share in (("both", 0.0), ("neither", 1.0)):
        config = CohortConfig(subjects=600, sites=1, without_wearable=share, without_genomics=share)
        truth = everybody(generate(config, 0), "truth")
        new = truth["repeats"].to_numpy() == 0
        score, outcome = truth["filtered"].to_numpy()[new], np.asarray(truth["outcome"])[new]
        found[name] = average_precision(score, outcome)
    assert found["both"] > 1.5 * found["neither"]


def test_the_ceiling_gives_rows_of_held_out_people_and_known_conditions_alone(cohort, folder):
    sites = {site.name: SiteStore.open(folder / site.name) for site in cohort.sites}
    held_out = {name: store.subjects("held_out") for name, store in sites.items()}
    found = ceiling(folder, held_out, ("RX//D00", "DX//C03", "DX//C00"), latest=2)
    assert set(found.target.tolist()) == {1, 2}
    assert set(found.subject.tolist()) <= set(np.concatenate(list(held_out.values())).tolist())
    assert max(np.unique(found.subject, return_counts=True)[1]) <= 4


def test_scores_at_a_visit_are_those_of_the_truth_table(cohort, folder):
    site = cohort.sites[1]
    row = site.truth.slice(5, 1).to_pylist()[0]
    time = site.truth["time"].cast(pa.int64())[5].as_py()
    asked = np.array([row["subject_id"]]), np.array([time])
    found = scores_at(folder, site.name, *asked, ("RX//D00", row["code"]), information="all")
    assert np.isnan(found[0, 0])
    assert found[0, 1] == pytest.approx(row["all"])
    with pytest.raises(StoreError, match="HF-210"):
        scores_at(folder, site.name, asked[0], asked[1] + 1, ("DX//C00",))


def test_without_truth_the_ceiling_says_so(tmp_path):
    with pytest.raises(StoreError, match="HF-208"):
        half_lives(tmp_path)


def test_a_dialect_renames_codes_at_a_site_and_names_their_parents():
    found = generate(SMALL.model_copy(update={"code_dialect": 0.5}), 0)
    site = found.sites[0]
    assert len(site.local_names) == round(0.5 * (24 + 16 + 9))
    code, local = next(iter(site.local_names.items()))
    seen = set(site.events["code"].unique().to_pylist())
    assert code not in seen
    rows = {row["code"]: row["parent_codes"] for row in site.codes.to_pylist()}
    assert rows[local] == [code]


def test_more_sites_than_people_is_refused():
    with pytest.raises(ConfigError, match="HF-103"):
        generate(CohortConfig(subjects=20, sites=30), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"prs": 0},
        {"wearable_hours": 0},
        {"worn_hours": 0},
        {"drugs": 0, "labs": 0},
        {"latents_fast": 5, "latents_slow": 4},
        {"conditions": 2, "prs": 6},
        {"sites": 1},
    ],
)
def test_unusual_cohorts_are_written_too(tmp_path, changes):
    config = CohortConfig(**{"subjects": 60, "sites": 3, **changes})
    for path in write_sites(generate(config, 3), tmp_path):
        SiteStore.open(path).check()


def test_a_return_is_labelled_by_what_comes_after_the_time_it_is_asked(cohort):
    checked, soon = 0, 0
    for site in cohort.sites:
        events = site.events.filter(pc.is_valid(site.events["time"]))
        events = events.filter(pc.not_equal(events["code"], "MEDS_BIRTH"))
        owner, at = ids(events), times_us(events)
        assert len(np.unique(ids(site.returns))) == site.returns.num_rows
        asked = zip(
            ids(site.returns).tolist(),
            times_us(site.returns, "prediction_time").tolist(),
            site.returns["boolean_value"].to_pylist(),
            strict=True,
        )
        for subject, time_us, outcome in asked:
            visits = np.unique(at[owner == subject])
            assert time_us in visits[:-1]
            gap_days = (visits[visits > time_us][0] - time_us) / 86_400_000_000
            assert outcome == (gap_days <= 30)
            checked, soon = checked + 1, soon + outcome
    assert checked > 300
    assert 0.1 < soon / checked < 0.9
