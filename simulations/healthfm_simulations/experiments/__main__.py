"""``healthfm-experiment``: run an experiment's variants over its seeds, and write its table."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from healthfm_core.command_line import told_version
from healthfm_core.console import exit_code
from healthfm_core.owner_only import owner_only
from healthfm_core.shell_completion import add_completion
from healthfm_simulations.experiments.experiment_plan import (
    ExperimentPlan,
    catalogue,
    find,
    read_plan,
)

README: Final = "README.md"
NONE_HERE: Final = (
    "This installation has no experiments: they are in the repository, in simulations/experiments. "
    "There, or with the path of a folder that has a plan, the command runs them."
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the process's exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.experiment and options.cheap:
        parser.error("--cheap runs all that are cheap; leave the name out")
    if not (options.experiment or options.cheap):
        return _list()
    stopped = "Stopped. The same command goes on from the last finished round."
    with owner_only():
        return exit_code(lambda: _run_all(options), stopped=stopped)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="healthfm-experiment",
        allow_abbrev=False,
        description="Runs every variant of an experiment over its seeds and writes the table of "
        "its README. A finished run is not repeated; without a name the experiments are listed.",
    )
    parser.add_argument("--version", action="version", version=told_version("healthfm-experiment"))
    add_completion(parser)
    parser.add_argument("experiment", nargs="?", help="a name of the list, or a folder")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help="so many seeds; fewer than planned print only"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where its runs go; runs/experiments/<name>"
    )
    parser.add_argument(
        "--finished", action="store_true", help="run nothing; write the table of what is finished"
    )
    parser.add_argument("--cheap", action="store_true", help="run all that are marked cheap")
    return parser


def _list() -> int:
    folders = catalogue()
    if not folders:
        print(NONE_HERE)
    for folder in folders:
        plan = read_plan(folder)
        print(f"{folder.name}  ({plan.time})\n    {plan.question}")
    return 0


def _cheap() -> list[Path]:
    return [folder for folder in catalogue() if read_plan(folder).cheap]


def _run_all(options: argparse.Namespace) -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    for folder in _cheap() if options.cheap else [find(options.experiment)]:
        out = options.out or Path("runs") / "experiments"
        if options.cheap or options.out is None:
            out = out / folder.name
        _run(folder, options, out, console)
    return 0


def _run(folder: Path, options: argparse.Namespace, out: Path, console: Console) -> None:
    plan = read_plan(folder)
    # here: torch takes seconds to load
    from healthfm_simulations.experiments import experiment_runs, readme_results

    readme_results.check_markers(folder / README)
    count = plan.seeds if options.seeds is None else max(1, options.seeds)
    seeds = range(plan.first_seed, plan.first_seed + count)
    if options.finished:
        variant_runs = experiment_runs.finished(plan, out, seeds)
    else:
        variant_runs = experiment_runs.run_all(plan, out, seeds, console)
    text = readme_results.results(plan, variant_runs, _command(folder, plan, count))
    console.print(text, markup=False, soft_wrap=True)
    if count >= plan.seeds:
        readme_results.write_results(folder / README, plan, text)
        console.print(f"written to {folder / README}", markup=False)


def _command(folder: Path, plan: ExperimentPlan, count: int) -> str:
    extra = [] if count == plan.seeds else ["--seeds", str(count)]
    return shlex.join(["healthfm-experiment", folder.name, *extra])


if __name__ == "__main__":
    raise SystemExit(main())
