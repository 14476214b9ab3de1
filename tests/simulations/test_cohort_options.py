"""What the cohort's options change, and that they leave everything else alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from healthfm_core.config import CohortConfig
from healthfm_core.config.compose import compose
from healthfm_core.data.store.events import ids
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import ConfigError
from healthfm_simulations.cohort import generate, write_sites
from healthfm_simulations.cross_validation import cross_validation_folds
from healthfm_simulations.sites import SimulatedSite

PLAIN = CohortConfig(subjects=900, sites=3, size_skew=1000.0, without_genomics=0.0, years=4)


def cohort(**changes: object):
    return generate(PLAIN.model_copy(update=changes), 0)


def events_of(found) -> pa.Table:
    return pa.concat_tables([site.events for site in found.sites]).combine_chunks()


def gaps_days(site) -> np.ndarray:
    visits = site.events.filter(pc.equal(site.events["code"], "VITAL//V00//units"))
    time, who = visits["time"].cast(pa.int64()).to_numpy(), ids(visits)
    return (np.diff(time) / 86_400e6)[np.diff(who) == 0]


@pytest.mark.parametrize(
    "changes",
    [
        {"gap_scale": 7.0},
        {"gap_sites": ("site-01",)},
        {"ancestry_shift": 5.0, "prs_portability": 0.0, "prs_normalised": "site"},
    ],
)
def test_an_option_that_is_not_switched_on_moves_nothing(changes):
    one, other = cohort(), cohort(**changes)
    assert events_of(one).equals(events_of(other))
    assert all(a.truth.equals(b.truth) for a, b in zip(one.sites, other.sites, strict=True))


def test_so_many_people_are_held_out_as_was_asked(tmp_path):
    """They are the same people otherwise, and nobody is held out whom a larger share spares."""
    found = {}
    for share in (0.15, 0.4):
        stores = write_sites(cohort(held_out=share), tmp_path / str(share))
        found[share] = [SiteStore.open(store).subjects("held_out") for store in stores]
    count = {share: sum(map(len, people)) for share, people in found.items()}
    assert abs(count[0.15] / 900 - 0.15) < 0.04
    assert abs(count[0.4] / 900 - 0.4) < 0.05
    for few, many in zip(found[0.15], found[0.4], strict=True):
        assert set(few) < set(many)


def test_people_of_a_gap_site_come_more_rarely_and_the_others_as_before():
    found = cohort(gap_scale=4.0, gap_sites=("site-01",), years=12)
    usual, rare, also = (gaps_days(site) for site in found.sites)
    assert 3 < np.median(rare) / np.median(usual) < 5
    assert 0.8 < np.median(also) / np.median(usual) < 1.25
    assert rare.min() >= 4 * 3.0 - 1e-3


def test_the_latents_of_a_gap_site_obey_the_same_law():
    """The oracle, which knows the half-lives, is as well calibrated there as elsewhere."""
    found = cohort(gap_scale=4.0, gap_sites=("site-01",), years=12, subjects=1500)
    truth = found.sites[1].truth
    outcome, score = np.asarray(truth["outcome"]), truth["present"].to_numpy()
    assert score.mean() == pytest.approx(outcome.mean(), rel=0.1)


def test_a_gap_site_that_is_not_is_refused():
    with pytest.raises(ConfigError, match=r"HF-102.*site-00 to site-02"):
        cohort(gap_sites=("site-9",))


def test_named_sites_are_the_ones_held_out(tmp_path):
    given = ["evaluation.protocol=held_out_sites", "evaluation.test_sites=[s2,s0]"]
    sites = [SimulatedSite(f"s{i}", tmp_path, None) for i in range(4)]
    (fold,) = cross_validation_folds(compose(given), sites)
    assert [site.name for site in fold.test] == ["s0", "s2"]
    assert [site.name for site in fold.train] == ["s1", "s3"]
    assert fold.tests_newcomers


def test_test_sites_that_are_not_or_go_with_another_protocol_are_refused(tmp_path):
    sites = [SimulatedSite(f"s{i}", tmp_path, None) for i in range(4)]
    given = ["evaluation.protocol=held_out_sites", "evaluation.test_sites=[s7]"]
    with pytest.raises(ConfigError, match=r"HF-102.*s7"):
        cross_validation_folds(compose(given), sites)
    with pytest.raises(ConfigError, match="HF-103"):
        compose(["evaluation.test_sites=[s0]"])
    everyone = ["evaluation.protocol=held_out_sites", "evaluation.test_sites=[s0,s1,s2,s3]"]
    with pytest.raises(ConfigError, match="HF-103"):
        cross_validation_folds(compose(everyone), sites)


def group_of_subjects(found) -> tuple[np.ndarray, np.ndarray]:
    events = events_of(found)
    named = events.filter(pc.starts_with(events["code"], "ANCESTRY//"))
    assert named["time"].null_count == len(named)
    group = pc.utf8_slice_codeunits(named["code"], 10).to_pylist()
    return ids(named), np.array([int(name[1:]) for name in group])


def test_everybody_has_one_group_and_the_first_has_its_share(tmp_path):
    found = cohort(ancestries=3, ancestry_first=0.6)
    subject, group = group_of_subjects(found)
    assert len(np.unique(subject)) == len(subject) == 900
    share = np.bincount(group, minlength=3) / 900
    assert share == pytest.approx([0.6, 0.2, 0.2], abs=0.06)
    for path in write_sites(found, tmp_path):
        SiteStore.open(path).check()


def score_of_cases(found, inside: bool) -> float:
    """Mean score of who gets a condition it is planted for, after a first visit."""
    names = {
        f"DX//C{c:02d}": f"PGS{900_000 + s}" for c, s in enumerate(found.process.score) if s >= 0
    }
    subject, group = group_of_subjects(found)
    chosen = set(subject[(group == 0) == inside].tolist())
    z, values = {}, []
    for site in found.sites:
        columns = (site.scores[name].to_pylist() for name in ("subject_id", "score", "z"))
        z |= {(who, name): value for who, name, value in zip(*columns, strict=True)}
        hit = site.truth.filter(pc.and_(site.truth["outcome"], pc.equal(site.truth["repeats"], 0)))
        pairs = zip(hit["subject_id"].to_pylist(), hit["code"].to_pylist(), strict=True)
        keys = [(who, names.get(code)) for who, code in pairs if who in chosen]
        values += [z[key] for key in keys if key in z]
    return float(np.mean(values))


def test_a_score_says_less_outside_the_first_group():
    """New cases lie half an SD above the mean in the first group, where scores say nothing at 0."""
    found = cohort(ancestries=2, ancestry_first=0.5, prs_portability=0.0, subjects=2000)
    assert score_of_cases(found, inside=True) > 0.4
    assert abs(score_of_cases(found, inside=False)) < 0.2


@pytest.mark.parametrize(("normalised", "apart"), [("ancestry", False), ("site", True)])
def test_only_scores_normalised_over_a_site_still_tell_the_groups_apart(normalised, apart):
    found = cohort(ancestries=2, ancestry_first=0.5, ancestry_shift=2.0, prs_normalised=normalised)
    subject, group = group_of_subjects(found)
    of = dict(zip(subject.tolist(), group.tolist(), strict=True))
    differences = []
    for site in found.sites:
        z, name = site.scores["z"].to_numpy(), np.asarray(site.scores["score"])
        inside = np.array([of[s] == 0 for s in site.scores["subject_id"].to_pylist()])
        for one in np.unique(name):
            here = z[name == one]
            differences.append(here[inside[name == one]].mean() - here[~inside[name == one]].mean())
            if apart:
                assert here.mean() == pytest.approx(0.0, abs=1e-9)
                assert here.std() == pytest.approx(1.0)
    assert (np.abs(differences).max() > 0.8) == apart


def test_the_oracle_stays_calibrated_where_scores_say_less():
    found = cohort(ancestries=2, ancestry_first=0.5, prs_portability=0.3, without_genomics=1.0)
    truth = pa.concat_tables([site.truth for site in found.sites])
    outcome = np.asarray(truth["outcome"])
    for information, within in (("filtered", 0.15), ("present", 0.05)):
        assert truth[information].to_numpy().mean() == pytest.approx(outcome.mean(), rel=within)
