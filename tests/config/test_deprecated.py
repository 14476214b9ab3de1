"""A renamed key is taken under its old name for one minor version, and no longer."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from healthfm_client.site.site_policy import SitePolicy
from healthfm_core.config import deprecated
from healthfm_core.config.compose import compose, schema_keys
from healthfm_core.config.deprecated import Deprecation
from healthfm_core.config.run import RunConfig
from healthfm_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
OLD = {
    "train.step_size": Deprecation("train.lr", "0.11"),
    "secagg": Deprecation("federation.aggregation.secure", "0.11"),
}


def minor(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def test_no_old_name_outlives_the_minor_version_that_it_was_promised():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    rows = [*deprecated.RUN.items(), *deprecated.SITE.items()]
    overdue = [old for old, now in rows if minor(version) >= minor(now.ends)]
    assert overdue == [], "move them to healthfm_core/config/renamed.py"


@pytest.mark.parametrize(
    ("table", "schema"), [(deprecated.RUN, RunConfig), (deprecated.SITE, SitePolicy)]
)
def test_every_new_name_exists_and_no_old_one_does(table, schema):
    known = {key for key, _ in schema_keys(schema)}
    assert {now.new for now in table.values()} <= known
    assert not set(table) & known


def test_an_old_name_on_the_command_line_is_taken_and_told(monkeypatch, capsys):
    monkeypatch.setattr(deprecated, "RUN", OLD)
    assert compose(["train.step_size=0.25"]).train.lr == 0.25
    assert capsys.readouterr().err == (
        "train.step_size: renamed; it is train.lr now. The old name is refused from 0.11 on.\n"
    )
    composed = compose(["secagg.ring_bits=64"]).federation.aggregation.secure
    assert composed.ring_bits == 64


def test_an_old_name_in_a_file_is_taken_and_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(deprecated, "RUN", OLD)
    (tmp_path / "simulate.yaml").write_text("train: {step_size: 0.25}")
    assert compose([], tmp_path).train.lr == 0.25
    assert "train.step_size: renamed; it is train.lr now" in capsys.readouterr().err


def test_an_old_name_in_a_sites_policy_is_taken_and_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(deprecated, "SITE", {"ask": Deprecation("require_approval", "0.11")})
    (tmp_path / "site.yaml").write_text("ask: false")
    assert SitePolicy.read(tmp_path / "site.yaml").require_approval is False
    assert "site.yaml, ask: renamed; it is require_approval now" in capsys.readouterr().err


def test_what_was_never_a_name_is_refused_as_before(monkeypatch):
    monkeypatch.setattr(deprecated, "RUN", OLD)
    with pytest.raises(ConfigError, match="HF-101"):
        compose(["train.step_sizes=0.25"])
