"""The benchmark of the public port runs, small, and its sites lose no call."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.deploy.serving import PATIENCE_S, free_port


@pytest.mark.slow
def test_no_call_of_a_site_fails_while_strangers_attack(repository, tmp_path):
    small = {"sites": 3, "silent": 40, "hostile": 20, "seconds": 5, "port": free_port()}
    words = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "benchmarks/public_port.py", *words, "--out", str(tmp_path)]
    done = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "public_port.json").read_text())
    for phase in ("quiet", "other_address", "same_address"):
        assert (figures[phase]["calls"] > 0, figures[phase]["failed"]) == (True, 0)
        assert figures[phase]["audit_mb_a_day"] < 100
    for phase in ("other_address", "same_address"):
        assert figures[phase]["silent_per_s"] > 0
        assert figures[phase]["calls_per_s"] > 5
