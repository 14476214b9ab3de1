"""``healthfm-server inspect``."""

from __future__ import annotations

from pathlib import Path

import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_server.__main__ import main
from healthfm_simulations.engine import run_federation
from tests import three_numbers as small


def test_inspect_prints_sites_rounds_and_what_was_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    run_federation(small.config(), nodes, tmp_path / "run", apps=small.apps({"b": "nan"}, round_=2))
    assert main(["inspect", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "site a: ehr, wearable; 10 training subjects" in out
    assert "round   2" in out
    assert "2/3 sites" in out
    assert "round 2: set aside b: backbone.w holds values that are not finite" in out


def test_a_folder_without_a_run_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(tmp_path)]) == 8
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("RunError[HF-701]")
    assert captured.err.count("\n") == 1
