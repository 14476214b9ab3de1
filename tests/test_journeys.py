"""The two journeys come back into a file that waits for them only through a named interface."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.journeys import ROOT


@pytest.mark.slow
def test_no_file_is_reentered_but_through_a_named_interface():
    done = subprocess.run(
        [sys.executable, "-m", "tests.journeys", "--page"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("\n## ") == 2
    assert "`InProcessGrid.push_messages`" in done.stdout, "nothing was measured"
    assert "no named interface" not in done.stdout
