"""``run``: order a run of the study."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from healthfm_core.command_line import Command
from healthfm_core.config.compose import compose
from healthfm_core.stdout import say
from healthfm_server.commands import study_of, takes_study
from healthfm_server.commands.wait import wait_for
from healthfm_server.deploy.run_orders import RunOrder


def arguments(parser: ArgumentParser) -> None:
    """Add the run's settings, its name and how many sites it waits for."""
    takes_study(parser)
    parser.add_argument(
        "settings",
        nargs="*",
        help="a root file (configs/study.yaml), then group=option or key=value",
    )
    parser.add_argument("--name", help="the run's name (default: run-1, run-2, ...)")
    parser.add_argument(
        "--nodes",
        type=int,
        help="sites to wait for (default: all that are admitted when it begins)",
    )
    parser.add_argument(
        "--even-so",
        action="store_true",
        help="go on where the sites' codes hardly meet (federation.min_shared_codes=0)",
    )
    parser.add_argument("--wait", action="store_true", help="say what happens until it ends")


def run(given: Namespace) -> int:
    """Order a run."""
    study = study_of(given)
    root, overrides = Path("simulate.yaml"), list(given.settings)
    if given.even_so:
        overrides.append("federation.min_shared_codes=0")
    folder: Path | None = None
    if overrides and overrides[0].endswith(".yaml"):
        root = Path(overrides.pop(0))
        folder = root.parent
    config = compose(overrides, folder, root=root.stem)
    name = given.name or f"run-{1 + len(list(study.runs.glob('run-*')))}"
    order = RunOrder.give(study.runs, name, config, given.nodes)
    study.audit("command").note("run ordered", {"run": order.name})
    say(f"run {order.name} is ordered: {config.federation.rounds} rounds")
    if given.wait:
        wait_for(order, study)
    return 0


COMMAND = Command("order a run", run, arguments)
