"""The benchmark of the coordinator's page runs, small, and says of each goal whether it is met."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_page_is_measured_with_its_process():
    words = ["--sites", "3", "--rounds", "4", "--updates", "2", "--more", "1"]
    command = [sys.executable, "benchmarks/coordinator_page.py", *words]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert (found["sites"], found["rounds"], found["memory_rounds"]) == (3, 4, 1)
    assert 0 < found["update_ms"]["median"] <= found["update_ms"]["max"]
    before, after = found["memory_mib"]
    assert found["reached"]["memory"] == (after / before < 1.05)
    assert found["reached"]["update"] == (found["update_ms"]["median"] < 100)
    paint = found["first_paint_ms"]
    assert found["reached"]["first_paint"] == (None if paint is None else paint < 1000)
