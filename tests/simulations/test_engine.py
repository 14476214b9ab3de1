"""The in-process engine with the real apps of server and site, over a model of a few numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_simulations.engine import ProgressEvent, run_federation
from tests import three_numbers as small


def test_a_run_ends_with_the_weighted_mean_of_the_sites(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    result = run_federation(small.config(rounds=12), nodes, tmp_path / "run", apps=small.apps())
    everyone = (10 * 1 + 20 * 2 + 30 * 3) / 60
    worn = (10 * 1 + 30 * 3) / 40
    np.testing.assert_allclose(result.parameters["backbone.w"], everyone, atol=0.03)
    np.testing.assert_allclose(result.parameters["encoders.wearable.w"], worn, atol=0.03)
    assert "encoders.genomics.w" not in result.parameters
    assert [row["round"] for row in result.history] == list(range(1, 13))
    assert result.history[0]["metrics"] == {"loss_pull": pytest.approx(everyone)}


def test_progress_is_told_for_every_site_and_round(tmp_path: Path) -> None:
    heard: list[ProgressEvent] = []
    nodes = small.three_sites(tmp_path / "sites")
    run_federation(
        small.config(), nodes, tmp_path / "run", apps=small.apps(), progress=heard.append
    )
    assert [e.phase for e in heard[:7]] == ["statistics"] * 3 + ["prepare"] * 3 + ["site"]
    assert [(e.site, e.done, e.sites) for e in heard[6:9]] == [
        ("a", 1, 3),
        ("b", 2, 3),
        ("c", 3, 3),
    ]
    assert [(e.round, e.rounds) for e in heard if e.phase == "round"] == [(1, 3), (2, 3), (3, 3)]
