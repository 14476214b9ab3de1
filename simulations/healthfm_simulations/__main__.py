"""``healthfm-simulate``: a whole federation on one machine, from raw tables to a report."""

from __future__ import annotations

import shlex
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

from rich.console import Console

from healthfm_core.command_line import told_version
from healthfm_core.config.compose import compose, options
from healthfm_core.config.setting_words import setting_words
from healthfm_core.console import exit_code
from healthfm_core.errors import HealthFMError
from healthfm_core.owner_only import owner_only
from healthfm_core.shell_completion import add_completion, takes_settings
from healthfm_core.stdout import say
from healthfm_simulations.result_folder import config_to_resume

USAGE = """usage: healthfm-simulate [group=option] [key=value] ...

Trains one health model over several simulated sites and compares arms: federated
(modality-aware), plain FedAvg, local-only per site, centralised, and on request the ensemble of
the local models. Leaves report.html, metrics.json, predictions.parquet, config.yaml and checkpoints
in the folder out= (runs/<time> by default).

  data=      {data}
  model=     {model}
  train=label_tabular evaluation.task=NAME    learn a label of the stores' tables
  sites=     natural | region | hospital | groups      (eicu_demo)
  rounds=    number of rounds                 seed=    number
  out=       result folder                    resume=true   go on with the run in out=
  simulation.arms=[federated,local]           simulation.engine=ray
  data.path= folder of the raw data           simulation.replicates=5   seeds
  network=   {network}                        behind simulated lines, in virtual time
  plan=      {plan}                           how long so many sites would take

Any key of config.yaml can be set the same way."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the process's exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(given):
        return exit_code(_say_usage)
    if "--version" in given:
        return exit_code(lambda: _say(told_version("healthfm-simulate")))
    if any(word.startswith("--print-completion") for word in given):
        _completed_words().parse_args(given)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    stopped = "Stopped. To go on from the last finished round: resume=true and out= its folder."
    with owner_only():
        return exit_code(lambda: _run(given, console), stopped=stopped)


def _completed_words() -> ArgumentParser:
    """Return what a shell completes; the command itself reads settings."""
    parser = ArgumentParser(prog="healthfm-simulate", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=told_version("healthfm-simulate"))
    add_completion(parser)
    takes_settings(parser.add_argument("settings", nargs="*"), setting_words)
    return parser


def _say_usage() -> int:
    groups = {group: " | ".join(options(group)) for group in ("data", "model", "network", "plan")}
    return _say(USAGE.format(**groups))


def _say(text: str) -> int:
    say(text)
    return 0


def _run(given: list[str], console: Console) -> int:
    started = time.monotonic()
    config = config_to_resume(given, compose(given))
    from healthfm_simulations.printed_result import printed  # here: torch takes seconds to load
    from healthfm_simulations.simulation_run import run_simulation

    out = Path(config.out or Path("runs") / time.strftime("%Y-%m-%d-%H%M%S"))
    command = shlex.join(["healthfm-simulate", *given])
    console.print(command, markup=False)
    if config.plan.sites is not None:
        from healthfm_simulations.planning.study_plan import make_plan

        make_plan(config, out, console)
        console.print(f"results in {out}", markup=False)
        return 0
    try:
        result = run_simulation(config, out, command=command, console=console)
    except HealthFMError as error:
        if error.number == 705:
            again = ["healthfm-simulate", f"out={out}", "resume=true"]
            print(f"To go on: {shlex.join(again)}", file=sys.stderr)
        raise
    for part in printed(result):
        console.print(part)
    console.print(f"{time.monotonic() - started:.0f} s in all. Report: {result.report}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
