"""Rounds over very many simulated sites: the coordinator's seconds per site, and its memory.

    python benchmarks/many_sites.py [--sites 1000] [--rounds 10] [--regions 0] [--max-steps 1]

Every site has a store of its own and the real app; the model is `tiny`. Local training and what a
site does besides are under a clock of their own, so that the rest of a round is the coordinator's:
its messages, checks, sums, the checkpoint. Memory is private memory (RssAnon) at the end of each
round. Goal: the last round's memory within 5 % of the second's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from healthfm_client.core_local_work import CoreLocalWork
from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.training import DriftCorrection, PrivacyPlan
from healthfm_simulations.engine import Apps, ProgressEvent, run_federation
from healthfm_simulations.engine.federation_run import core_apps
from healthfm_simulations.engine.inprocess import InProcessGrid
from healthfm_simulations.engine.nodes import NodeSpec
from healthfm_simulations.sites import prepare_sites

GOAL = 1.05
RESULTS = Path(__file__).parent / "results"


class TimedWork(CoreLocalWork):
    """The real local work, with a clock around training."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def train_round(
        self,
        parameters: Mapping[str, Any],
        data: Any,
        study: Study,
        order: RoundOrder,
        private: PrivacyPlan | None = None,
        drift: DriftCorrection | None = None,
    ) -> RoundResult:
        """Train, under the clock."""
        begun = time.perf_counter()
        result = super().train_round(parameters, data, study, order, private, drift)
        self.seconds += time.perf_counter() - begun
        return result


class SiteClock:
    """How long the sites' apps were at work, training and all."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._app = InProcessGrid._run_app

    def __enter__(self) -> SiteClock:
        clock, app = self, self._app

        def timed(grid: InProcessGrid, message: Any, context: Any) -> Any:
            begun = time.perf_counter()
            try:
                return app(grid, message, context)
            finally:
                clock.seconds += time.perf_counter() - begun

        InProcessGrid._run_app = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        InProcessGrid._run_app = self._app  # type: ignore[method-assign]


@dataclass
class Rounds:
    """Hears of each round.

    Attributes:
        work: Whose training is timed.
        sites: Whose apps are.
        rows: A row per round.
    """

    work: TimedWork
    sites: SiteClock
    rows: list[dict[str, float]] = field(default_factory=list)
    _begun: float = field(default_factory=time.perf_counter)
    _peak_mb: float = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        """Note a round, and begin the next."""
        self._peak_mb = max(self._peak_mb, private_mb())
        if event.phase not in ("prepare", "round"):
            return
        if event.phase == "round":
            seconds = time.perf_counter() - self._begun
            row = {
                "seconds": seconds,
                "training_s": self.work.seconds,
                "sites_s": self.sites.seconds,
                "coordinator_s": seconds - self.sites.seconds,
                "memory_mb": private_mb(),
                "peak_mb": self._peak_mb,
            }
            self.rows.append(row)
            sys.stdout.write(f"{event.round}: " + " ".join(f"{k} {v:.3f}" for k, v in row.items()))
            sys.stdout.write("\n")
            sys.stdout.flush()
        self.work.seconds = self.sites.seconds = self._peak_mb = 0.0
        self._begun = time.perf_counter()


def private_mb() -> float:
    """Return the private memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def main() -> None:
    """Measure, print, and write results/many_sites.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--regions", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=1)
    given = parser.parse_args()
    config = compose(
        [
            *("model=tiny", f"data.cohort.subjects={12 * given.sites}", "tokens.k_min=5"),
            *(f"data.cohort.sites={given.sites}", "data.cohort.size_skew=100"),
            *(f"federation.rounds={given.rounds}", "federation.evaluate_every=0"),
            *(f"train.max_steps={given.max_steps}", f"simulation.regions={given.regions}"),
        ]
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(config, vars(given), Path(folder))


def measure(config: RunConfig, given: Mapping[str, Any], folder: Path) -> None:
    """Run the federation and report it."""
    begun = time.perf_counter()
    sites = prepare_sites(config, folder / "stores")
    sys.stdout.write(f"{len(sites)} stores in {time.perf_counter() - begun:.0f} s\n")
    nodes = [NodeSpec(site.name, ((site.path, site.modalities),)) for site in sites]
    work, begun = TimedWork(), time.perf_counter()
    with SiteClock() as clock:
        rounds = Rounds(work, clock)
        apps = Apps(core_apps().server, work)
        result = run_federation(config, nodes, folder / "run", progress=rounds, apps=apps)
    figures = {
        **given,
        "parameters": sum(value.size for value in result.parameters.values()),
        "all_s": time.perf_counter() - begun,
        "coordinator_ms_per_site": 1e3
        * statistics.median(row["coordinator_s"] for row in rounds.rows)
        / given["sites"],
        "beside_training_ms_per_site": 1e3
        * statistics.median(row["seconds"] - row["training_s"] for row in rounds.rows)
        / given["sites"],
        "memory": rounds.rows[-1]["memory_mb"]
        / rounds.rows[min(1, len(rounds.rows) - 1)]["memory_mb"],
        "goal": GOAL,
        "rows": rounds.rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "many_sites.json").write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(
        f"{given['sites']} sites, {figures['parameters']:,} parameters: the coordinator takes "
        f"{figures['coordinator_ms_per_site']:.2f} ms per site and round, all beside training "
        f"{figures['beside_training_ms_per_site']:.2f} ms; memory {figures['memory']:.3f} of round "
        f"2's after the last (goal {GOAL})\n"
    )


if __name__ == "__main__":
    main()
