"""The benchmark of updates runs, small, and each of its updates adds what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CASES = ("alone", "late", "people")


@pytest.mark.parametrize(
    ("source", "cases"),
    [("omop", ["whole"]), pytest.param("event_table", CASES, marks=pytest.mark.slow)],
)
def test_updates_are_measured_beside_whole_ingests(source: str, cases: list[str]):
    command = [sys.executable, "benchmarks/incremental_ingest.py", "--events", "20000"]
    command += ["--repeats", "1", "--sources", source, "--cases", *cases]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)[source]
    assert (found["events"], found["delta"]) == (20_000, 200)
    for case in cases:
        for name, share in found[case]["share"].items():
            assert abs(share - found[case][name] / max(found["ingest"][name], 0.01)) < 0.002
        assert found[case]["reached"] == (found[case]["share"]["command"] < 0.05)
        assert found[case]["work"] < found[case]["command"]
