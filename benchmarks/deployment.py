"""Seconds per round that a deployment adds to the sites' computing: three sites on loopback.

    python benchmarks/deployment.py [--rounds 6] [--max-steps 2]

A coordinator and three sites are set up by the commands of docs/deployment.md: TLS, certificates,
the supervisor, one site behind a proxy, real processes. A round's wall clock is the time between
two checkpoints on disk; what the slowest site computed is what its worker says in its log. The
difference is what messages, polls, TLS, checks, the fold and the checkpoint take. On a machine with
fewer processors than sites that difference also holds the sites' waiting for each other, so the sum
of all sites' computing is printed too. Goal: at most 6 s, where Flower's own defaults with two
sites take 13 to 21 s.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

from healthfm_server.deploy.run_orders import RunOrder
from tests.end_to_end.chaos import set_up
from tests.end_to_end.deployed import SITES, Shell, deployment

GOAL_S = 6.0
RESULTS = Path(__file__).parent / "results"
ANSWERED = re.compile(r"train of round (\d+) of run (\d+) answered, ([0-9.]+) s of computing")


def computing_s(shell: Shell, run: int) -> dict[int, list[float]]:
    """Return what each site's worker computed in each round of Flower's run, in seconds."""
    found: dict[int, list[float]] = {}
    for site in SITES:
        text = (shell.folder / site / "process" / "worker.log").read_text()
        for round_, of, seconds in ANSWERED.findall(text):
            if int(of) == run:
                found.setdefault(int(round_), []).append(float(seconds))
    return found


def walls_s(order: RunOrder, rounds: int) -> dict[int, float]:
    """Return the time between the checkpoints of a round and of the one before."""
    at = [
        os.stat(order.folder / "checkpoints" / f"round-{n:04d}.json").st_mtime
        for n in range(rounds + 1)
    ]
    return {n: at[n] - at[n - 1] for n in range(1, rounds + 1)}


def measure(shell: Shell, rounds: int, max_steps: int) -> dict[str, float]:
    """Run a study and return its figures."""
    begun = time.monotonic()
    shell.run(
        f"healthfm-server run --study study --name timed model=tiny federation.rounds={rounds} "
        f"train.max_steps={max_steps} tokens.k_min=20 federation.keep_checkpoints={rounds + 1}"
    )
    shell.run("healthfm-server wait --study study timed")
    wall = time.monotonic() - begun
    order = RunOrder(shell.folder / "study" / "runs" / "timed")
    walls, computed = walls_s(order, rounds), computing_s(shell, order.status().flower_run)
    return {
        "round_s": statistics.median(walls.values()),
        "slowest_site_s": statistics.median(max(found) for found in computed.values()),
        "all_sites_s": statistics.median(sum(found) for found in computed.values()),
        "overhead_s": statistics.median(walls[n] - max(computed[n]) for n in walls),
        "most_overhead_s": max(walls[n] - max(computed[n]) for n in walls),
        "before_round_1_s": wall - sum(walls.values()),
    }


def main() -> None:
    """Measure, print, and write results/deployment.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--max-steps", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, deployment(Path(folder)) as (shell, _):
        begun = time.monotonic()
        set_up(shell)
        up_s = time.monotonic() - begun
        figures = {**vars(given), "goal_s": GOAL_S, "set_up_s": up_s}
        figures |= measure(shell, given.rounds, given.max_steps)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "deployment.json").write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):<18} {value:8.2f}")


if __name__ == "__main__":
    main()
