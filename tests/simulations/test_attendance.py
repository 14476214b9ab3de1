"""Sites that join a federation that is under way, and sites that leave it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from healthfm_core.config.compose import compose
from healthfm_core.errors import ConfigError
from healthfm_simulations.__main__ import main
from healthfm_simulations.arms.attendance import stages
from healthfm_simulations.sites import SimulatedSite
from tests.simulations.test_simulate_command import SMALL


def stage_names(*overrides: str) -> list[tuple[str, int]]:
    config = compose(["rounds=8", *overrides])
    sites = [SimulatedSite(name, Path(name), None) for name in "abc"]
    return [("".join(s.name for s in stage.sites), stage.last) for stage in stages(config, sites)]


def test_where_nobody_joins_or_leaves_there_is_one_stage():
    assert stage_names() == [("abc", 8)]


def test_stages_are_cut_where_somebody_joins_or_leaves():
    given = ["simulation.joins.b=4", "simulation.leaves.c=6", "simulation.leaves.a=3"]
    assert stage_names(*given) == [("ac", 3), ("bc", 6), ("b", 8)]


def test_a_site_may_stay_for_a_single_round():
    assert stage_names("simulation.joins.b=4", "simulation.leaves.b=4") == [
        ("ac", 3),
        ("abc", 4),
        ("ac", 8),
    ]


@pytest.mark.parametrize("given", ["joins.b=1", "joins.b=9", "leaves.b=8", "leaves.b=0"])
def test_rounds_that_are_not_in_the_run_are_refused(given):
    with pytest.raises(ConfigError, match="HF-103"):
        compose(["rounds=8", f"simulation.{given}"])


def test_a_site_that_is_not_is_refused(tmp_path, capsys):
    given = [*SMALL, "simulation.joins.nowhere=2", f"out={tmp_path / 'out'}"]
    assert main(given) == ConfigError.exit_code
    assert "nowhere" in capsys.readouterr().err


def test_the_federated_run_has_the_site_from_the_round_it_joined(tmp_path):
    folder = tmp_path / "out"
    given = ["simulation.arms=[federated,local]", "simulation.joins.site-01=2", f"out={folder}"]
    assert main([*SMALL, *given]) == 0
    history = folder / "runs" / "fold-0" / "federated" / "history.jsonl"
    rounds = [json.loads(line)["answered"] for line in history.read_text().splitlines()]
    assert rounds[0] == ["site-00", "site-02", "site-03"]
    assert rounds[1] == ["site-00", "site-01", "site-02", "site-03"]
    people = {row["n_subjects"] for row in json.loads((folder / "metrics.json").read_text())
              if row["subset"] == "overall"}  # fmt: skip
    assert len(people) == 1
