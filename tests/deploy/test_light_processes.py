"""What watches and serves a study loads no PyTorch: a process with it has 250 MB and 2 s more."""

from __future__ import annotations

import subprocess
import sys

from healthfm_server.deploy.study_process import PROCESSES

MODULES = (
    *(f"healthfm_server.deploy.{name}" for name in PROCESSES),
    "healthfm_server.page.coordinator_page",
    "healthfm_client.page.site_page",
    "healthfm_client.site_status",
)
LOOK = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{name} loads torch")
"""


def test_none_of_them_loads_it():
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *MODULES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
