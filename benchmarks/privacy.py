"""What differential privacy costs a training step: CPU time and memory, beside the step without.

    python benchmarks/privacy.py [--sizes demo small] [--rows 16] [--length 256] [--repeats 5]

Three ways to make one and the same step (a model of every modality, next visits, one thread):
``none`` is plain training, ``ghost`` and ``hooks`` clip each person's gradient and add noise, as
`training.gradients.dp_sgd` does. Time is the process's CPU time, the arms in turn, median of the
repeats and of the ratios; memory is the peak of a process of its own that makes three steps, beyond
what it held before it had a model. Goals: ghost at most
2.0 times the time and 1.3 times the memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from memory import forget_peak, held_mib, peak_mib
from step import batches_of, model_of

from healthfm_core.config import RunConfig
from healthfm_core.config.compose import compose
from healthfm_core.privacy.clipping import TOGETHER, ClippedSum
from healthfm_core.privacy.entropy import Entropy, noised
from healthfm_core.training.optimizer import optimizer_for
from healthfm_core.training.passes import losses, passes_for

ARMS = ("none", "ghost", "hooks")
GOALS = {"time": 2.0, "memory": 1.3}
RESULTS = Path(__file__).parent / "results"
NOISE = 1.0


def step_of(config: RunConfig, arm: str, rows: int, length: int) -> Callable[[], None]:
    """Return a function that makes one step."""
    torch.manual_seed(0)
    (batch,) = batches_of(config, length, rows, "cpu").values()
    model = model_of(config)
    optimizer = optimizer_for(model, config.train)
    masks, passes = torch.Generator(), passes_for(config.train)
    if arm == "none":

        def plain() -> None:
            optimizer.zero_grad(set_to_none=True)
            found = losses(model, batch, passes, config.train, masks)
            (found.per_subject.sum() / batch.size).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_norm)
            optimizer.step()

        return plain
    parameters = dict(model.named_parameters())
    clipped = ClippedSum(model, {TOGETHER: 1.0}, dict.fromkeys(parameters, TOGETHER), arm)
    entropy = Entropy()

    def private() -> None:
        optimizer.zero_grad(set_to_none=True)
        clipped.add(losses(model, batch, passes, config.train, masks).per_subject)
        for name, total in clipped.take(parameters).items():
            mean = noised(total, NOISE, entropy) / batch.size
            parameters[name].grad = mean.to(total.dtype)
        optimizer.step()

    return private


def seconds(config: RunConfig, given: argparse.Namespace) -> dict[str, list[float]]:
    """Return the CPU seconds of a step of each arm, an entry per repeat; one more warms up."""
    steps = {arm: step_of(config, arm, given.rows, given.length) for arm in ARMS}
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for repeat in range(given.repeats + 1):
        for arm, step in steps.items():
            begun = time.process_time()
            step()
            if repeat:
                found[arm].append(time.process_time() - begun)
    return found


def memory_mib(size: str, arm: str, given: argparse.Namespace) -> float:
    """Return the memory of a process that makes three steps, less what it held before."""
    command = [sys.executable, "-W", "ignore", __file__, "--memory-of", size, arm]
    command += ["--rows", str(given.rows), "--length", str(given.length)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def tell_memory(size: str, arm: str, given: argparse.Namespace) -> None:
    """Make three steps and print what they took."""
    forget_peak()
    before = held_mib()
    step = step_of(config_of(size), arm, given.rows, given.length)
    for _ in range(3):
        step()
    print(peak_mib() - before)


def config_of(size: str) -> RunConfig:
    """Return the configuration of a size."""
    return compose([f"model={size}", "train.lr=1e-6"])


def measure(size: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one size."""
    config = config_of(size)
    memory = {arm: memory_mib(size, arm, given) for arm in ARMS}
    took = seconds(config, given)
    ratios = {
        arm: statistics.median(a / b for a, b in zip(took[arm], took["none"], strict=True))
        for arm in ARMS
    }
    count = sum(p.numel() for p in model_of(config).parameters())
    about = {"size": size, "parameters": count, "rows": given.rows, "length": given.length}
    return about | {
        arm: {
            "cpu_s": statistics.median(took[arm]),
            "time_ratio": ratios[arm],
            "mib": memory[arm],
            "memory_ratio": memory[arm] / memory["none"],
        }
        for arm in ARMS
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["demo", "small"])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", nargs=2, metavar=("SIZE", "ARM"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory_of:
        tell_memory(*given.memory_of, given)
        return
    rows = [measure(size, given) for size in given.sizes]
    for row in rows:
        print(f"{row['size']}, {row['parameters']:,} parameters, {given.rows} of {given.length}")
        for arm in ARMS:
            found = row[arm]
            print(
                f"  {arm:6s} {found['cpu_s']:7.2f} s of CPU, {found['time_ratio']:5.2f} x   "
                f"{found['mib']:8.0f} MiB, {found['memory_ratio']:5.2f} x"
            )
    RESULTS.mkdir(exist_ok=True)
    told = {"goals": GOALS, "rows": rows}
    (RESULTS / "privacy.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
