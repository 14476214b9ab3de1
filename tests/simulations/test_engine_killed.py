"""A real process, killed with SIGKILL at a random moment, then resumed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tests.quiet_flower  # noqa: F401
from healthfm_server.run_folder.run_store import RunStore
from healthfm_simulations.engine import run_federation
from tests import three_numbers as small

ROUNDS = 20
LAST = ROUNDS - 3
"""The process goes no further: however late it is killed, it has not ended."""
SCRIPT = """
import sys
from pathlib import Path
from tests import three_numbers as small
from healthfm_simulations.engine import run_federation

folder = Path(sys.argv[1])
adam = {"server_optimizer": {"name": "adam"}}
config = small.config(rounds=int(sys.argv[2]), aggregation=adam, fraction=0.6)
last = int(sys.argv[3])


def say(event):  # of every round; it waits to be killed before the run is over
    if event.phase == "round":
        print(event.round, flush=True)
        if event.round == last:
            sys.stdin.read()


sites = small.three_sites(folder / "sites")
run_federation(config, sites, folder / "run", apps=small.apps(), progress=say)
"""


@pytest.mark.parametrize("seed", [0, 1])
def test_kill_minus_9_at_a_random_round_then_resume_gives_the_same_weights(
    tmp_path: Path, repository: Path, seed: int
) -> None:
    wanted = random.Random(seed).randrange(1, LAST - 4)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(ROUNDS), str(LAST)],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_round(wanted, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    reached = max(RunStore(tmp_path / "run", 1).checkpoints.rounds())
    assert wanted <= reached < ROUNDS

    config = small.config(
        rounds=ROUNDS, aggregation={"server_optimizer": {"name": "adam"}}, fraction=0.6
    )
    nodes = small.three_sites(tmp_path / "sites")
    resumed = run_federation(config, nodes, tmp_path / "run", resume=True, apps=small.apps())
    whole = run_federation(config, nodes, tmp_path / "whole", apps=small.apps())
    for name, value in whole.parameters.items():
        assert resumed.parameters[name].tobytes() == value.tobytes()
    assert [row["round"] for row in resumed.history] == list(range(1, ROUNDS + 1))


def _wait_for_round(wanted: int, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= wanted:
            return
    raise AssertionError("the process ended before it could be killed")
