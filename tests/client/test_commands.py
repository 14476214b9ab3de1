"""The site's commands as an administrator meets them: quick to start, and listed in plain words."""

import subprocess
import sys

import pytest

from healthfm_client.__main__ import main

HEAVY = {"torch", "opacus", "flwr", "matplotlib", "sklearn", "polars", "ray"}
LOADED = """
import sys
from healthfm_client.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded:", *{name.partition(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("words", [["--help"], ["status", "--help"], ["pause", "--site", "."]])
def test_a_command_that_computes_nothing_loads_no_heavy_package(words, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    assert "healthfm_client" in loaded
    assert loaded & HEAVY == set()


def test_help_lists_every_command_with_what_it_is_for(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = capsys.readouterr().out
    for name in ("ingest", "enroll", "join", "approve", "audit", "doctor", "leave"):
        assert f"    {name} " in listed
