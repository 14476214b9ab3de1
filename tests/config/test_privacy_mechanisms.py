"""A mechanism of privacy is one spec, which everybody asks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from healthfm_core.config import PrivacyConfig, RunConfig
from healthfm_core.config.privacy_mechanisms import (
    MECHANISMS,
    PrivacyMechanism,
    hides_each_person,
)

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("healthfm_core", "server", "client", "simulations")
SPECS = "healthfm_core/config/privacy_mechanisms.py"


def test_nobody_compares_a_study_s_mode_with_a_name():
    """But for a site's own rule, which is not the study's mechanism."""
    compares = re.compile(r"privacy\.mode\s*[!=]=|asked\.mode\s*[!=]=|config\.mode\s*[!=]=")
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    found = {
        str(file.relative_to(ROOT)) for file in files if compares.search(file.read_text("utf-8"))
    }
    assert found <= {SPECS, "client/healthfm_client/site/site_node.py"}


def test_a_mechanism_hides_by_its_sites_or_by_their_sum_and_never_both():
    assert not MECHANISMS["off"].is_private
    for name, spec in MECHANISMS.items():
        assert spec.name == name
        assert not (spec.per_site_noise and spec.noise_in_sum)


def test_an_unknown_mechanism_is_refused_with_those_there_are():
    with pytest.raises(ValidationError, match="one of off, dp, distributed"):
        PrivacyConfig(mode="none")


@pytest.mark.parametrize(
    ("privacy", "hides"),
    [({}, False), ({"mode": "dp"}, True), ({"mode": "distributed"}, False), ({"mode": "x"}, False)],
)
def test_a_site_s_floor_is_met_only_where_each_site_adds_its_own_noise(privacy, hides):
    assert hides_each_person(privacy) is hides


def test_a_new_mechanism_is_a_spec(monkeypatch):
    """The configuration takes it, checks what it asks, and knows what it does."""
    spec = PrivacyMechanism(
        "toy",
        per_site_noise=True,
        missing=lambda config: None if config.epsilon else "privacy.mode=toy takes epsilon",
        conflict=lambda run: (
            "privacy.mode=toy takes one round" if run.federation.rounds > 1 else None
        ),
    )
    monkeypatch.setattr("healthfm_core.config.privacy.MECHANISMS", {**MECHANISMS, "toy": spec})
    private = PrivacyConfig(mode="toy", epsilon=1.0)
    assert private.mechanism.is_private
    with pytest.raises(ValidationError, match="toy takes epsilon"):
        PrivacyConfig(mode="toy")
    with pytest.raises(ValidationError, match="toy takes one round"):
        RunConfig.model_validate({"privacy": private.model_dump()})
    with pytest.raises(ValidationError, match=r"needs train\.precision=float32"):
        RunConfig.model_validate(
            {
                "privacy": private.model_dump(),
                "federation": {"rounds": 1},
                "train": {"precision": "bfloat16"},
            }
        )
