"""What another machine sees of a coordinator: one port."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.end_to_end.alone import in_one, why_not
from tests.end_to_end.deployed import REPOSITORY

pytestmark = pytest.mark.deployment


@pytest.mark.slow
def test_a_port_scan_from_a_sites_network_finds_one_port(tmp_path):
    reason = why_not()
    if reason is not None:
        pytest.skip(f"a scan needs a network of its own: {reason}")
    command = in_one([sys.executable, "-m", "tests.end_to_end.scan", str(tmp_path)])
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["found"] == [seen["public"]]
