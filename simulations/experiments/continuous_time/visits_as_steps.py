"""What the decay is worth when it counts visits instead of days.

    python simulations/experiments/continuous_time/visits_as_steps.py [--seeds 3] [--out DIR]

Runs the variant `decay alone` of this experiment again on rows whose visits all stand `STEP_DAYS`
apart, worn hours at their visit's: what is recent is known, how long ago it was is not. Prints the
new-onset average precision beside that of the experiment's own runs in DIR, and the paired
differences over the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from healthfm_core.data.batch.batch import Batch
from healthfm_core.models import HealthFM
from healthfm_core.models.time_features import has_time
from healthfm_simulations.experiments.experiment_plan import folder_of, read_plan
from healthfm_simulations.scoring.seed_intervals import t_interval
from healthfm_simulations.simulation_run import run_simulation

VARIANT = "decay alone"
STEP_DAYS = 30.0
"""Half-lives start at 1, 30, 1,000 days: at the last visit, halving with each, hardly fading."""
APART_DAYS = 0.5
"""Times further apart than this are of two visits."""
METRICS = ("average_precision", "auroc")


def in_steps(batch: Batch) -> Batch:
    """Return the batch with each visit, and a query about it, one step after the visit before."""
    timed = has_time(batch)
    at, order = batch.t_days.masked_fill(~timed, math.inf).sort(dim=1)
    begins = torch.diff(at, dim=1) > APART_DAYS
    visit = torch.nn.functional.pad(begins.cumsum(1), (1, 0)).to(batch.t_days.dtype)
    steps = torch.zeros_like(batch.t_days).scatter(1, order, visit)
    return replace(batch, t_days=steps * STEP_DAYS * timed)


def count_visits() -> None:
    """Let every model of this process read its batches in steps."""
    forward: Callable[..., Any] = HealthFM.forward
    HealthFM.forward = lambda self, batch, at_BQ=None: forward(self, in_steps(batch), at_BQ)  # type: ignore[method-assign]


def scores(folder: Path) -> list[float]:
    """Return the federated arm's new-onset metrics of a finished run."""
    rows = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    found = {
        row["metric"]: row["value"]
        for row in rows
        if (row["task"], row["arm"], row["subset"]) == ("next_visit", "federated", "new_onset")
    }
    return [found[metric] for metric in METRICS]


def main() -> None:
    """Run every seed and print both sides and their differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/experiments/continuous_time"))
    options = parser.parse_args()
    plan = read_plan(Path(__file__).parent)
    count_visits()
    console, pairs = Console(highlight=False, width=100), []
    for seed in range(options.seeds):
        folder = folder_of(options.out, "visits as steps", seed)
        if not (folder / "metrics.json").is_file():
            config = plan.config(VARIANT, seed)
            run_simulation(config, folder, command="visits_as_steps.py", console=console)
        pairs.append((scores(folder_of(options.out, VARIANT, seed)), scores(folder)))
    for place, metric in enumerate(METRICS):
        days, steps = ([side[place] for side in sides] for sides in zip(*pairs, strict=True))
        differences = [a - b for a, b in zip(days, steps, strict=True)]
        for name, values in (("days", days), ("visits", steps), ("days - visits", differences)):
            mean, low, high = t_interval(values)
            sys.stdout.write(f"{metric}, {name}: {mean:.3f} [{low:.3f}, {high:.3f}]\n")


if __name__ == "__main__":
    main()
