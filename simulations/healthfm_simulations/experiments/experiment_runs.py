"""The runs of an experiment: one per variant and seed, each in a folder of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError
from rich.console import Console

from healthfm_core.config import RunConfig
from healthfm_core.config.renamed import RUN
from healthfm_core.errors import RunError
from healthfm_core.evaluation import MetricRow, read_rows
from healthfm_core.evaluation.report.report_page import METRICS_FILE
from healthfm_server.registry.model_export import export_model
from healthfm_simulations.experiments.experiment_plan import MODEL, ExperimentPlan, folder_of
from healthfm_simulations.experiments.secondary_rows import secondary_rows
from healthfm_simulations.result_folder import CONFIG_FILE
from healthfm_simulations.scoring.metrics_by_site import SiteRows, read_by_site
from healthfm_simulations.simulation_run import run_simulation

STAMP_FILE: Final = "stamp.json"
"""Written last into the folder of a run: it is finished, and how it came about."""


@dataclass(frozen=True)
class RunStamp:
    """How a finished run came about.

    Attributes:
        day: When it ended, ``2026-11-21``.
        seconds: Wall clock, of the last start to its end.
        commit: The checkout's commit, with ``+`` where files were changed; empty outside one.
    """

    day: str
    seconds: float
    commit: str


@dataclass(frozen=True)
class FinishedRun:
    """One finished run."""

    variant: str
    seed: int
    rows: tuple[MetricRow, ...]
    by_site: tuple[SiteRows, ...]
    stamp: RunStamp


def run_all(
    plan: ExperimentPlan, out: Path, seeds: Sequence[int], console: Console
) -> list[FinishedRun]:
    """Run what is not finished yet, seed by seed so that every seed is soon complete.

    Raises:
        RunError: HF-702, a folder holds a run of other settings; HF-705, interrupted.
        HealthFMError: What a run raises.
    """
    runs = []
    for seed in seeds:
        for variant in plan.variants:
            folder = folder_of(out, variant, seed)
            config = plan.config(variant, seed, out)
            if not is_finished(folder, config):
                console.print(f"{variant}, seed {seed}: {folder}", markup=False)
                _run(config, folder, console, keep_model=variant in plan.starts.values())
            runs.append(_read(folder, variant, seed))
    return runs


def finished(plan: ExperimentPlan, out: Path, seeds: Sequence[int]) -> list[FinishedRun]:
    """Return the runs that are finished, running nothing.

    Raises:
        RunError: HF-701, there is none; HF-702, a folder holds a run of other settings.
    """
    places = [(v, seed, folder_of(out, v, seed)) for seed in seeds for v in plan.variants]
    runs = [
        _read(folder, variant, seed)
        for variant, seed, folder in places
        if is_finished(folder, plan.config(variant, seed, out))
    ]
    if not runs:
        raise RunError(
            701,
            where=str(out),
            seen="no run of the experiment is finished there",
            wanted="a table needs one at least",
            do="Leave out --finished, or name the folder with --out",
        )
    return runs


def is_finished(folder: Path, config: RunConfig) -> bool:
    """Whether `folder` holds the finished run of `config`.

    Raises:
        RunError: HF-702, it holds another run.
    """
    begun = folder / CONFIG_FILE
    if not begun.is_file():
        return False
    if not _is_of(begun, config):
        raise RunError(
            702,
            where=str(folder),
            seen="the run in it was made with other settings",
            wanted="a run is repeated when its settings changed, not mixed with the old",
            do="Delete the folder to run it anew, or give another --out",
        )
    return (folder / STAMP_FILE).is_file()


def _is_of(recorded: Path, config: RunConfig) -> bool:
    """Whether a recorded configuration is `config`; a field it does not know had its default."""
    try:
        values = RUN.upgrade(yaml.safe_load(recorded.read_text(encoding="utf-8")))
        before = RunConfig.model_validate(values)
    except (yaml.YAMLError, ValidationError):
        return False
    return before == config.model_copy(update={"out": None, "resume": False})


def _run(config: RunConfig, folder: Path, console: Console, *, keep_model: bool) -> None:
    started = time.monotonic()
    resumed = config.model_copy(update={"resume": (folder / CONFIG_FILE).is_file()})
    run_simulation(resumed, folder, command="healthfm-experiment", console=console)
    if keep_model and not (folder / MODEL).exists():
        last = export_model(folder / "runs" / "fold-0" / "federated", folder / MODEL)
        console.print(f"the model after round {last} is in {folder / MODEL}", markup=False)
    shutil.rmtree(folder / "runs")  # checkpoints: what is asked of them is in the rows by now
    day = datetime.now(UTC).date().isoformat()
    stamp = RunStamp(day, round(time.monotonic() - started, 1), commit_here())
    (folder / STAMP_FILE).write_text(json.dumps(asdict(stamp)) + "\n", encoding="utf-8")


def _read(folder: Path, variant: str, seed: int) -> FinishedRun:
    stamp = RunStamp(**json.loads((folder / STAMP_FILE).read_text(encoding="utf-8")))
    rows = read_rows(folder / METRICS_FILE)
    rows += secondary_rows(folder, rows[0].task)
    return FinishedRun(variant, seed, tuple(rows), tuple(read_by_site(folder)), stamp)


def commit_here() -> str:
    """Return the commit of the checkout this package lies in, with ``+`` where it was changed."""
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return done.stdout.strip()


def of_variant(runs: Sequence[FinishedRun], variant: str) -> Iterator[FinishedRun]:
    """Yield a variant's runs, by seed."""
    return (one for one in runs if one.variant == variant)
