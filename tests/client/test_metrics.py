"""What a site's own monitoring reads of it: its state and what has left, nothing about people."""

from __future__ import annotations

import os

import pytest
from prometheus_client.parser import text_string_to_metric_families

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.__main__ import main
from healthfm_client.site.site_home import SiteHome
from healthfm_core.trust.certificates import now_utc
from tests import enrolled


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Three sites after a run: their folders."""
    folder = tmp_path_factory.mktemp("metrics")
    study, sites = enrolled.three(folder)
    enrolled.run(enrolled.Wire(sites), study, folder / "run")
    return [SiteHome(site.home) for site in sites]


def parsed(text):
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    found = {(s.name, *s.labels.values()): s.value for s in samples}
    assert len(found) == len(samples), "no series is there twice"
    return found


def figures(home, capsys, *words):
    capsys.readouterr()
    assert main(["metrics", "--site", str(home.path), *words]) == 0
    return parsed(capsys.readouterr().out)


def test_what_has_left_is_what_the_egress_log_says(homes, capsys):
    found = figures(homes[0], capsys)
    lines = [entry for entry in homes[0].log().entries() if "bytes" in entry]
    kinds = {entry["what"] for entry in lines}
    assert "train" in kinds
    for kind in kinds:
        own = [entry["bytes"] for entry in lines if entry["what"] == kind]
        assert found["healthfm_site_egress_bytes", kind] == sum(own) > 0
        assert found["healthfm_site_egress_messages", kind] == len(own)
    assert found[("healthfm_site_last_egress_timestamp_seconds",)] <= now_utc().timestamp()
    assert ("healthfm_site_epsilon_spent",) not in found, "there is no ledger"


def test_how_it_stands_and_what_it_has_refused(homes, capsys):
    home = homes[1]
    home.log().append("train", {"refused": "HF-501"})
    home.set_state("paused")
    found = figures(home, capsys)
    home.set_state("open")
    states = [found["healthfm_site_state", state] for state in ("open", "paused", "left")]
    assert states == [0, 1, 0]
    assert found["healthfm_site_refusals", "train"] == 1
    assert found[("healthfm_site_processes_up",)] == 0
    assert found[("healthfm_site_approvals_waiting",)] == 0
    ends = home.kit().certificate.not_valid_after_utc.timestamp()
    assert found[("healthfm_site_certificate_end_timestamp_seconds",)] == ends


def test_the_privacy_budget_is_told_where_there_is_one(homes, capsys):
    home = homes[2]
    before = home.policy.read_text()
    home.policy.write_text("privacy: {epsilon: 4.0, epsilon_max: 8.0, ledger: ledger.jsonl}\n")
    found = figures(home, capsys)
    home.policy.write_text(before)
    assert found[("healthfm_site_epsilon_spent",)] == 0
    assert found[("healthfm_site_epsilon_limit",)] == 8


def test_the_file_is_another_accounts_to_read_whatever_the_umask(homes, capsys, tmp_path):
    mask = os.umask(0o077)
    try:
        found = figures(homes[0], capsys, "--file", str(tmp_path / "healthfm.prom"))
    finally:
        os.umask(mask)
    assert found == {}
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o644
    assert ("healthfm_site_info", "a", "heart") in parsed(file.read_text())


def test_a_folder_without_a_site_is_said(capsys, tmp_path):
    assert main(["metrics", "--site", str(tmp_path)]) != 0
    assert "HF-830" in capsys.readouterr().err
