"""Seconds per round beyond local training, in-process engine, 16 sites, demo model.

    python benchmarks/overhead.py [--sites 16] [--subjects 1600] [--rounds 4] [--max-steps N]

The peer is a plain loop that calls the same `train_round` with the same orders on the same data and
averages with NumPy: no messages, no checks, no files. Each of its rounds runs right after the
engine's, so that both see the same machine. Two figures: the median ratio of the rounds' seconds,
and the share of the engine's round that is not local training (the same clock around the same
calls, so other work on the machine hardly moves it). Goal: at most 1.05 and 0.05.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from healthfm_client.core_local_work import CoreLocalWork
from healthfm_core.arrays import Float32, Float32Arrays
from healthfm_core.config import RunConfig
from healthfm_core.federation.parameter_groups import group_of
from healthfm_core.federation.protocol import RoundOrder, RoundResult, Study
from healthfm_core.training import initial_parameters
from healthfm_simulations.engine import Apps, ProgressEvent, run_federation
from healthfm_simulations.engine.federation_run import core_apps
from healthfm_simulations.engine.nodes import NodeSpec
from healthfm_simulations.sites import prepare_sites

GOAL = 0.05
RESULTS = Path(__file__).parent / "results"


class Timed(CoreLocalWork):
    """The real local work; notes what each round was asked and how long training took."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Study, RoundOrder]] = []
        self.seconds = 0.0

    def train_round(
        self, parameters: Mapping[str, Any], data: Any, study: Study, order: RoundOrder
    ) -> RoundResult:
        """Train, under the clock."""
        self.calls.append((data, study, order))
        begun = time.perf_counter()
        result = super().train_round(parameters, data, study, order)
        self.seconds += time.perf_counter() - begun
        return result


class Comparison:
    """Hears the end of each round of the engine and runs the plain loop's round at once."""

    def __init__(self, work: Timed) -> None:
        self._work = work
        self._parameters: Float32Arrays = {}
        self._begun = 0.0
        self.engine: list[float] = []
        self.training: list[float] = []
        self.plain: list[float] = []

    def __call__(self, event: ProgressEvent) -> None:
        """Note the engine's round, then run the plain one."""
        if event.phase == "prepare":
            self._begun = time.perf_counter()
        if event.phase != "round":
            return
        self.engine.append(time.perf_counter() - self._begun)
        self.training.append(self._work.seconds)
        calls, self._work.calls, self._work.seconds = self._work.calls, [], 0.0
        if not self._parameters:
            self._parameters = initial_parameters(calls[0][1])
        begun = time.perf_counter()
        self._parameters = plain_round(self._work, self._parameters, calls)
        self.plain.append(time.perf_counter() - begun)
        self._work.calls, self._work.seconds = [], 0.0
        self._begun = time.perf_counter()

    def largest_difference(self, parameters: Mapping[str, Float32]) -> float:
        """Return the largest difference between the engine's and the plain loop's weights."""
        return max(float(np.abs(parameters[n] - v).max()) for n, v in self._parameters.items())


def plain_round(
    work: CoreLocalWork, parameters: Float32Arrays, calls: Sequence[tuple[Any, Study, RoundOrder]]
) -> Float32Arrays:
    """Train at each site in turn and average, as one would without a framework."""
    sums = {name: np.zeros_like(value) for name, value in parameters.items()}
    totals = dict.fromkeys(parameters, 0.0)
    for data, study, order in calls:
        held = {n: v.copy() for n, v in parameters.items() if group_of(n) in order.groups}
        result = CoreLocalWork.train_round(work, held, data, study, order)
        for name, update in result.update.items():
            weight = result.weights[group_of(name)]
            sums[name] += np.float32(weight) * update
            totals[name] += weight
    return {
        name: value + sums[name] / np.float32(totals[name] or 1.0)
        for name, value in parameters.items()
    }


def main() -> None:
    """Measure, print, and write results/overhead.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=16)
    parser.add_argument("--subjects", type=int, default=1600)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--max-steps", type=int, default=None)
    given = parser.parse_args()
    config = RunConfig.model_validate(
        {
            "data": {"cohort": {"subjects": given.subjects, "sites": given.sites}},
            "tokens": {"k_min": 5},
            "train": {"max_steps": given.max_steps},
            "federation": {"rounds": given.rounds, "evaluate_every": 0},
        }
    )
    torch.set_num_threads(1)
    work = Timed()
    compared = Comparison(work)
    with tempfile.TemporaryDirectory() as folder:
        sites = prepare_sites(config, Path(folder) / "stores")
        nodes = [NodeSpec(site.name, [(site.path, site.modalities)]) for site in sites]
        apps = Apps(core_apps().server, work)
        run = Path(folder) / "run"
        result = run_federation(config, nodes, run, progress=compared, apps=apps)
    report(vars(given), compared, result.parameters)


def report(given: dict[str, Any], compared: Comparison, parameters: Mapping[str, Float32]) -> None:
    """Print the figures and write them."""
    beyond = [e - t for e, t in zip(compared.engine, compared.training, strict=True)]
    figures = {
        **given,
        "parameters": sum(value.size for value in parameters.values()),
        "engine_s": statistics.median(compared.engine),
        "training_s": statistics.median(compared.training),
        "plain_s": statistics.median(compared.plain),
        "beyond_training_s": statistics.median(beyond),
        "ratio_to_plain": statistics.median(
            e / p for e, p in zip(compared.engine, compared.plain, strict=True)
        ),
        "share_beyond_training": statistics.median(
            b / t for b, t in zip(beyond, compared.training, strict=True)
        ),
        "largest_difference": compared.largest_difference(parameters),
        "goal": GOAL,
    }
    RESULTS.mkdir(exist_ok=True)
    name = "overhead" if given["max_steps"] is None else f"overhead-{given['max_steps']}-steps"
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(
        f"{given['sites']} sites, {figures['parameters']:,} parameters: "
        f"{figures['engine_s']:.3f} s a round, plain loop {figures['plain_s']:.3f} s, "
        f"ratio {figures['ratio_to_plain']:.3f}\n"
        f"beyond local training: {figures['beyond_training_s'] * 1e3:.1f} ms a round, "
        f"{figures['share_beyond_training']:.1%} of it (goal {GOAL:.0%})"
    )


if __name__ == "__main__":
    main()
