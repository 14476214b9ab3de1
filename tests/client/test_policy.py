"""What a site permits, whatever it is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_client.privacy_accounting.site_privacy import SitePrivacy
from healthfm_client.site.site_policy import EXAMPLE, SitePolicy
from healthfm_core.config import TokensConfig
from healthfm_core.errors import ConfigError, PolicyError, ProtocolError
from healthfm_simulations.engine import NodeSpec, run_federation
from tests import three_numbers as small


def test_the_example_is_a_policy_as_it_is_and_with_all_that_it_shows(tmp_path: Path) -> None:
    policy = SitePolicy.read(EXAMPLE)
    keys = "|".join(SitePolicy.model_fields)
    shown = re.sub(rf"^# (?=({keys}):|  - |  \S+: )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    of_privacy = "|".join(SitePrivacy.model_fields)
    shown = re.sub(rf"^  # (?=({of_privacy}): )", "  ", shown, flags=re.MULTILINE)
    (tmp_path / "site.yaml").write_text(shown)
    every = SitePolicy.read(tmp_path / "site.yaml")
    assert every.model_fields_set == set(SitePolicy.model_fields)
    assert len(every.hours) == 2
    assert policy.min_cohort == 100
    assert policy.metrics == SitePolicy().metrics


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("min_cohrt: 5", "HF-101", "min_cohrt"),
        ("min_cohort: 0", "HF-102", "min_cohort"),
        ("modalities: [imaging]", "HF-102", "modalities"),
        ("- a\n- b", "HF-102", "top level"),
        ("a: [", "HF-102", "site.yaml"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(
    tmp_path: Path, text: str, code: str, where: str
) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"{code}.*{where}"):
        SitePolicy.read(tmp_path / "site.yaml")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HF-104"):
        SitePolicy.read(tmp_path / "site.yaml")


def test_an_empty_file_is_the_default_policy(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("")
    assert SitePolicy.read(tmp_path / "site.yaml") == SitePolicy()


def test_the_stricter_threshold_holds() -> None:
    tokens = TokensConfig(k_min=20)
    assert SitePolicy(k_min=5).raise_threshold(tokens).k_min == 20
    assert SitePolicy(k_min=50).raise_threshold(tokens).k_min == 50


def test_metrics_off_the_list_and_small_counts_stay() -> None:
    policy = SitePolicy(k_min=10)
    metrics = {"loss_a": 1.0, "who": 3.0, "tuning_subjects": 9.0, "tuning_auroc": 0.7}
    assert policy.metrics_to_send(metrics) == {"loss_a": 1.0, "tuning_auroc": 0.7}
    assert policy.metrics_to_send({"tuning_subjects": 10.0}) == {"tuning_subjects": 10.0}


def test_a_group_with_too_few_people_stays() -> None:
    policy = SitePolicy(k_min=10)
    assert policy.groups_to_send({"backbone": 40.0, "wearable": 9.0}) == {"backbone": 40.0}


def test_modalities_that_are_not_permitted_are_as_if_absent() -> None:
    policy = SitePolicy(modalities=("ehr", "wearable"))
    assert policy.permitted(None) == ("ehr", "wearable")
    assert policy.permitted(("wearable", "genomics")) == ("wearable",)
    with pytest.raises(PolicyError, match="HF-501"):
        policy.permitted(("genomics",))


def _with_policy(node: NodeSpec, folder: Path, text: str) -> NodeSpec:
    path = folder / f"{node.name}.yaml"
    path.write_text(text)
    return NodeSpec(node.name, node.stores, path)


def test_a_policy_holds_through_a_whole_run(tmp_path: Path) -> None:
    a, b, c = small.three_sites(tmp_path)
    nodes = [
        _with_policy(a, tmp_path, "modalities: [ehr]\nmetrics: []"),
        _with_policy(b, tmp_path, "min_cohort: 21"),
        c,
    ]
    result = run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())
    first = result.history[0]
    assert first["answered"] == ["a", "c"]
    assert first["groups"]["wearable"]["sites"] == 1
    assert first["groups"]["backbone"]["sites"] == 2
    assert first["site_metrics"]["a"] == {}
    log = (tmp_path / "run" / "events.log").read_text()
    refusals = [json.loads(line) for line in log.splitlines() if "HF-501" in line]
    assert refusals
    assert all("20" not in event["reason"] for event in refusals), "its size is not said"


def test_a_refusal_by_most_sites_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    nodes = [
        _with_policy(node, tmp_path, "min_cohort: 1000") for node in small.three_sites(tmp_path)
    ]
    with pytest.raises(ProtocolError, match=r"HF-403.*HF-501"):
        run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps())
