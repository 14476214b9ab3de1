"""A number in site.yaml is a promise: no study gets past it, and what it means is said."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import tests.quiet_flower  # noqa: F401  (before anything else imports Flower)
from healthfm_client.consent.noise_sentences import noise_sentence
from healthfm_client.privacy_accounting.ledger_report import LedgerReport, report_page
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.site.site_home import SiteHome
from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config import PrivacyConfig
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import ConfigError, PolicyError, ProtocolError
from healthfm_core.federation.contracting import terms_before
from healthfm_core.privacy.ledger import Ledger
from healthfm_core.trust.certificates import now_utc
from healthfm_core.trust.contract import Contract
from healthfm_simulations.engine import NodeSpec, run_federation
from tests import enrolled
from tests import three_numbers as small

PROMISE: dict[str, Any] = {"epsilon": 3.0, "delta": 1e-5, "ledger": "ledger.jsonl"}


def contract(**privacy: Any) -> Contract:
    config = RunConfig(privacy=PrivacyConfig(**privacy))
    terms = terms_before("0" * 16, config)
    return Contract("heart", terms, now_utc(), now_utc() + timedelta(days=1))


@pytest.mark.parametrize(
    "rules", [{"epsilon": 3.0, "ledger": "l"}, {"epsilon_max": 20.0, "ledger": "l"}]
)
def test_a_study_without_noise_does_not_pass_a_site_that_set_an_epsilon(
    rules: dict[str, Any],
) -> None:
    policy = SitePolicy(privacy=SitePrivacy(**rules))
    with pytest.raises(PolicyError, match=r"HF-501.*without noise"):
        policy.check_terms(contract(mode="off").terms)
    policy.check_terms(contract(mode="dp", epsilon=1.0).terms)
    noised_here = SitePolicy(privacy=SitePrivacy(mode="dp", epsilon=3.0, ledger="l"))
    noised_here.check_terms(contract(mode="off").terms)


def test_nor_in_a_simulation_which_has_no_contract(tmp_path: Path) -> None:
    a, b, c = small.three_sites(tmp_path)
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"privacy": {"epsilon_max": 20.0, "ledger": "a.jsonl"}}))
    nodes = [NodeSpec(a.name, a.stores, file), b, c]
    result = run_federation(small.config(quorum=0.5), nodes, tmp_path / "run", apps=small.apps())
    assert all("a" not in row["asked"] for row in result.history)
    assert "HF-501" in (tmp_path / "run" / "events.log").read_text()


@pytest.mark.parametrize(
    ("privacy", "said"),
    [
        ({"mode": "off"}, "without noise"),
        ({"mode": "dp", "epsilon": 1000.0}, "ε 1000"),
        ({"mode": "dp", "epsilon": 3.1}, "ε 3.1"),
        ({"mode": "dp", "epsilon": 1.0, "delta": 1e-3}, "δ 0.001"),
        ({"mode": "dp", "noise_multiplier": 1.0, "delta": 1e-3}, "δ 0.001"),
    ],
)
def test_a_floor_of_noise_is_not_met_by_a_large_epsilon_or_delta(
    privacy: dict[str, Any], said: str
) -> None:
    policy = SitePolicy(privacy_floor=("differential_privacy",), privacy=SitePrivacy(**PROMISE))
    with pytest.raises(PolicyError, match=f"privacy_floor.*{said}"):
        policy.check_terms(contract(**privacy).terms)
    policy.check_terms(contract(mode="dp", epsilon=3.0).terms)


def test_nor_by_next_to_no_noise(tmp_path: Path) -> None:
    """σ = 10⁻⁶ says nothing of ε: it is counted from the site's people, before the first round."""
    study, sites = enrolled.three(tmp_path, privacy_floor=["differential_privacy"], privacy=PROMISE)
    privacy = PrivacyConfig(mode="dp", noise_multiplier=1e-6)
    work = small.ClientWork()
    with pytest.raises(ProtocolError, match=r"HF-403.*HF-601"):
        private_run(tmp_path, study, sites, privacy, work)
    assert work.private == []


@pytest.mark.parametrize("lacking", ["epsilon", "delta"])
def test_a_floor_of_noise_says_how_much(lacking: str, tmp_path: Path) -> None:
    rules = {name: value for name, value in PROMISE.items() if name != lacking}
    with pytest.raises(ValidationError, match=r"needs privacy.epsilon and privacy.delta"):
        SitePolicy(privacy_floor=("differential_privacy",), privacy=SitePrivacy(**rules))


def test_an_epsilon_that_nothing_keeps_count_of_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"privacy.epsilon needs privacy.ledger"):
        SitePrivacy(epsilon=3.0)


@pytest.mark.parametrize(
    ("privacy", "rules", "said"),
    [
        ({"mode": "dp", "epsilon": 1.0}, {}, "ε 1 (δ 1e-05) for the whole run"),
        ({"mode": "dp", "epsilon": 1.0}, {}, "73.11 % sure"),
        ({"mode": "dp", "epsilon": 8.0}, PROMISE, "ε 3 (δ 1e-05)"),
        ({"mode": "dp", "epsilon": 1000.0}, {}, "no protection to rely on"),
        ({"mode": "dp", "noise_multiplier": 1e-6}, {}, "noise that hides nobody too"),
        ({"mode": "dp", "noise_multiplier": 1.0}, PROMISE, "more than ε 3 is refused"),
        ({"mode": "off"}, {**PROMISE, "mode": "dp"}, "as site.yaml wants. It promises ε 3"),
        ({"mode": "off"}, {}, "No noise is added"),
    ],
)
def test_who_approves_a_run_reads_its_epsilon_and_what_it_means(
    privacy: dict[str, Any], rules: dict[str, Any], said: str
) -> None:
    words = noise_sentence(contract(**privacy).terms, SitePrivacy(**rules))
    assert said in words
    assert "bounds" not in words


def private_run(
    tmp_path: Path,
    study: Path,
    sites: list[enrolled.Enrolled],
    privacy: PrivacyConfig,
    work: small.ClientWork,
    name: str = "run",
) -> Any:
    """Run a study that asks for noise, over enrolled sites."""
    grid = enrolled.Wire(sites, work)
    return enrolled.run(grid, study, tmp_path / name, privacy=privacy)


def test_runs_of_one_study_share_its_epsilon_whatever_they_are_called(tmp_path: Path) -> None:
    """`three_numbers` takes ε 0.53 for a run of three rounds at noise 4; two take 0.71."""
    study, sites = enrolled.three(tmp_path, privacy={**PROMISE, "epsilon": 0.6})
    privacy, work = PrivacyConfig(mode="dp", noise_multiplier=4.0), small.ClientWork()
    private_run(tmp_path, study, sites, privacy, work, "first")
    trained = len(work.private)
    assert trained == 9
    with pytest.raises(ProtocolError, match=r"HF-403.*HF-601.*all runs of this study"):
        private_run(tmp_path, study, sites, privacy, work, "second")
    assert len(work.private) == trained
    entries = Ledger(SiteHome(sites[0].home).path / "ledger.jsonl").entries()
    assert len({entry.signed_study for entry in entries}) == 1
    assert entries[0].signed_study.startswith("heart ")


def test_tuning_metrics_beside_noise_are_the_sites_to_permit() -> None:
    asked = PrivacyConfig(mode="dp", epsilon=1.0, tuning_metrics=True)
    assert not SitePrivacy().for_study(asked).tuning_metrics
    assert SitePrivacy(tuning_metrics=True).for_study(asked).tuning_metrics
    shared = PrivacyConfig(mode="distributed", epsilon=1.0, tuning_metrics=True)
    assert not SitePrivacy().for_study(shared).tuning_metrics


def test_a_run_without_noise_is_the_first_thing_that_a_ledgers_reader_sees(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    Ledger(path).note_unprotected("r1", "pilot <b>")
    report = LedgerReport.of(SitePrivacy(ledger=str(path)))
    assert next(report.lines()).startswith("NOT PROTECTED: 1 trained without noise (pilot <b>)")
    page = report_page(report)
    assert page.index('role="alert"') < page.index("<table")
    assert "pilot &lt;b&gt;" in page
    assert 'role="alert"' not in report_page(
        LedgerReport.of(SitePrivacy(ledger=str(tmp_path / "none.jsonl")))
    )


def test_a_site_that_needs_a_ledger_is_told_so_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump({"privacy": {"epsilon": 3.0}}))
    said = r"HF-102.*site.yaml, privacy: privacy.epsilon needs .*ledger: privacy-ledger.jsonl"
    with pytest.raises(ConfigError, match=said):
        SitePolicy.read(file)
