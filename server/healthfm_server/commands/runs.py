"""``run``, ``wait``, ``status``, ``log``, ``pause``, ``resume``, ``stop``: the runs of a study."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from healthfm_core.config.compose import compose
from healthfm_core.errors import RunError
from healthfm_server.commands import Command, study_of, takes_study
from healthfm_server.deploy.run_orders import RunOrder, Wanted
from healthfm_server.deploy.study_status import run_status, status_lines, study_status
from healthfm_server.deploy.study_supervision import supervision
from healthfm_server.run_folder.run_description import describe_run

WAIT_S = 0.5


def _configure_run(parser: ArgumentParser) -> None:
    takes_study(parser)
    parser.add_argument(
        "settings",
        nargs="*",
        help="a root file (configs/study.yaml), then group=option or key=value",
    )
    parser.add_argument("--name", help="the run's name (default: run-1, run-2, ...)")
    parser.add_argument("--nodes", type=int, help="sites to wait for (default: all admitted)")
    parser.add_argument("--wait", action="store_true", help="say what happens until it ends")


def run(arguments: Namespace) -> Iterator[str]:
    """Order a run."""
    study = study_of(arguments)
    root, overrides = Path("simulate.yaml"), list(arguments.settings)
    folder: Path | None = None
    if overrides and overrides[0].endswith(".yaml"):
        root = Path(overrides.pop(0))
        folder = root.parent
    config = compose(overrides, folder, root=root.stem)
    admitted = [site for site in study.sites.sites().values() if not site.revoked]
    number = 1 + len(list(study.runs.glob("run-*")))
    order = RunOrder.give(
        study.runs,
        arguments.name or f"run-{number}",
        config,
        arguments.nodes or max(1, len(admitted)),
    )
    study.audit("command").note("run ordered", {"run": order.name})
    yield f"run {order.name} is ordered: {config.federation.rounds} rounds"
    if arguments.wait:
        yield from watch(order)


def watch(order: RunOrder) -> Iterator[str]:
    """Yield each change of a run until it has ended.

    Raises:
        RunError: It failed or was stopped (HF-723).
    """
    told = ""
    while True:
        status = run_status(order)
        line = f"run {order.name}: {status['state']}, {status['rounds_done']} of {status['rounds']}"
        if status["reason"]:
            line += f": {status['reason']}"
        if line != told:
            yield line
            told = line
        if status["state"] == "finished":
            return
        if status["state"] in ("failed", "stopped"):
            raise RunError(
                723,
                where=f"run {order.name}",
                seen=f"it {status['state']}",
                wanted=status["reason"] or "it was to go on to its last round",
                do=f"Put it right, then: healthfm-server resume {order.name}",
            )
        time.sleep(WAIT_S)


def wait(arguments: Namespace) -> Iterator[str]:
    """Say what happens to a run until it has ended."""
    yield from watch(RunOrder.find(study_of(arguments).runs, arguments.run))


def _configure_status(parser: ArgumentParser) -> None:
    takes_study(parser)
    parser.add_argument("--json", action="store_true", help="for a program to read")


def status(arguments: Namespace) -> Iterator[str]:
    """Say what sites and runs are doing."""
    study = study_of(arguments)
    found = {**study_status(study), "processes": supervision(study).states()}
    if arguments.json:
        yield json.dumps(found, indent=1)
        return
    yield from status_lines(found)
    for name, state in found["processes"].items():
        yield f"process {name}: {state}"
    if not found["processes"]:
        yield "the study is down; start it with: healthfm-server up"


def _configure_named(parser: ArgumentParser) -> None:
    takes_study(parser)
    parser.add_argument("run", help="the run's name")


def log(arguments: Namespace) -> Iterator[str]:
    """Say what a run did, round by round, and what was set aside with the reasons."""
    order = RunOrder.find(study_of(arguments).runs, arguments.run)
    if order.begun():
        yield from describe_run(order.folder)
    else:
        yield f"run {order.name} has not begun: {order.done().state} {order.done().reason}".rstrip()


def _order(wanted: Wanted, says: str) -> Command:
    word = {"paused": "pause", "running": "resume", "stopped": "stop"}[wanted]

    def lines(arguments: Namespace) -> Iterator[str]:
        study = study_of(arguments)
        order = RunOrder.find(study.runs, arguments.run)
        order.want(wanted)
        study.audit("command").note(f"run {word}", {"run": order.name})
        yield f"run {order.name}: {says}"

    return Command(word, says, _configure_named, lines)


COMMANDS = (
    Command("run", "order a run", _configure_run, run),
    Command("wait", "say what happens to a run until it ends", _configure_named, wait),
    Command("status", "what sites and runs are doing", _configure_status, status),
    Command("log", "what a run did, round by round", _configure_named, log),
    _order("paused", "it stops, the sites' computing too; resume goes on at its last round"),
    _order("running", "it goes on at its last round"),
    _order("stopped", "it is given up, the sites' computing stops; its rounds stay on disk"),
)
