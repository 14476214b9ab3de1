"""A partition is one file: a new one changes the sites, and the report shows it."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest

from healthfm_core.config import CohortConfig
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.evaluation.report.report_context import ReportContext
from healthfm_core.evaluation.report.sections.site_gains import site_lines
from healthfm_simulations import partition
from healthfm_simulations.cohort import Cohort, generate, write_sites
from healthfm_simulations.cross_validation import CrossValidationFold
from healthfm_simulations.partition.partition_registry import partitions, plan_sites
from healthfm_simulations.scoring.arm_metrics import site_summaries
from healthfm_simulations.sites import SimulatedSite

CONFIG = CohortConfig(subjects=200, sites=4, without_wearable=0.0)
TOY = '''
"""The last site has no wearables, and no site has a record of laboratory readings."""
from dataclasses import replace
import pyarrow.compute as pc
from healthfm_simulations.partition.site_plan import Partition

def _plan(plan, config, rng):
    lacks = plan.without_wearable.copy()
    lacks[-1] = True
    return replace(plan, without_wearable=lacks)

def _records(site, config, rng):
    labs = pc.starts_with(site.events["code"], "LAB//")
    return replace(site, events=site.events.filter(pc.invert(labs)))

PARTITION = Partition("toy", plan=_plan, records=_records)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy partition, as a file among the package's others."""
    (tmp_path / "toy_partition.py").write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(partition, "__path__", [*partition.__path__, str(tmp_path)])
    partitions.cache_clear()
    yield
    partitions.cache_clear()
    sys.modules.pop("healthfm_simulations.partition.toy_partition", None)


def _fingerprint(cohort: Cohort) -> str:
    text = "".join(repr(site.events.to_pydict()) for site in cohort.sites)
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_cohort_s_six_partitions_are_found_by_their_files():
    found = [one.name for one in partitions()]
    assert sorted(found) == ["dialect", "gaps", "habits", "labels", "modalities", "sizes"]


@pytest.mark.usefixtures("toy")
def test_a_new_file_is_all_that_a_new_partition_needs():
    cohort = generate(CONFIG, 0)
    assert ["wearable" in site.modalities for site in cohort.sites] == [True, True, True, False]
    codes = {code for site in cohort.sites for code in site.events["code"].to_pylist()}
    assert not any(code.startswith("LAB//") for code in codes)


@pytest.mark.usefixtures("toy")
def test_the_report_s_table_of_sites_shows_what_the_new_partition_did(tmp_path):
    paths = write_sites(generate(CONFIG, 0), tmp_path / "sites")
    sites = tuple(SimulatedSite(SiteStore.open(path).name, path, None) for path in paths)
    summaries = site_summaries(sites, [CrossValidationFold("fold-0", sites, sites, "held_out")])
    lines = site_lines(ReportContext(task="next_visit", sites=summaries))
    assert [line.held[1] for line in lines] == [True, True, True, False]


def test_a_new_partition_leaves_the_random_numbers_of_the_others_alone(request):
    before = plan_sites(CONFIG, 0)
    request.getfixturevalue("toy")
    after = plan_sites(CONFIG, 0)
    assert after.without_wearable.tolist() != before.without_wearable.tolist()
    assert after.sizes.tolist() == before.sizes.tolist()
    assert np.array_equal(after.log_rate_offset, before.log_rate_offset)


def test_equal_seeds_give_equal_people():
    assert _fingerprint(generate(CONFIG, 5)) == _fingerprint(generate(CONFIG, 5))
    assert _fingerprint(generate(CONFIG, 5)) != _fingerprint(generate(CONFIG, 6))
