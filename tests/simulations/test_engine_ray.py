"""Ray and the in-process engine run the same apps to the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_core.errors import ProtocolError
from healthfm_simulations.engine import ProgressEvent, run_federation
from tests import three_numbers as small

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_ray_gives_the_weights_of_the_in_process_engine(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    heard: list[ProgressEvent] = []
    config = small.config(aggregation={"server_optimizer": {"name": "momentum"}})
    here = run_federation(config, nodes, tmp_path / "here", apps=small.apps())
    there = run_federation(
        config,
        nodes,
        tmp_path / "there",
        apps=small.apps(),
        engine="ray",
        progress=heard.append,
    )
    for name, value in here.parameters.items():
        np.testing.assert_array_equal(there.parameters[name], value)
    assert [e.round for e in heard if e.phase == "round"] == [1, 2, 3]


def test_a_missed_quorum_on_ray_is_the_same_error(tmp_path: Path) -> None:
    nodes = small.three_sites(tmp_path / "sites")
    apps = small.apps({"a": "raise", "b": "raise"}, round_=1)
    with pytest.raises(ProtocolError, match="HF-403"):
        run_federation(small.config(), nodes, tmp_path / "run", apps=apps, engine="ray")
